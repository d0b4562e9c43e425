"""No secret is ever to be seen, wherever in a statement it stands and whoever reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights import _lexer
from costinsights.statement import ERROR_TEXT, Statement, parse
from tests.examples import examples
from tests.secrets import SYSTEMS, Secret, leaks, secrets

if TYPE_CHECKING:
    from collections.abc import Callable

SECRETS = list(secrets())
PLACES = sorted({secret.place for secret in SECRETS})


def everything(read: Statement) -> str:
    return f"{read.text} {read.summary} {read.operation} {read.comment} {read!r}"


def test_there_are_enough_secrets() -> None:
    assert len(SECRETS) > 2000
    assert len({secret.canary for secret in SECRETS}) == len(SECRETS)
    assert all(secret.canary in secret.text for secret in SECRETS)
    assert {secret.system for secret in SECRETS} == {"", *SYSTEMS}
    assert set(SYSTEMS) <= set(_lexer.DIALECTS)


def test_a_leak_is_found() -> None:
    secret = Secret("", "SELECT 'HushHush'", "HushHush", "string")
    assert leaks("… select hushhush …", [secret]) == [secret]
    assert leaks("… select ? …", [secret]) == []


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_not_seen(place: str) -> None:
    for secret in SECRETS:
        if secret.place == place:
            read = parse(secret.text, secret.system)
            assert read.text != ERROR_TEXT
            assert not leaks(everything(read), [secret]), (secret.system, secret.text, read.text)


def test_a_secret_is_not_seen_when_the_system_is_mistaken_for_an_unknown_one() -> None:
    leaking = [s for s in SECRETS if leaks(everything(parse(s.text, "no such system")), [s])]
    assert leaking == []


def test_a_secret_makes_no_difference_to_the_fingerprint() -> None:
    shapes: dict[tuple[str, str], set[str]] = {}
    for secret in SECRETS:
        again = secret.text.replace(secret.canary, secret.canary[::-1])
        key = (secret.system, secret.text)
        shapes[key] = {parse(text, secret.system).fingerprint for text in (secret.text, again)}
    assert [key for key, fingerprints in shapes.items() if len(fingerprints) > 1] == []


# --- literals with anything in them ---------------------------------------------------------------

VISIBLE_SIGNS = "' '' \" ` \\ \\\\ $ $$ $a$ -- /* */ # // [ ] ( ) ; : ? % @ , . e q' r' N é ’ 1 a * / %s".split()
SIGNS = st.sampled_from([*VISIBLE_SIGNS, " ", "\n", "\r", "\x00", "\ud800", "a b"])
CONTENTS = st.lists(SIGNS, max_size=8).flatmap(
    lambda parts: st.integers(0, len(parts)).map(
        lambda at: "".join([*parts[:at], "hushhush", *parts[at:]])
    )
)

_MYSQL = ("mysql", "mariadb")
_ESCAPING = (*_MYSQL, "databricks", "spark", "gcp.bigquery", "snowflake", "aws.redshift")
_NESTING = (
    "postgresql",
    "aws.redshift",
    "duckdb",
    "azure.sql",
    "azure.synapse",
    "databricks",
    "spark",
)
_WITH_E = ("postgresql", "aws.redshift", "duckdb")


def doubled(quote: str) -> Callable[[str], str]:
    return lambda text: quote + text.replace(quote, quote * 2) + quote


def escaped(quote: str) -> Callable[[str], str]:
    return lambda text: (
        quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("\n", "\\n") + quote
    )


def escaped_and_doubled(quote: str) -> Callable[[str], str]:
    return lambda text: quote + text.replace("\\", "\\\\").replace(quote, quote * 2) + quote


def in_dollars(text: str) -> str:
    return "$t$" + text.replace("$", "") + "$t$"


def in_q(text: str) -> str:
    return "q'{" + text.replace("}", "") + "}'"


def in_three(text: str) -> str:
    return "'''" + text.replace("\\", "\\\\").replace("'", "\\'") + "'''"


def in_a_comment(text: str) -> str:
    return "/* " + text.replace("*", "") + " */ 1"


def in_nested_comments(text: str) -> str:
    return "/* " + re.sub(r"[*/]", "", text) + " /* */ " + re.sub(r"[*/]", "", text) + " */ 1"


def in_a_line(text: str) -> str:
    return "-- " + re.sub(r"[\r\n]", " ", text) + "\n1"


# How a literal is written, and for which systems.
WRITERS: list[tuple[str, Callable[[str], str]]] = [
    *[(system, doubled("'")) for system in SYSTEMS if system not in _ESCAPING],
    *[(system, escaped("'")) for system in _ESCAPING],
    *[(system, escaped_and_doubled("'")) for system in _ESCAPING if system != "gcp.bigquery"],
    *[(system, escaped('"')) for system in (*_MYSQL, "databricks", "spark", "gcp.bigquery")],
    *[(system, lambda text: "E" + escaped("'")(text)) for system in _WITH_E],
    *[(system, in_dollars) for system in (*_WITH_E, "snowflake")],
    ("oracle", in_q),
    ("gcp.bigquery", in_three),
    *[(system, in_a_comment) for system in SYSTEMS],
    *[(system, in_nested_comments) for system in _NESTING],
    *[(system, in_a_line) for system in SYSTEMS],
    # servers whose settings are not the default
    ("postgresql", escaped("'")),
    ("aws.redshift", doubled("'")),
    *[(system, doubled("'")) for system in _MYSQL],
    *[(system, doubled('"')) for system in _MYSQL],
]

PATTERNS = st.sampled_from(
    [
        "SELECT * FROM t WHERE a = {} AND b IN ({}, {})",
        "INSERT INTO t (a, b) VALUES ({}, {}), ({}, 1)",
        "UPDATE t SET a={},b={} WHERE c<>{}",
        "{}{}{}",
        "CALL f({},{},{})",
    ]
)


@settings(deadline=None, max_examples=examples(500))
@given(st.data(), PATTERNS, st.booleans())
def test_nothing_of_a_literal_is_seen(data: st.DataObject, pattern: str, known: bool) -> None:
    system, _ = data.draw(st.sampled_from(WRITERS))
    writers = [writer for name, writer in WRITERS if name == system]
    if system in ("postgresql", "aws.redshift", *_MYSQL):
        # One setting holds for a whole statement: other literals are written as the first one is.
        writers = [data.draw(st.sampled_from(writers))]
    literals = [data.draw(st.sampled_from(writers))(data.draw(CONTENTS)) for _ in range(3)]
    separated = [literal + " " for literal in literals] if pattern == "{}{}{}" else literals
    read = parse(pattern.format(*separated), system if known else "")
    assert read.text != ERROR_TEXT
    assert "hush" not in everything(read).lower()


@settings(deadline=None, max_examples=examples(300))
@given(
    CONTENTS,
    st.sampled_from(["'", '"', "/*", "$$", "$a$", "`", "E'", "N'"]),
    st.sampled_from(["", *SYSTEMS]),
)
def test_nothing_behind_an_open_end_is_seen(content: str, opening: str, system: str) -> None:
    hidden = re.sub(r"[^a-z ]", "", content)
    read = parse(f"SELECT a FROM t WHERE b = {opening}{hidden}", system)
    assert "hush" not in everything(read)
    assert read.text.startswith("SELECT a FROM t WHERE b =")


@pytest.mark.parametrize("system", ["", *SYSTEMS])
def test_a_secret_behind_the_part_that_is_read_is_not_seen(system: str) -> None:
    for start in range(24_560, 24_590):  # wherever the cut falls
        text = "SELECT a" + " " * (start - 8) + "'hushhush' FROM t"
        assert "hush" not in everything(parse(text, system))
        text = "ALTER ROLE bob" + " " * (start - 14) + " PASSWORD hushhush"
        assert "hush" not in everything(parse(text, system))
