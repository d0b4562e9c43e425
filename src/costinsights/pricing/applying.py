"""Puts a refreshed price file into force: names it in ``price_books`` of the configuration.

The user's file is theirs: one value in it is replaced, everything else stays byte for byte, and what
would come out is parsed and compared before it is written. Which files made which version of the book
is noted beside the price files, so that an old version can be had again.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, cast

from costinsights.config import FILE
from costinsights.pricing.book import PriceBook
from costinsights.pricing.refreshing.fetching import RefreshError
from costinsights.pricing.refreshing.writing import vendor_of, write
from costinsights.tomllines import lines_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEY = "price_books"
VERSIONS = "versions.json"
_IN_PYPROJECT = ("tool", "costinsights")


def in_force(price_books: Sequence[str], fresh: str) -> list[str]:
    """Return the price files with `fresh` in place of the last of its vendor.

    Where there was none, it goes first: own rates go over it.
    """
    vendor = vendor_of(fresh)
    found: list[str] = []
    for path in price_books:
        if vendor_of(path) != vendor:
            found.append(path)
        elif fresh not in found:
            found.append(fresh)
    return found if fresh in found else [fresh, *found]


def line_of(price_books: Sequence[str]) -> str:
    """Return the line of the configuration that names these files."""
    return f"{KEY} = {json.dumps(list(price_books), ensure_ascii=False)}"


def put(path: str | None, price_books: Sequence[str]) -> str:
    """Have the configuration at `path` name these price files, and return where it is.

    Without a file, one is made in the directory that the program stands in.

    Raises:
        RefreshError: the file is not of a kind in which that can be done safely.
        OSError: it cannot be read or written.
    """
    where = path or os.path.abspath(FILE)
    text = ""
    if os.path.exists(where):
        with open(where, encoding="utf-8", newline="") as file:
            text = file.read()
    inside = _IN_PYPROJECT if os.path.basename(where) == "pyproject.toml" else ()
    written = _edited(text, inside, line_of(price_books))
    if written is None or not _says(written, text, inside, list(price_books)):
        raise RefreshError(f"{where} cannot be edited safely: write  {line_of(price_books)}  there")
    write(where, written.encode())
    return where


def _edited(text: str, inside: tuple[str, ...], line: str) -> str | None:
    places = lines_of(text)
    rows = text.splitlines(keepends=True)
    at = places.get((*inside, KEY))
    if at is not None:
        for end in range(at, len(rows) + 1):
            if _is_whole("".join(rows[at - 1 : end])):
                ending = "\r\n" if rows[end - 1].endswith("\r\n") else "\n"
                return "".join((*rows[: at - 1], line + ending, *rows[end:]))
        return None
    if not inside:
        return f"{line}\n{text}"
    table = places.get(inside)
    if table is None:
        gap = "" if text.endswith("\n") or not text else "\n"
        return f"{text}{gap}\n[{'.'.join(inside)}]\n{line}\n"
    return "".join((*rows[:table], line + "\n", *rows[table:]))


def _is_whole(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except ValueError:
        return False
    return True


def _says(written: str, before: str, inside: tuple[str, ...], wanted: list[str]) -> bool:
    """Tell whether an edited text says what the old one said, and these price files."""
    try:
        new: dict[str, Any] = tomllib.loads(written)
        old: dict[str, Any] = tomllib.loads(before)
    except ValueError:
        return False
    table = old
    for name in inside:
        table = table.setdefault(name, {})
    table[KEY] = wanted
    return new == old


# -- versions ---------------------------------------------------------------------------------------


def note(folder: str, book: PriceBook, price_books: Sequence[str]) -> None:
    """Note which files made a version of the book.

    Raises:
        OSError: it cannot be written.
    """
    known = _noted(folder)
    known[book.version] = list(price_books)
    write(os.path.join(folder, VERSIONS), (json.dumps(known, indent=1) + "\n").encode())


def book_of(
    folder: str, wanted: str, capacities: Sequence[Mapping[str, object]] = ()
) -> PriceBook | None:
    """Return the book of a version, if its files are still there and as they were."""
    for price_books in (_noted(folder).get(wanted), []):
        if price_books is None or not all(map(os.path.isfile, price_books)):
            continue
        for given in (capacities, ()):
            book = PriceBook.load(*price_books, capacities=given)
            if book.version == wanted:
                return book
    return None


def _noted(folder: str) -> dict[str, list[str]]:
    try:
        with open(os.path.join(folder, VERSIONS), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return cast("dict[str, list[str]]", found) if isinstance(found, dict) else {}
