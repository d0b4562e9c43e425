"""What others have counted for EMR's readers: a JSON file of numbers by name."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, cast

from costinsights.settlement.history import HistoryError

if TYPE_CHECKING:
    from collections.abc import Mapping


def numbers_in(path: str, system: str) -> Mapping[str, Decimal]:
    """Return the numbers in a file, ``{"application_1_0001": 81920.5}``.

    Raises:
        HistoryError: there is no such file, or it has something else in it.
    """
    try:
        found: object = json.loads(Path(path).read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise HistoryError(f"{system}: {path} cannot be read: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise HistoryError(f"{system}: {path} has to be an object of numbers by name")
    numbers: dict[str, Decimal] = {}
    for name, value in cast("dict[str, object]", found).items():
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or value < 0:
            raise HistoryError(f"{system}: {path}: {name!r} is not a number of 0 or more")
        numbers[name] = Decimal(value)
    return numbers
