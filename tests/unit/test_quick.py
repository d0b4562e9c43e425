"""What is compiled does what its twin in Python does, to the byte; and either can be had."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from costinsights import quick
from costinsights.clock import Clock
from costinsights.ledger import lines, seal
from costinsights.ledger.sums import Sums
from tests.backends import unavailable
from tests.examples import examples

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 2**63 - 1
NOW = 1_795_000_000_000_000_000
whole = st.integers(-(2**63), LONGEST)
texts = st.binary(max_size=3000)


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


leaves = st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False)
some = st.dictionaries(st.text(), leaves | st.dictionaries(st.text(), leaves) | st.tuples(leaves))
entries = st.tuples(
    whole,
    whole,
    whole,
    texts,
    st.none() | whole,
    st.integers(0, 2**127),
    st.none() | whole,
    st.none() | some,
    texts,
)


@settings(max_examples=examples(1000))
@given(entries)
@example((-(2**63), 0, LONGEST, b"", 0, 2**64 - 1, LONGEST, None, b""))
@example((1, NOW, 0, b',"r":1', 9, 2**64, 0, {}, b',"l":true'))
@example((1, NOW, 10, b',"r":1,"a":2', 0, 10**19, None, {"o": "JOB", "u": {"a": 1, "b": {}}}, b""))
@example((1, NOW, 10, b"", None, 0, None, {"e": ("x", None), "l": True, "v": 2**63}, b""))
@example((1, NOW, 10, b"", None, 0, None, {"i": 'a"b\\\n\x7fé'}, b""))
def test_an_entry_is_written_alike(fields: tuple[Any, ...]) -> None:
    line = said(lambda: quick.entry(*fields))
    assert line == said(lambda: lines.entry(*fields))


def said(write: Callable[[], bytes]) -> bytes | type[Exception]:
    """What is written, or the kind of the error that is raised."""
    try:
        return write()
    except Exception as error:  # noqa: BLE001  whatever it is, it is to be the same
        return type(error)


@pytest.mark.parametrize("size", [0, 1, 1200, 2000, 2047, 2048, 2049, 5000, 100_000])
def test_an_entry_of_any_length_has_room(size: int) -> None:
    text, word = b"x" * size, "y" * size
    lowest = -(2**63)
    for words in (None, {word: word}, {word: {word: lowest}}):
        fields = (lowest, lowest, lowest, text, lowest, 2**128 - 1, lowest, words, text)
        assert quick.entry(*fields) == lines.entry(*fields)


@pytest.mark.parametrize("entry", [quick.entry, lines.entry], ids=["built", "python"])
def test_what_no_seal_can_count_is_no_entry(entry: Callable[..., bytes]) -> None:
    with pytest.raises(ValueError, match="too long for a line"):
        entry(1, NOW, 10, b"", 0, 0, 0, None, b"x" * seal.MAX_LINE)


@pytest.mark.parametrize("sealed", [quick.sealed, seal.sealed], ids=["built", "python"])
def test_what_no_seal_can_count_is_refused(sealed: Callable[[bytes], bytes]) -> None:
    assert seal.is_sealed(sealed(b"x" * seal.MAX_LINE)[:-1])
    with pytest.raises(ValueError, match="too long for a line"):
        sealed(b"x" * (seal.MAX_LINE + 1))


@needs_compiled
@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ((1, NOW, 10, b"", 0, 0, 0, None), TypeError),
        ((1, NOW, 10, b"", 0, 0, 0, None, b"", 1), TypeError),
        (("1", NOW, 10, b"", 0, 0, 0, None, b""), TypeError),
        ((1, NOW, 10, "", 0, 0, 0, None, b""), TypeError),
        ((1, NOW, 10, b"", "0", 0, 0, None, b""), TypeError),
        ((1, NOW, 10, b"", 0, None, 0, None, b""), TypeError),
        ((1, NOW, 10, b"", 0, 0, 0, {"i": object()}, b""), TypeError),
        ((1, NOW, 10, b"", 0, 0, 0, None, None), TypeError),
        ((1, NOW, 2**63, b"", 0, 0, 0, None, b""), OverflowError),
        ((1, NOW, 10, b"", 0, -1, 0, None, b""), OverflowError),
        ((1, NOW, 10, b"", 0, 2**128, 0, None, b""), OverflowError),
        ((1, NOW, 10, b"", 0, 0, 2**63, None, b""), OverflowError),
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


@settings(max_examples=examples(500))
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


figures = st.tuples(*[st.integers(-(2**40), 2**40)] * 8)


@settings(max_examples=examples(300))
@given(
    st.lists(figures, max_size=8),
    st.tuples(*[texts] * 4),
    st.none() | whole,
    texts,
    st.integers(0, 9),
)
@example([], (b"",) * 4, None, b"", 0)
def test_sums_are_made_alike(
    added: list[tuple[int, int, int, int, int, int, int, int]],
    words: tuple[bytes, bytes, bytes, bytes],
    amount: int | None,
    more: bytes,
    number: int,
) -> None:
    ours, twin = quick.Sums(number, NOW), Sums(number, NOW)
    for one in added:
        ours.add(*one)
        twin.add(*one)
    for name in Sums.__slots__:
        assert getattr(ours, name) == getattr(twin, name)
    refers, before, meter, after = words
    both = [sums.line(refers, before, meter, after, amount, more) for sums in (ours, twin)]
    assert both[0] == both[1]


def kept(sums: Sums, path: str, offset: int, most: int, each: int, *given: Any) -> Any:
    """Have sums stand in a file; say what came of it, and what the file and the sums are then."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        came: Any = sums.keep(fd, offset, most, 7, given[0], each, *given[1])
    except OSError as error:
        came = error.errno
    finally:
        os.close(fd)
    file = b"" if path == "/dev/full" else Path(path).read_bytes()
    return came, file, [getattr(sums, name) for name in Sums.__slots__]


@settings(max_examples=examples(300))
@given(
    st.lists(figures, min_size=1, max_size=6),
    st.tuples(*[texts] * 6),
    st.integers(0, 2**40) | st.integers(2**40, 2**70),
    st.integers(0, 4096),
    st.sampled_from((0, 300, 1024)),
    st.booleans(),
)
def test_sums_are_kept_alike(
    given_figures: list[tuple[int, int, int, int, int, int, int, int]],
    parts: tuple[bytes, bytes, bytes, bytes, bytes, bytes],
    each: int,
    offset: int,
    most: int,
    full: bool,
) -> None:
    with TemporaryDirectory() as folder:
        paths = ["/dev/full"] * 2 if full else [os.path.join(folder, name) for name in "ab"]
        ours, twin = quick.Sums(3, NOW), Sums(3, NOW)
        for one in given_figures:
            before = [getattr(twin, name) for name in Sums.__slots__]
            came = kept(ours, paths[0], offset, most, each, parts, one)
            assert came == kept(twin, paths[1], offset, most, each, parts, one)
            if full and came[0] is not None:
                assert came[0] == errno.ENOSPC
            if full or came[0] is None:
                assert came[2] == before, "something was added that is not on disk"
            else:
                assert came[0] == ours.requests * each


@needs_compiled
def test_what_are_no_sums_is_refused() -> None:
    wrong: Any = "1"
    with pytest.raises(TypeError):
        quick.Sums(wrong, NOW)
    sums = quick.Sums(1, NOW)
    with pytest.raises(TypeError):
        sums.add(1, 1, 0, 0, 0, 0, NOW, wrong)
    with pytest.raises(TypeError):
        sums.line(b"", b"", b"", b"", wrong, b"")
    with pytest.raises(TypeError):
        sums.line(b"", b"", b"", wrong, None, b"")
    nothing: Any = (b"",) * 6
    numbers: Any = (1, 1, 0, 0, 0, 0, NOW, 0)
    with pytest.raises(TypeError):
        sums.keep(wrong, 0, 1024, 1, nothing, 1, *numbers)
    with pytest.raises(TypeError):
        sums.keep(0, 0, 1024, 1, (*nothing[1:], wrong), 1, *numbers)
    with pytest.raises(TypeError):
        sums.keep(0, 0, 1024, 1, nothing, wrong, *numbers)
    with pytest.raises(TypeError):
        sums.keep(0, 0, 1024, 1, nothing, 1, *numbers[1:])
    assert sums.calls == 0


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
