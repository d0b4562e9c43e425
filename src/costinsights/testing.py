"""For tests: what did this cost, for whom, and does my exporter take it?

Of a program that uses costinsights::

    from costinsights.testing import capture

    def test_orders_are_loaded_for_the_growth_team():
        with capture() as captured:
            load_orders()
        assert {charge.attribution["team"] for charge in captured.charges} == {"growth"}

Everything goes the real way, hooks, attribution, price and ledger, only into a ledger of its own
that is gone afterwards; nothing is exported. With ``capture(clock=Clock())`` each call takes one
millisecond of a fixed time and all ids are the same each time, so that whole charges can be
compared.

Of an exporter::

    from costinsights.testing import sample_charges

    exporter.export(sample_charges(3, amount=None, basis="unknown"))

To have charges exported to a list while a program runs, there is
``costinsights_exporters.memory.MemoryExporter``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from costinsights.follower import merge
from costinsights.ledger.reader import SegmentReader, segments, span_ids, timestamp
from costinsights.records import Charge, PriceInfo, Resource, StatementInfo
from costinsights.runtime import active, instrument, uninstrument

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

FIXED_PROCESS = "0" * 20
FIXED_HOST = "host"
FIXED_PID = 1

_CLOCKS = ("time_ns", "perf_counter_ns")


class Clock:
    """A clock that goes on by `step_ns` nanoseconds each time that a duration is measured by it.

    A call reads it when it starts and when it ends, so it takes one step.
    """

    def __init__(
        self,
        start: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc),
        step_ns: int = 1_000_000,
    ) -> None:
        self._start = int(start.timestamp()) * 10**9 + start.microsecond * 1000
        self._step = step_ns
        self._elapsed = 0

    def time_ns(self) -> int:
        """Return the time of day, in nanoseconds since the epoch."""
        return self._start + self._elapsed

    def perf_counter_ns(self) -> int:
        """Return the monotonic time, after a step."""
        self._elapsed += self._step
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass between two calls."""
        self._elapsed += round(seconds * 10**9)


class Captured:
    """What has been recorded since `capture` began, also while it is still going on."""

    def __init__(self, directory: str, process: str, *, fixed: bool) -> None:
        self._directory = directory
        self._process = process
        self._fixed = fixed
        self._before = {path: os.path.getsize(path) for path in self._paths()}
        self._kept: list[Charge] | None = None

    @property
    def charges(self) -> list[Charge]:
        """The charges in the order of their calls, each with its latest figures."""
        return list(self._read() if self._kept is None else self._kept)

    def keep(self) -> None:
        """Read for the last time: the ledger is about to go."""
        self._kept = self.charges

    def _paths(self) -> list[str]:
        return [
            path
            for path in segments(self._directory)
            if os.path.basename(path).startswith(f"{self._process}-")
        ]

    def _read(self) -> list[Charge]:
        runtime = active()
        if runtime is not None:
            runtime.add_up()  # operations on storage, which would be entries within a second
        return merge(self._entries())

    def _entries(self) -> Iterator[Charge]:
        for path in self._paths():
            reader = SegmentReader(path)
            before = self._before.get(path, 0)
            while batch := reader.read(1):
                if reader.offset > before:
                    yield self._settled(batch[0])

    def _settled(self, charge: Charge) -> Charge:
        if not self._fixed:
            return charge
        return msgspec.structs.replace(charge, host=FIXED_HOST, pid=FIXED_PID)


@contextmanager
def capture(*names: str, clock: Clock | None = None, **settings: Any) -> Generator[Captured]:
    """Record what is called inside the block.

    Args:
        names: The instrumentors to use, as for `costinsights.instrument`.
        clock: Measures by this clock, with ids, host and process number that are always the same.
        settings: Further arguments of `costinsights.instrument`. Nothing is exported unless
            `exporters` says so.

    In a program that has switched costinsights on itself, the block is recorded as that program
    wants it, and `charges` are those of the block.

    Raises:
        RuntimeError: costinsights is switched on already, and the arguments ask for another way.
        costinsights.NotEnabled: an instrumentor named here cannot work.
    """
    runtime = active()
    if runtime is not None:
        if names or settings or clock is not None:
            raise RuntimeError(
                "costinsights is switched on already: call uninstrument() first, "
                "or capture() without arguments"
            )
        yield Captured(runtime.config.ledger, runtime.process, fixed=False)
        return
    directory = tempfile.mkdtemp(prefix="costinsights-")
    settings.setdefault("exporters", ())
    restore: list[tuple[dict[str, Any], str]] = []
    try:
        instrument(*names, ledger=os.path.join(directory, "ledger"), **settings)
        runtime = active()
        if runtime is not None and clock is not None:
            runtime.process = FIXED_PROCESS
            if runtime.made is not None:
                runtime.made.writer.process = FIXED_PROCESS
            restore = _set_clock(clock)
        captured = Captured(
            os.path.join(directory, "ledger"),
            runtime.process if runtime is not None else FIXED_PROCESS,
            fixed=clock is not None,
        )
        try:
            yield captured
        finally:
            captured.keep()
    finally:
        for module, name in restore:
            module[name] = getattr(time, name)
        uninstrument()
        shutil.rmtree(directory, ignore_errors=True)


def _set_clock(clock: Clock) -> list[tuple[dict[str, Any], str]]:
    """Have those parts of the core that measure calls measure by `clock`."""
    changed: list[tuple[dict[str, Any], str]] = []
    for module in [module for name, module in sys.modules.items() if _measures(name)]:
        for name in _CLOCKS:
            if vars(module).get(name) is getattr(time, name):
                vars(module)[name] = getattr(clock, name)
                changed.append((vars(module), name))
    return changed


def _measures(module: str) -> bool:
    return module.startswith("costinsights.") and not module.startswith("costinsights.ledger.")


def sample_charges(count: int = 1, **fields: Any) -> list[Charge]:
    """Return made-up charges, one second apart, each with these `fields` instead of the usual."""
    return [msgspec.structs.replace(_sample(number), **fields) for number in range(1, count + 1)]


def _sample(number: int) -> Charge:
    charge_id = f"{FIXED_PROCESS}-{number}"
    trace_id, span_id = span_ids(charge_id)
    started_at = 1_767_225_600_000_000_000 + number * 10**9  # in the first minute of 2026
    duration = 3_200_000
    return Charge(
        charge_id=charge_id,
        system="postgresql",
        resource=Resource("db.example", 5432, "shop"),
        operation="SELECT",
        statement=StatementInfo(
            "0123456789abcdef", "SELECT orders", "SELECT * FROM orders WHERE id = ?"
        ),
        started_at=timestamp(started_at),
        ended_at=timestamp(started_at + duration),
        duration_ns=duration,
        usage={"time_ns": duration, "capacity_seconds": "0.003200000000000"},
        rows=12,
        amount="0.0000000039",
        currency="USD",
        basis="estimated",
        price=PriceInfo(
            "example.database.hour", "0.0044", "hour", "https://example/prices", "2026-01-01", "1"
        ),
        attribution={"asset": "orders", "team": "growth", "rule": "scope"},
        trace_id=trace_id,
        span_id=span_id,
        service="shop",
        host=FIXED_HOST,
        pid=FIXED_PID,
        instrumentor="psycopg",
    )
