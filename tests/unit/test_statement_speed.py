"""The time that reading takes grows with the text, no faster, and not beyond the part read.

Ratios of times in one run, not times: the machine may be busy.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from costinsights import _lexer, _shape, _summary
from costinsights.statement import parse

if TYPE_CHECKING:
    from collections.abc import Callable

# Texts of a given length that a careless expression would go over again and again.
HOSTILE: dict[str, Callable[[int], str]] = {
    "quotes": lambda n: "'" * n,
    "double quotes": lambda n: '"' * n,
    "backticks": lambda n: "`" * n,
    "quote and space": lambda n: "' " * (n // 2),
    "backslashes": lambda n: "'" + "\\" * n,
    "escaped quotes": lambda n: "\\'" * (n // 2),
    "open comments": lambda n: "/*" * (n // 2),
    "closed comments": lambda n: "/**/" * (n // 4),
    "nested comments": lambda n: "/*/**/*/" * (n // 8),
    "stars": lambda n: "/*" + "*" * n,
    "dashes": lambda n: "-" * n,
    "hashes": lambda n: "#" * n,
    "dollars": lambda n: "$" * n,
    "open dollar quote": lambda n: "$a$" + "$b$" * (n // 3),
    "tags": lambda n: "$a" * (n // 2),
    "q quotes": lambda n: "q'[" * (n // 3),
    "prefixes": lambda n: "E'x" * (n // 3),
    "brackets": lambda n: "[" * n,
    "bracketed": lambda n: "[a]" * (n // 3),
    "parentheses": lambda n: "(" * (n // 2) + ")" * (n // 2),
    "lists": lambda n: "in (1," * (n // 6),
    "rows": lambda n: "VALUES " + "(1,a)," * (n // 6),
    "values": lambda n: "values " * (n // 7),
    "digits": lambda n: "1" * n,
    "numbers": lambda n: "1 " * (n // 2),
    "exponents": lambda n: "1e-" * (n // 3),
    "points": lambda n: "." * n,
    "commas": lambda n: "," * n,
    "a word": lambda n: "a" * n,
    "words": lambda n: "a " * (n // 2),
    "accounts": lambda n: "a:" * (n // 2) + "@b",
    "no account after all": lambda n: "@ " + "a:" * (n // 2),
    "brackets that end": lambda n: "[" * n + "]",
    "accounts with at": lambda n: "a:b@" * (n // 4),
    "passwords": lambda n: "password " * (n // 9),
    "password =": lambda n: "password=" * (n // 9),
    "identified by": lambda n: "identified by " * (n // 14),
    "names": lambda n: '"a",' * (n // 4),
    "dotted": lambda n: "SELECT 1 FROM " + "a." * (n // 2),
    "tables": lambda n: "SELECT 1 FROM " + "a," * (n // 2),
    "joins": lambda n: "SELECT 1 FROM a " + "join b " * (n // 7),
    "with": lambda n: "with a as (" * (n // 11),
    "create": lambda n: "create " * (n // 7),
    "spaces": lambda n: " " * n,
    "line breaks": lambda n: "\n" * n,
    "NULs": lambda n: "\x00" * n,
    "pasted quotes": lambda n: "\u2018" * n,
    "foreign digits": lambda n: "\u0661" * n,
    "colons": lambda n: ":" * n,
    "at signs": lambda n: "@" * n,
    "question marks": lambda n: "?" * n,
}
# Between them they have every rule there is.
SYSTEMS = ("postgresql", "mysql", "gcp.bigquery", "azure.sql", "oracle", "databricks", "")


def fastest(run: Callable[[], object], times: int = 3) -> float:
    """CPU seconds of the best of some runs."""
    best = float("inf")
    for _ in range(times):
        started = time.process_time()
        run()
        best = min(best, time.process_time() - started)
    return best


def read_all(text: str, dialect: _lexer.Dialect) -> None:
    masked, names, _ = _lexer.mask(text, dialect)
    shown, words, _, _ = _shape.shape(masked, names, dialect)
    _summary.describe(shown, words)


@pytest.mark.parametrize("kind", HOSTILE)
def test_time_grows_with_the_text(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shape, "LONGEST_SHAPED", 10**9)  # the whole of it, for once
    small, large = HOSTILE[kind](500), HOSTILE[kind](8_000)
    for system in SYSTEMS:
        dialect = _lexer.DIALECTS.get(system, _lexer.UNKNOWN)
        read_all(small, dialect)  # compiles
        # 16 times the text; a second look at every character would take 256 times as long. One
        # quiet moment of a busy machine is enough to tell the two apart.
        times: list[tuple[float, float]] = []
        while not times or (len(times) < 5 and not is_linear(*times[-1])):
            once = fastest(lambda: read_all(small, dialect), 2)  # noqa: B023
            times.append((once, fastest(lambda: read_all(large, dialect), 2)))  # noqa: B023
        assert is_linear(*times[-1]), (system, times)


def is_linear(once: float, more: float) -> bool:
    """Whether 16 times the text took nearer to 16 than to 256 times as long."""
    return more < 64 * max(once, 50e-6)


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_not_read_takes_no_time(kind: str) -> None:
    long, longer = HOSTILE[kind](50_000), HOSTILE[kind](1_000_000)
    for system in ("postgresql", ""):
        parse(long, system)
        once = fastest(lambda: parse(long, system), 2)  # noqa: B023
        more = fastest(lambda: parse(longer, system), 2)  # noqa: B023
        assert more < 3 * once + 1e-3, (system, once, more)


def test_ten_megabytes_cost_little_more_than_what_is_read_of_them() -> None:
    row = "(1, 'some text', 3.14, NULL), "
    long = "INSERT INTO t (a, b, c, d) VALUES " + row * 1000
    longer = "INSERT INTO t (a, b, c, d) VALUES " + row * 350_000
    assert len(longer) > 10_000_000
    assert parse(longer, "postgresql").fingerprint == parse(long, "postgresql").fingerprint
    once = fastest(lambda: parse(long, "postgresql"), 5)
    more = fastest(lambda: parse(longer, "postgresql"), 5)
    assert more < 3 * once + 1e-3


def test_thousands_of_parentheses_are_read_to_the_end() -> None:
    read = parse("SELECT " + "(" * 3000 + "1" + ")" * 3000 + " FROM t", "postgresql")
    assert read.text == "SELECT " + "(" * 3000 + "?" + ")" * 3000 + " FROM t"
    assert read.summary == "SELECT t"
