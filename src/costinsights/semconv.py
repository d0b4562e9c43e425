"""How a charge is said in OpenTelemetry's words: one table, for every exporter that speaks them.

The ``db.*``, ``server.*`` and ``error.*`` names are the stable ones of the semantic conventions
(https://opentelemetry.io/docs/specs/semconv/database/), but for ``db.response.returned_rows``, which
is in development. For money they have no names, and forbid to put one's own among theirs, hence
``costinsights.*``.

What is not known is not there. In particular a charge without a price has no amount, and its
``costinsights.cost.quality`` is ``unknown``: never an amount of 0.
"""

from __future__ import annotations

from datetime import datetime, timezone
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from costinsights.records import Charge

Value = str | int | float | bool

SCOPE = "costinsights"
REVISED = "costinsights.charge.revised"
"""The name of the event that carries a later figure for a charge whose span is out."""


def _amount(charge: Charge) -> float | None:
    """Return the amount for display; whoever adds up takes the exact one."""
    return None if charge.amount is None else float(charge.amount)


def _batch_size(charge: Charge) -> int | None:
    """Return how many sets of parameters went with the statement; one is no batch."""
    size = charge.usage.get("batch_size")
    return size if isinstance(size, int) and size > 1 else None


def _partial(charge: Charge) -> bool | None:
    return charge.partial or None


def _revision(charge: Charge) -> int | None:
    return charge.revision or None


def _labels(charge: Charge) -> Hashable:
    return tuple(charge.attribution.items())


class Section:
    """Attributes that change together.

    Args:
        attributes: Name, and where in the charge its value is, or a function that knows. A name
            that ends with a dot is the beginning of a family of names, one for each key of the
            mapping that is there.
        key: Charges with an equal key have equal attributes, so that an encoder need not encode
            them again. Without one they are different for each charge.
    """

    def __init__(
        self,
        attributes: Mapping[str, str | Callable[[Charge], Value | None]],
        key: Callable[[Charge], Hashable] | None = None,
    ) -> None:
        self.key = key
        readers: dict[str, Callable[[Charge], Any]] = {
            name: _reader(where) if isinstance(where, str) else where
            for name, where in attributes.items()
        }
        self._single = [item for item in readers.items() if not item[0].endswith(".")]
        self._families = [item for item in readers.items() if item[0].endswith(".")]

    def read(self, charge: Charge) -> Iterator[tuple[str, Value]]:
        """Yield the names and values that `charge` has."""
        for name, read in self._single:
            value = read(charge)
            if value is not None and value != "":
                yield name, value
        for prefix, read in self._families:
            for key, value in read(charge).items():
                yield prefix + key, value


def _reader(where: str) -> Callable[[Charge], Any]:
    """Return what reads a dotted path; None where a part of it is not there."""
    first, _, second = where.partition(".")
    if not second:
        return attrgetter(first)
    outer, inner = attrgetter(first), attrgetter(second)

    def read(charge: Charge) -> Any:
        found = outer(charge)
        return None if found is None else inner(found)

    return read


SECTIONS: tuple[Section, ...] = (
    Section(
        {
            "db.system.name": "system",
            "server.address": "resource.address",
            "server.port": "resource.port",
            "db.namespace": "resource.namespace",
            "costinsights.resource.service": "resource.service",
            "costinsights.resource.region": "resource.region",
        },
        attrgetter("system", "resource"),
    ),
    Section(
        {
            "db.operation.name": "operation",
            "db.query.summary": "statement.summary",
            "db.query.text": "statement.text",
            "costinsights.query.fingerprint": "statement.fingerprint",
        },
        attrgetter("operation", "statement"),
    ),
    Section({"costinsights.attribution.": "attribution"}, _labels),
    Section(
        {
            "costinsights.cost.quality": "basis",
            "costinsights.cost.currency": "currency",
            "costinsights.price.key": "price.key",
            "costinsights.price.book": "price.book",
        },
        attrgetter("basis", "currency", "price"),
    ),
    Section(
        {
            "costinsights.charge_id": "charge_id",
            "costinsights.cost.amount": _amount,
            "costinsights.cost.amount_exact": "amount",
            "costinsights.usage.": "usage",
            "db.response.returned_rows": "rows",
            "db.operation.batch.size": _batch_size,
            "error.type": "error.type",
            "db.response.status_code": "error.sqlstate",
            "costinsights.partial": _partial,
            "costinsights.query.id": "vendor_id",
            "costinsights.tag": "tag",
            "costinsights.revision": _revision,
        },
    ),
)


def attributes(charge: Charge) -> dict[str, Value]:
    """Return all attributes of a charge's span."""
    return {name: value for section in SECTIONS for name, value in section.read(charge)}


def span_name(charge: Charge) -> str:
    """Return the name of a charge's span: the summary, else the operation, else the system."""
    summary = charge.statement.summary if charge.statement is not None else ""
    return summary or charge.operation or charge.system


def scope_name(charge: Charge) -> str:
    """Return the name of the instrumentation scope: ``costinsights.psycopg``."""
    return f"{SCOPE}.{charge.instrumentor}"


def epoch_ns(moment: str) -> int:
    """Return a charge's ``started_at`` or ``ended_at`` as nanoseconds since the epoch.

    Raises:
        ValueError: `moment` is not of the form ``2026-11-22T20:58:54.123456Z``.
    """
    second = _seconds.get(moment[:19])
    if second is None:
        whole = datetime.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
        if len(_seconds) >= 1024:
            _seconds.clear()
        second = _seconds[moment[:19]] = int(whole.timestamp()) * 10**9
    return second + int(moment[20:26]) * 1000


_seconds: dict[str, int] = {}
