"""What may be kept of a statement: a redacted text, a fingerprint, a summary.

``parse`` is the only door. It never raises, and it fails closed: what it does not understand it
hides. How literals are found is told in ``_lexer``, what makes two statements the same in
``_shape``, the summary in ``_summary``, attribution from comments in ``comments``.

Only the first ``LONGEST_READ`` characters of a statement are read (and of what remains of them
without literals, the first ``_shape.LONGEST_SHAPED``), so that ten megabytes cost no more than
twenty-four kilobytes. A statement longer than that is known by its beginning: two that differ only
behind it share a fingerprint. Its text ends with "…". An INSERT of many rows has its fingerprint
whatever their number, with what stands behind the rows (ON CONFLICT, RETURNING).

A fingerprint is 16 hexadecimal digits: BLAKE2b with a digest of 8 bytes, over ``VERSION``, a space
and the normalised words in UTF-8. It is the same in every process and on every machine, and stays
so until ``VERSION`` changes.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING

from costinsights import _lexer, _shape, _summary, comments
from costinsights.guard import is_a_signal_handlers

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "1"
"""Counts the ways in which the normalised text was made; part of every fingerprint."""

LONGEST_READ = 24576
"""Characters of a statement that are read."""

LONGEST_TEXT = 16384
"""Bytes of a redacted text, in UTF-8."""

LONGEST_REMEMBERED = 4096
MOST_REMEMBERED = 1024
"""Characters of a statement without its literals that is remembered, and how many are."""

ERROR_TEXT = "<redacted:error>"
"""Stands for a statement that could not be read."""


class Statement:
    """One shape of statement; equal fingerprints mean equal shapes.

    ``text`` has no literals and no comments, and at most 16 KiB in UTF-8. ``operation`` is in upper
    case and empty if there is none. ``comment`` is the attribution that was found in the comments.
    ``number`` is for the ledger's writer, which numbers the statements it has seen.
    """

    __slots__ = ("comment", "fingerprint", "number", "operation", "summary", "text")

    def __init__(
        self,
        fingerprint: str,
        operation: str,
        summary: str,
        text: str,
        comment: Mapping[str, str] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.operation = operation
        self.summary = summary
        self.text = text
        self.comment = comment
        self.number = 0

    def __repr__(self) -> str:
        return f"Statement({self.fingerprint!r}, {self.summary!r})"


def parse(text: str, system: str = "") -> Statement:
    """Read a statement of a system (``db.system.name``); an unknown system is read most strictly.

    Raises nothing of its own; what a signal handler of the program's raises meanwhile, a time limit,
    is the program's. A subclass of str is read as the text it holds: none of its methods is called.
    """
    try:
        return _parse(text, system)
    except Exception as error:  # whatever it was, the statement must run and its text not be kept
        if is_a_signal_handlers(error):
            raise
        return Statement(_fingerprint(ERROR_TEXT), "", "", ERROR_TEXT)


def _parse(text: str, system: str) -> Statement:
    dialect = _lexer.DIALECTS.get(system, _lexer.UNKNOWN)
    head = str.__getitem__(text, _READ)  # an exact str, whatever the text is
    too_long = str.__len__(text) > LONGEST_READ
    masked, names, found = _lexer.mask(head, dialect, cut=too_long)
    # Statements that differ in nothing but their literals are one from here on.
    key = None if found or too_long else (system, masked, *names)
    if key is not None and (known := _known.get(key)) is not None:
        return known
    shown, words, cut, in_rows = _shape.shape(masked, names, dialect, cut=too_long)
    operation, summary = _summary.describe(shown, words)
    normal = " ".join(words)
    redacted = "".join(shown).lstrip()
    if cut:
        end = str.__getitem__(text, _TAIL)
        if in_rows:
            normal += _after_rows(end, dialect)
        redacted += " …"
        last = comments.last_comment(end)
        if last:
            found = [*found, last]
    if _DIGIT.search(normal):
        normal = _RANDOM.sub("0", normal)
        redacted = _RANDOM.sub("0", redacted)
        summary = _RANDOM.sub("0", summary)
    if len(redacted) * 4 > LONGEST_TEXT:
        redacted = _shorten(redacted)
    comment = comments.attribution(found) if found else None
    statement = Statement(_fingerprint(normal), operation, summary, redacted, comment)
    if key is not None and sum(map(len, key)) <= LONGEST_REMEMBERED:
        if len(_known) >= MOST_REMEMBERED:
            _known.clear()
        _known[key] = statement
    return statement


_known: dict[tuple[str, ...], Statement] = {}

_READ = slice(0, LONGEST_READ)
_TAIL = slice(-comments.LONGEST_COMMENT, None)

_ROWS_END = re.compile(
    r"\)\s*((?:AS\s+\w+\s*(?:\([^()]*\)\s*)?)?(?:ON\s+(?:CONFLICT|DUPLICATE)|RETURNING)\b.*)\Z",
    re.DOTALL | re.IGNORECASE,
)


def _after_rows(end: str, dialect: _lexer.Dialect) -> str:
    """What stands behind the rows of an INSERT that was cut. It is hashed and never shown."""
    found = _ROWS_END.search(end)
    if not found:
        return ""
    masked, names, _ = _lexer.mask(found[1], dialect)
    return " " + " ".join(_shape.shape(masked, names, dialect)[1])


# Digits that somebody made up: the time in the name of a temporary table, a UUID. Left in, each
# run of a job would have statements of its own.
_DIGIT = re.compile(r"[0-9]")
_RANDOM = re.compile(
    r"[0-9a-fA-F]{8}(?:[_-][0-9a-fA-F]{4}){3}[_-][0-9a-fA-F]{12}"
    r"|(?<![0-9A-Fa-f])(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]{16,}"
    r"|[0-9]{10,}"
)


def _fingerprint(normal: str) -> str:
    digest = _START.copy()
    digest.update(normal.encode())
    return digest.hexdigest()


_START = blake2b(f"{VERSION} ".encode(), digest_size=8)


def _shorten(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= LONGEST_TEXT:
        return text
    return encoded[: LONGEST_TEXT - 4].decode("utf-8", "ignore").rstrip(" …") + " …"
