"""Drivers of a dozen lines for the tests of the core: real hooks, whole charges, a fixed clock."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from costinsights import recorder, runtime
from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights.ledger.reader import span_ids
from costinsights.records import Charge, Resource, StatementInfo
from costinsights.testing import FIXED_HOST, FIXED_PID, FIXED_PROCESS, Clock, capture

if TYPE_CHECKING:
    from collections.abc import Generator

    from costinsights.testing import Captured

MODULE = "tinydriver"


class Connection:
    """Leads to a database that there is not."""

    host, port, database = "db.example", 5432, "shop"


@contextmanager
def hooked(
    *hooks: Hook, instrumentor: type[DBAPIInstrumentor] = DBAPIInstrumentor, **driver: object
) -> Generator[tuple[Captured, DBAPIInstrumentor]]:
    """Hook a module ``tinydriver`` of these names; each measured stretch takes a millisecond."""
    module = ModuleType(MODULE)
    vars(module).update(driver)
    facts = {
        "name": MODULE,
        "system": "postgresql",
        "driver": MODULE,
        "supports": ("1", "2"),
        "facts": {"address": "host", "port": "port", "namespace": "database"},
        "hooks": hooks,
    }
    plugin: DBAPIInstrumentor = type("TinyInstrumentor", (instrumentor,), facts)()
    assert recorder.Recorder is not None  # loaded, or there is no clock yet to be set
    sys.modules[MODULE] = module
    try:
        with capture("sqlite3", clock=Clock()) as captured:
            active = runtime.active()
            assert active is not None
            plugin.instrument(active.recorder)
            try:
                yield captured, plugin
            finally:
                plugin.uninstrument()
    finally:
        del sys.modules[MODULE]


def charge(number: int, begun_ms: int, took_ms: int, **changes: Any) -> Charge:
    """Return the whole charge of call `number`, which began after so many measured stretches.

    By default it is a ``SELECT 1`` that went well; its wall time is `took_ms`, too.
    """
    charge_id = f"{FIXED_PROCESS}-{number}"
    trace_id, span_id = span_ids(charge_id)
    wall = changes.pop("wall_ms", took_ms)
    fields: dict[str, Any] = {
        "charge_id": charge_id,
        "system": "postgresql",
        "resource": Resource("db.example", 5432, "shop"),
        "operation": "SELECT",
        "statement": StatementInfo("", "SELECT", "SELECT ?"),
        "started_at": _moment(begun_ms),
        "ended_at": _moment(begun_ms + wall),
        "duration_ns": took_ms * 10**6,
        "usage": {"time_ns": took_ms * 10**6},
        "rows": None,
        "amount": None,
        "currency": None,
        "basis": "unknown",
        "price": None,
        "attribution": {"rule": "unattributed"},
        "trace_id": trace_id,
        "span_id": span_id,
        "service": "",
        "host": FIXED_HOST,
        "pid": FIXED_PID,
        "instrumentor": MODULE,
    }
    return Charge(**{**fields, **changes})


def _moment(milliseconds: int) -> str:
    return f"2026-01-01T00:00:00.{milliseconds * 1000:06d}Z"


def whole(captured: Captured) -> list[Charge]:
    """Return the charges, without a statement's fingerprint and the service, fixed elsewhere."""
    return [_plain(each) for each in captured.charges]


def _plain(each: Charge) -> Charge:
    text = each.statement and msgspec.structs.replace(each.statement, fingerprint="")
    return msgspec.structs.replace(each, statement=text, service="")
