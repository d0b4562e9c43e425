"""What the ledger has no price for: which system, which part of the key, and what to add.

Each gap is told once, with the calls that it leaves without a price, however many they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from costinsights.instrumentor import UNPRICED
from costinsights.pricing.pricer import said_in, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from costinsights.ledger.store import Store
    from costinsights.pricing.book import PriceBook

CAPACITY = "hourly price"
FIGURES = "figures"
LINE = "price line"
REGION = "region"
DIMENSION = "dimension"
NOTHING = "nothing any more"

_COLUMNS = "system, resource_service, region, address, port, namespace, meters, calls, amount"
# Errors too: whether a call that failed is free is the system's rule, and a price line says it.
_UNPRICED = """
SELECT system, resource_service, region, address, port, namespace,
    list_sort(json_keys(CAST(meters AS JSON))) AS used, max(meters), sum(calls)
FROM ({rows}) WHERE amount IS NULL AND calls <> 0
GROUP BY system, resource_service, region, address, port, namespace, used
HAVING sum(calls) > 0
"""


class Missing(NamedTuple):
    """One gap."""

    system: str
    where: str
    """The region or host; empty where it is all of the system's calls."""
    key: str
    """The part of a price's key that is not known."""
    calls: int
    add: str
    """What to do about it, in a sentence."""


class _Calls(NamedTuple):
    """Alike calls without a price."""

    system: str
    service: str | None
    region: str | None
    address: str | None
    port: int | None
    namespace: str | None
    used: list[str] | None
    meters: str | None
    """The meters of one of them, as JSON."""
    calls: int


def missing(store: Store, book: PriceBook, settled: Collection[str] = ()) -> list[Missing]:
    """Return what the charges in the ledger lack a price for, the most calls first.

    `settled` are the systems whose own history can be asked for figures.
    """
    gaps: dict[tuple[str, str, str, str], int] = {}
    for calls in _without_price(store):
        # A service may have prices of its own (aws.rds), or those of the system that it hosts.
        names = (calls.service or calls.system, calls.system)
        system = next((name for name in names if name in settled or book.meters(name)), names[1])
        gap = (system, *_gap(calls, system, book, settled))
        gaps[gap] = gaps.get(gap, 0) + calls.calls
    found = [
        Missing(system, where, key, calls, add) for (system, where, key, add), calls in gaps.items()
    ]
    return sorted(found, key=lambda gap: (-gap.calls, gap))


def _without_price(store: Store) -> Iterator[_Calls]:
    sources = [store.parquet("charges", "revisions")]
    if store.live is not None:
        sources += ["live", "reversals"]
    rows = " UNION ALL ".join(f"SELECT {_COLUMNS} FROM {source}" for source in sources if source)
    if rows:
        for row in store.connection.execute(_UNPRICED.format(rows=rows)).fetchall():
            yield _Calls(*row)


def _gap(
    calls: _Calls, system: str, book: PriceBook, settled: Collection[str]
) -> tuple[str, str, str]:
    """Return where the gap is, which part of the key is missing, and what to add."""
    place = calls.address or calls.namespace or ""
    capacity = book.capacity_for(
        calls.system, calls.address, calls.port, calls.namespace, calls.service
    )
    if capacity is not None:
        return place, NOTHING, _from_now_on(capacity.line.key, system, settled)
    used: Mapping[str, int | float | str] = _decode(calls.meters or "{}")
    if UNPRICED in used:
        return calls.region or "", FIGURES, str(used[UNPRICED])
    meters = book.meters(system)
    known = {meter.name for meter in meters}
    counted = {name: value for name, value in used.items() if name in known}
    if counted:
        quote = book.quote(system, counted, calls.region, **said_in(used, words_of(meters)))
        if quote.amount is not None:
            keys = ", ".join(line.key for line in quote.lines)
            return calls.region or "", NOTHING, _from_now_on(keys, system, settled)
        return calls.region or "", _part_of(quote.reason, list(counted)), quote.reason
    if system in settled:
        return place, FIGURES, f"run  costinsights settle {system}  for what its history knows"
    host = f', host = "{calls.address}"' if calls.address else ""
    return (
        place,
        CAPACITY,
        f'add a [[capacity]] for an hour of it: system = "{calls.system}"{host}, price, currency',
    )


def _from_now_on(key: str, system: str, settled: Collection[str]) -> str:
    later = f"; costinsights settle {system} prices earlier ones" if system in settled else ""
    return f"{key} prices calls from now on{later}"


def _part_of(reason: str, meters: list[str]) -> str:
    """Name the part of the key that a quote's reason speaks of."""
    if reason.startswith("say a region") or " has no price in " in reason:
        return REGION
    if reason.startswith("no line prices"):
        said = reason.rpartition(": say ")[2]
        names = [part.split(" (")[0].strip() for part in said.split("), ")]
        return ", ".join(name for name in names if name) or DIMENSION
    return f"{LINE} for {', '.join(meters)}"


_decode: Callable[[str], Mapping[str, int | float | str]] = msgspec.json.Decoder(
    dict[str, int | float | str]
).decode
