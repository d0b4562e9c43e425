"""Which price lines behind a report's amounts are more than a year old."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costinsights.pricing.stale import is_stale

if TYPE_CHECKING:
    from datetime import date

    from costinsights.ledger.store import Period, Store

_PRICES = """
SELECT price_key, price_as_of, sum(calls) FROM ({rows})
WHERE price_as_of < '{before}' AND basis <> 'billed'
GROUP BY price_key, price_as_of HAVING sum(calls) > 0
"""


class Stale(NamedTuple):
    """A price line whose date is more than a year before the report."""

    key: str
    as_of: str
    calls: int


def stale(store: Store, period: Period, day: date) -> tuple[Stale, ...]:
    """Return the stale lines that calls of `period` were priced with, the most calls first."""
    columns = "price_key, price_as_of, basis, calls"
    files = [
        file for file in store.manifest.of_kind("charges", "revisions") if period.touches(file.day)
    ]
    sources = [store.source(files)]
    if store.live is not None:
        sources += ["live", "reversals"]
    parts = [
        f"SELECT {columns} FROM {source} WHERE {period.condition}" for source in sources if source
    ]
    if not parts:
        return ()
    # What is stale stands before this in the alphabet: files without such a date are not read.
    before = f"{day.year - 1:04}-{day.month:02}-{day.day:02}"
    query = _PRICES.format(rows=" UNION ALL ".join(parts), before=before)
    found = store.connection.execute(query).fetchall()
    lines = [Stale(key, as_of, calls) for key, as_of, calls in found if is_stale(as_of, day)]
    return tuple(sorted(lines, key=lambda line: (-line.calls, line.key)))
