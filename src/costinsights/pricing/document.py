"""A TOML file as data, with the line of every table and field in it.

`tomllib` knows lines for syntax errors only, so the headers are found in the text again once it
has been parsed without complaint.
"""

from __future__ import annotations

import bisect
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, cast

from costinsights.pricing.errors import PriceBookError

if TYPE_CHECKING:
    from collections.abc import Mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST_FILE = 8 * 2**20
"""Bytes; some twenty thousand price lines."""

# Texts and comments are matched first, so that a header inside one of them is not taken for one.
_HEADER = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*'
    r"|^[ \t]*\[\[[ \t]*(?P<table>[A-Za-z0-9_-]+)[ \t]*\]\]",
    re.DOTALL | re.MULTILINE,
)
_SYNTAX_LINE = re.compile(r"\(at line (\d+), column \d+\)")


class Document:
    """The tables of one file, by name, and where each of them stands."""

    def __init__(self, path: str, content: bytes) -> None:
        self.path = path
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise PriceBookError(path, line, "is not UTF-8 text") from None
        # TOML lets a line end in CR LF; the parser counts in LF alone, and so do we.
        self._text = text.replace("\r\n", "\n")
        self.tables = self._parse()
        self._starts = self._find_headers()
        self._all_starts = sorted(start for starts in self._starts.values() for start in starts)
        self._line_ends = [found.start() for found in re.finditer("\n", self._text)]

    def _parse(self) -> Mapping[str, object]:
        try:
            return tomllib.loads(self._text)
        except RecursionError:
            raise PriceBookError(self.path, 1, "is nested too deeply") from None
        except ValueError as error:
            message = str(error)
            found = _SYNTAX_LINE.search(message)
            line = int(found[1]) if found else self._text.count("\n") + 1
            raise PriceBookError(self.path, line, f"is not TOML: {message}") from None

    def _find_headers(self) -> dict[str, list[int]]:
        starts: dict[str, list[int]] = {}
        for found in _HEADER.finditer(self._text):
            name = cast("str | None", found["table"])
            if name:
                starts.setdefault(name, []).append(found.start("table"))
        return starts

    def of(self, name: str) -> list[Mapping[str, object]]:
        """The `[[name]]` tables in the order of the file."""
        value = self.tables.get(name, [])
        if not isinstance(value, list):
            raise PriceBookError(self.path, self.line(name), f"write [[{name}]], not [{name}]")
        items = cast("list[object]", value)
        if not all(isinstance(item, dict) for item in items):
            raise PriceBookError(self.path, self.line(name), f"{name} must be [[{name}]] tables")
        return cast("list[Mapping[str, object]]", items)

    def line(self, name: str, number: int = 0, field: str | None = None) -> int:
        """The line of a field in the `number`th `[[name]]` table, or else of the table itself."""
        starts = self._starts.get(name, [])
        if number >= len(starts):  # written as `price = [{…}]`, or as a plain [price]
            found = re.search(rf"^[ \t]*\[?[ \t]*{re.escape(name)}\b", self._text, re.MULTILINE)
            return self._line_at(found.start()) if found else 1
        start = starts[number]
        if field is not None:
            after = bisect.bisect_right(self._all_starts, start)
            end = (*self._all_starts[after : after + 1], len(self._text))[0]
            pattern = rf"^[ \t]*(?:\[{name}\.)?[\"']?{re.escape(field)}[\"']?[ \t]*[=.\]]"
            found = re.compile(pattern, re.MULTILINE).search(self._text, start, end)
            if found:
                return self._line_at(found.start())
        return self._line_at(start)

    def _line_at(self, position: int) -> int:
        return bisect.bisect_left(self._line_ends, position) + 1


def read(path: str) -> bytes:
    """The bytes of a price file. Raises PriceBookError for what is no file or is far too large."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PriceBookError(path, 0, "is not a regular file")
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise PriceBookError(path, 0, f"cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise PriceBookError(path, 0, f"is larger than {LARGEST_FILE // 2**20} MiB")
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO would wait for a writer
