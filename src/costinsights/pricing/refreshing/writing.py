"""Writes price lines as a price file: new, whole, and read again before it is believed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, cast

from costinsights.pricing.files import parse

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from costinsights.pricing.line import PriceLine

MARK = "# Written by `costinsights prices refresh"
"""How a file of ours begins: prices of a vendor's, and nobody's own rates."""


def content(lines: Iterable[PriceLine], vendor: str, moment: str) -> bytes:
    """Return a price file.

    Raises:
        PriceBookError: lines contradict each other.
    """
    head = (
        f"{MARK} {vendor}` at {moment}. Do not edit it: the next refresh writes another one.\n"
        "# Own rates belong into a file of your own, named after this one in price_books.\n"
    )
    parts = [head]
    parts += [_table(line) for line in sorted(lines, key=lambda line: line.key)]
    written = "\n".join(parts).encode()
    parse("the refreshed prices", written, layer=1)
    return written


def is_ours(path: str) -> bool:
    """Tell whether a refresh has written a file."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False


def vendor_of(path: str) -> str:
    """Return the vendor whose prices a file of ours has; empty for any other file."""
    if not is_ours(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.readline().removeprefix(MARK).partition("`")[0].strip()


def write(path: str, written: bytes) -> None:
    """Write a file that is there whole or not at all, for its owner to write and all to read.

    Raises:
        OSError: it cannot be written.
    """
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    fresh = f"{path}.{os.getpid()}"
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        if os.path.exists(fresh):
            os.unlink(fresh)


def _table(line: PriceLine) -> str:
    fields: dict[str, object] = {
        "key": line.key,
        "provider": line.provider,
        "service": line.service,
        "sku": line.sku,
        "system": line.system,
        "also": line.also,
        "resource_service": line.resource_service,
        "meter": line.meter,
        "dims": line.dims,
        "defaults": line.defaults,
        "region": line.region,
        "regions": line.regions,
        "unit": line.unit,
        "unit_scale": _number(line.unit_scale),
        "price": line.price_text,
        "currency": line.currency,
        "minimum": _number(line.minimum),
        "increment": _number(line.increment),
        "tier_from": _number(line.tier_from),
        "tier_to": _number(line.tier_to),
        "allowance": _number(line.allowance),
        "free": line.free or None,
        "as_of": line.as_of,
        "source": line.source,
        "note": line.note,
    }
    said = [f"{name} = {_value(value)}" for name, value in fields.items() if value not in _NOTHING]
    return "\n".join(("[[price]]", *said)) + "\n"


_NOTHING: tuple[object, ...] = (None, "", (), {})


def _number(number: Decimal | None) -> str | None:
    return None if number is None else f"{number:f}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, cast('tuple[object, ...]', value)))}]"
    if isinstance(value, dict):
        dims = cast("dict[str, tuple[str, ...]]", value)
        said = (
            f"{name} = {_text(of[0]) if len(of) == 1 else _value(of)}" for name, of in dims.items()
        )
        return f"{{ {', '.join(said)} }}"
    return _text(value)


def _text(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)
