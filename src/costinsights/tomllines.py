"""Where the keys of a TOML text stand: the standard parser forgets the lines.

The text has been parsed already, so it is known to be TOML. Here it is only walked through, from
one statement to the next, past strings and comments.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Path = tuple[str | int, ...]
"""Keys from the top of the document; a number says which table of a ``[[name]]``, from 0."""

_TEXT = r'"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'"
_KEY = rf"(?:[A-Za-z0-9_-]+|{_TEXT})"
_KEYS = rf"({_KEY}(?:[ \t]*\.[ \t]*{_KEY})*)"
_ONE_KEY = re.compile(_KEY)
_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*{_KEYS}")
_ASSIGNMENT = re.compile(rf"[ \t]*{_KEYS}[ \t]*=")
# What must not be taken for the end of a statement, and the end of a line.
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' + rf"|'''.*?'{{3,5}}|{_TEXT}|#[^\n]*|[\[\]{{}}]|\n", re.DOTALL
)


def lines_of(text: str) -> Mapping[Path, int]:
    """Return the line, counted from 1, of each table of `text` and of each key that is set in it.

    What stands in an inline table or a list has the line of the key that it is the value of.
    """
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    position, line = 0, 1
    while position < len(text):
        found = _HEADER.match(text, position)
        if found is not None:
            table = _enter(_names(found[2]), counts, several=found[1] == "[[")
            _note(lines, table, line)
            # Behind the name nothing but closing brackets and a comment can follow.
            end = text.find("\n", found.end()) + 1 or len(text)
        else:
            found = _ASSIGNMENT.match(text, position)
            if found is not None:
                _note(lines, (*table, *_names(found[1])), line)
            end = _end_of_statement(text, position if found is None else found.end())
        line += text.count("\n", position, end)
        position = end
    return lines


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """Return the line of `path`, or of the nearest thing around it that has one."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _end_of_statement(text: str, position: int) -> int:
    depth = 0
    for token in _TOKEN.finditer(text, position):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        elif token[0] == "\n" and not depth:
            return token.end()
    return len(text)


def _enter(names: list[str], counts: dict[Path, int], *, several: bool) -> Path:
    path: Path = ()
    for number, name in enumerate(names, 1):
        path = (*path, name)
        if several and number == len(names):
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _note(lines: dict[Path, int], path: Path, line: int) -> None:
    for length in range(1, len(path) + 1):
        lines.setdefault(path[:length], line)


def _names(keys: str) -> list[str]:
    return [key.strip("\"'") for key in _ONE_KEY.findall(keys)]
