"""What is compiled does what its twin in Python does, to the byte; and either can be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from costinsights import quick
from costinsights.clock import Clock
from costinsights.ledger import lines, seal
from tests.backends import unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 2**63 - 1
NOW = 1_795_000_000_000_000_000
whole = st.integers(-(2**63), LONGEST)
texts = st.binary(max_size=lines.MAX_TEXT)


@pytest.fixture
def compiled() -> None:
    """The module in C, or the test is skipped by name; see `unavailable`."""
    if not quick.COMPILED:
        unavailable(
            "the module in C", "it was not built: have a C compiler, and make clean install"
        )


needs_compiled = pytest.mark.usefixtures("compiled")


@needs_compiled
def test_it_was_built() -> None:
    assert quick.COMPILED
    assert quick.entry is not lines.entry
    assert quick.sealed is not seal.sealed
    assert quick.Clock is not Clock


@given(st.binary(max_size=3000))
@example(b"")
def test_a_line_is_sealed_alike(body: bytes) -> None:
    line = quick.sealed(body)
    assert line == seal.sealed(body)
    assert seal.is_sealed(line[:-1])


entries = st.tuples(
    whole, whole, whole, texts, whole, st.integers(0, 2**127), st.none() | whole, texts
)


@settings(max_examples=1000)
@given(entries)
@example((-(2**63), 0, LONGEST, b"", 0, 2**64 - 1, LONGEST, b""))
@example((1, NOW, 0, b',"r":1', 9, 2**64, 0, b',"l":true'))
@example((1, NOW, 10, b',"r":1,"a":2', 0, 10**19, None, b""))
def test_an_entry_is_written_alike(fields: tuple[Any, ...]) -> None:
    assert quick.entry(*fields) == lines.entry(*fields)


def test_the_longest_entry_has_room() -> None:
    text = b"x" * lines.MAX_TEXT
    fields = (-(2**63), -(2**63), -(2**63), text, -(2**63), 2**128 - 1, -(2**63), text)
    assert quick.entry(*fields) == lines.entry(*fields)


@pytest.mark.parametrize("entry", [quick.entry, lines.entry], ids=["built", "python"])
@pytest.mark.parametrize("place", [3, 7])
def test_what_is_too_long_is_refused(entry: Callable[..., bytes], place: int) -> None:
    fields: list[Any] = [1, NOW, 10, b"", 0, 0, 0, b""]
    fields[place] = b"x" * (lines.MAX_TEXT + 1)
    with pytest.raises(ValueError, match="too long for an entry"):
        entry(*fields)


@pytest.mark.parametrize("sealed", [quick.sealed, seal.sealed], ids=["built", "python"])
def test_what_no_seal_can_count_is_refused(sealed: Callable[[bytes], bytes]) -> None:
    assert seal.is_sealed(sealed(b"x" * seal.MAX_LINE)[:-1])
    with pytest.raises(ValueError, match="too long for a line"):
        sealed(b"x" * (seal.MAX_LINE + 1))


@needs_compiled
@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ((1, NOW, 10, b"", 0, 0, 0), TypeError),
        ((1, NOW, 10, b"", 0, 0, 0, b"", 1), TypeError),
        (("1", NOW, 10, b"", 0, 0, 0, b""), TypeError),
        ((1, NOW, 10, "", 0, 0, 0, b""), TypeError),
        ((1, NOW, 10, b"", None, 0, 0, b""), TypeError),
        ((1, NOW, 10, b"", 0, None, 0, b""), TypeError),
        ((1, NOW, 10, b"", 0, 0, 0, None), TypeError),
        ((1, NOW, 2**63, b"", 0, 0, 0, b""), OverflowError),
        ((1, NOW, 10, b"", 0, -1, 0, b""), OverflowError),
        ((1, NOW, 10, b"", 0, 2**128, 0, b""), OverflowError),
        ((1, NOW, 10, b"", 0, 0, 2**63, b""), OverflowError),
    ],
)
def test_what_is_no_entry_is_refused(fields: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        quick.entry(*fields)


@needs_compiled
def test_what_is_no_time_is_refused() -> None:
    clock = quick.Clock()
    wrong: Any = "now"
    with pytest.raises(TypeError):
        clock.enter(wrong)
    with pytest.raises(TypeError):
        clock.leave(wrong, 0)
    with pytest.raises(TypeError):
        clock.leave(1, wrong)
    with pytest.raises(OverflowError):
        clock.enter(2**63)
    assert clock.number == 0


steps = st.lists(
    st.tuples(
        st.sampled_from(["enter", "leave", "leave", "reset"]),
        st.integers(-50, 50) | st.integers(0, 10**15),
        st.integers(0, 5),
    ),
    max_size=60,
)


@settings(max_examples=500)
@given(steps)
# A busy week is more units than 64 bits hold, for the reading and for one call's share.
@example([("enter", 0, 0), ("enter", 10**15, 0), ("leave", 1, 1), ("leave", 1, 0)])
def test_the_clocks_go_alike(moves: list[tuple[str, int, int]]) -> None:
    ours, twin = quick.Clock(), Clock()
    running: list[tuple[int, int]] = []
    now = 0
    for what, passed, which in moves:
        now += passed
        if what == "enter":
            running.append((ours.enter(now), twin.enter(now)))
            assert running[-1][0] == running[-1][1]
        elif what == "leave" and running:
            entered = running.pop(which % len(running))
            assert ours.leave(now, entered[0]) == twin.leave(now, entered[1])
        elif what == "reset":  # who runs now runs in the parent, and may still be told so
            ours.reset()
            twin.reset()
        assert ours.number == twin.number


def loaded(**environment: str) -> str:
    """Say which of the two a new interpreter takes."""
    code = "from costinsights import quick; print(quick.COMPILED, quick.Clock.__module__)"
    command = [sys.executable, "-c", code]
    given = {**os.environ, **environment}
    return subprocess.run(
        command, env=given, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_python_can_be_asked_for() -> None:
    assert loaded(COSTINSIGHTS_PURE="1") == "False costinsights.clock\n"
    if quick.COMPILED:
        assert loaded(COSTINSIGHTS_PURE="0") == "True costinsights._quick\n"


def test_the_compiler_has_nothing_to_complain_of() -> None:
    if shutil.which("cc") is None:
        unavailable("a C compiler", "there is no cc on the path")
    source = Path(__file__).parents[2] / "src/costinsights/_quick.c"
    options = ["-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    command = ["cc", *options, "-isystem", sysconfig.get_path("include"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert not done.stderr
