"""Reads a system's history: the figures of a time, what ran beside them, and their capacity."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from costinsights.settlement.moments import hour, hour_after
from costinsights.settlement.settled import SettlementError
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from costinsights.settlement.history import Figure, History, Stretch

LONGEST = timedelta(days=7)
"""For so long an open end is looked after by itself, and so long a query may have run to be split
over its hours."""
EVERY = 250
"""After so many figures the progress is said."""


class Read(NamedTuple):
    """What was read, in an order that does not depend on the reader's."""

    figures: list[Figure]
    stretches: list[Stretch]
    known_from: datetime
    """Where the capacity that was read begins."""
    failed: str
    """Why it could not be read to its end."""
    grant: str


def read(
    reader: History,
    begin: datetime,
    end: datetime,
    now: datetime,
    progress: Callable[[str, int, int | None], None],
) -> Read:
    """Read a history from `begin` to `end`.

    Raises:
        SettlementError: nothing of it could be read.
    """
    figures: dict[object, Figure] = {}
    stretches: list[Stretch] = []
    failed = grant = ""
    known_from = begin
    try:
        reader.open()
        _collect(reader, figures, begin, end, progress)
        first = max(hour(_first_shared(figures.values(), begin)), begin - LONGEST)
        if reader.retention is not None:
            first = max(first, hour_after(now - reader.retention))
        if first < begin:
            # What began before has its shares in hours that others ran in as well.
            _collect(reader, figures, first, begin, progress)
        known_from = min(first, begin)
        stretches += reader.capacity(known_from, hour_after(end))
    except VendorError as error:
        failed, grant = str(error), error.grant
    except Exception as error:  # noqa: BLE001  a driver's: what was read is of use without it
        failed = reader.without_secrets(f"{type(error).__name__}: {error}".splitlines()[0])
    if failed and not figures:
        raise SettlementError(failed, grant=grant)
    return Read(sorted(figures.values(), key=_place), stretches, known_from, failed, grant)


def _first_shared(figures: Iterable[Figure], begin: datetime) -> datetime:
    """Return when the first that has a share of capacity, and has ended, began."""
    return min(
        (
            figure.started_at
            for figure in figures
            if figure.group is not None and figure.ended_at is not None
        ),
        default=begin,
    )


def _collect(
    reader: History,
    figures: dict[object, Figure],
    begin: datetime,
    end: datetime,
    progress: Callable[[str, int, int | None], None],
) -> None:
    asked = len(reader.waiting) if reader.by_id and not reader.everything else 0
    doing = "reading the history"
    progress(doing, len(figures), asked or None)
    for number, figure in enumerate(reader.read(begin, end), 1):
        key: object = figure.vendor_id or _place(figure)
        known = figures.get(key)
        if known is None or _is_later(figure, known):
            figures[key] = figure
        if not number % EVERY:
            progress(doing, len(figures), max(asked, len(figures)) if asked else None)


def _place(figure: Figure) -> tuple[datetime, str, str, str]:
    """Return what puts figures in an order, and tells those without an id apart."""
    what = f"{figure.ended_at}|{figure.group}|{figure.user}|{figure.tag}|{figure.text}"
    return figure.started_at, figure.vendor_id or "", what, repr(sorted(figure.meters.items()))


def _is_later(figure: Figure, other: Figure) -> bool:
    """Tell which of two figures of one query to believe: the one that ended, later."""
    if figure.ended_at is None or other.ended_at is None:
        return figure.ended_at is not None
    return figure.ended_at >= other.ended_at
