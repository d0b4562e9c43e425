"""Databricks SQL's history: ``system.query.history``, and the warehouse-hours of the bill.

No query of a SQL warehouse has a price of its own: what is billed is the warehouse, by the hour. An
hour's DBUs (``system.billing.usage``, all record types added up, so that corrections net out) times
the list price (``system.billing.list_prices``) are split over the queries of the hour by
``total_task_duration_ms``; what no query used is idle. Discounts that were negotiated are in no
system table: `multiplier` says what remains of the list price.

Tables and columns: docs.databricks.com, admin/system-tables (query-history, billing, pricing).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from costinsights.records import Resource
from costinsights.settlement.databricks_tables import (
    SystemTables,
    TableOptions,
    filled,
    literal,
    moment,
    only,
    tags_of,
)
from costinsights.settlement.history import MARK, Figure, Plan, Stretch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costinsights.settlement.databricks_tables import Row

LONGEST = timedelta(days=2)
"""A statement's time limit on a warehouse, if nobody sets another (STATEMENT_TIMEOUT)."""
SLICE = timedelta(days=1)
REDACTED = "<REDACTED>"
TEXT = 16_384
"""Characters of a statement that are read: redacted, more is not kept either."""

METERS = (
    "total_task_duration_ms",
    "execution_duration_ms",
    "compilation_duration_ms",
    "waiting_for_compute_duration_ms",
    "waiting_at_capacity_duration_ms",
    "result_fetch_duration_ms",
    "read_bytes",
    "read_rows",
    "written_bytes",
    "spilled_local_bytes",
    "shuffle_read_bytes",
)
QUERIES = """
SELECT statement_id, compute.warehouse_id, executed_by, statement_type, execution_status,
       unix_micros(start_time), unix_micros(end_time), produced_rows, from_result_cache,
       coalesce(client_application, client_driver), to_json(query_tags),
       left(statement_text, {text}), {meters}
FROM system.query.history
WHERE start_time >= TIMESTAMP '{earliest}' AND start_time < TIMESTAMP '{until}'
  AND (end_time IS NULL OR end_time > TIMESTAMP '{since}')
  AND compute.warehouse_id IS NOT NULL{only}
/* {mark} */
"""
USAGE = """
SELECT usage_metadata.warehouse_id, unix_micros(usage_start_time), unix_micros(usage_end_time),
       sku_name, cloud, usage_unit, sum(usage_quantity)
FROM system.billing.usage
WHERE usage_date >= DATE '{first}' AND usage_date <= DATE '{last}'
  AND usage_start_time < TIMESTAMP '{until}' AND usage_end_time > TIMESTAMP '{since}'
  AND usage_metadata.warehouse_id IS NOT NULL{only}
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 1, 2, 3, 4, 5, 6
/* {mark} */
"""


class DatabricksOptions(TableOptions, frozen=True, forbid_unknown_fields=True):
    """``[settle.databricks]``."""

    warehouses: tuple[str, ...] = ()
    """Only what ran on these; empty: on all that the system tables know of."""


class DatabricksHistory(SystemTables):
    """Reads the SQL warehouses of an account's region."""

    system = "databricks"
    latency = timedelta(hours=1)
    retention = timedelta(days=365)
    grants = """\
GRANT USE CATALOG ON CATALOG system TO `settlement`;
GRANT USE SCHEMA ON SCHEMA system.query TO `settlement`;
GRANT SELECT ON TABLE system.query.history TO `settlement`;
GRANT USE SCHEMA ON SCHEMA system.billing TO `settlement`;
GRANT SELECT ON TABLE system.billing.usage TO `settlement`;
GRANT SELECT ON TABLE system.billing.list_prices TO `settlement`;
-- and the permission CAN USE on the SQL warehouse that is asked"""
    meters = (*METERS, "from_result_cache")
    Options = DatabricksOptions
    options: DatabricksOptions

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what is read, and what that wakes."""
        wakes = self.wakes()
        span = f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M}"
        reads = (
            f"system.query.history {span}, on warehouse {self.options.warehouse}",
            f"system.billing.usage {span}, and system.billing.list_prices",
        )
        return Plan(reads, wakes=wakes)

    # -- queries --------------------------------------------------------------------------------

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Read the history a day at a time, or in smaller parts where a day is too much."""
        begin = since
        while begin < until:
            end = min(begin + SLICE, until)
            # What began before is read with the first slice only.
            earliest = since - LONGEST if begin == since else begin
            yield from self._slice(earliest, begin, end)
            begin = end

    def _slice(self, earliest: datetime, since: datetime, until: datetime) -> Iterator[Figure]:
        def query(begin: datetime, end: datetime) -> str:
            return QUERIES.format(
                earliest=literal(earliest if begin == since else begin),
                since=literal(begin),
                until=literal(end),
                only=only("compute.warehouse_id", self.options.warehouses),
                meters=", ".join(METERS),
                text=TEXT,
                mark=MARK,
            )

        for rows in self.in_parts(query, since, until, "system.query.history"):
            for row in rows:
                yield _figure(row)

    # -- hours ----------------------------------------------------------------------------------

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Read what each warehouse was billed for, an hour at a time, and the list prices."""
        prices = self.prices(since, until)
        names = only("usage_metadata.warehouse_id", self.options.warehouses)
        usage = filled(USAGE, since, until, only=names)
        for warehouse, *billed in self.ask(usage, "usage"):
            yield from self.stretch(warehouse or "", billed, prices)


def _figure(row: Row) -> Figure:
    (statement_id, warehouse, user, kind, status, start, end, produced, cached, program) = row[:10]
    tag, labels = tags_of(row[10])
    text, counted = row[11], zip(METERS, row[12:], strict=True)
    meters: dict[str, int | float | str] = {
        name: int(value) for name, value in counted if value is not None
    }
    if cached is not None:
        meters["from_result_cache"] = int(cached == "true")
    return Figure(
        vendor_id=statement_id,
        started_at=moment(start),
        ended_at=None if end is None else moment(end),
        tag=tag,
        user=user,
        program=program,
        text=None if text == REDACTED else text,
        labels=labels,
        operation=kind,
        meters=meters,
        rows=None if produced is None else int(produced),
        error=status if status in ("FAILED", "CANCELED") else None,
        resource=Resource(namespace=warehouse),
        group=warehouse,
        weight=int(meters.get("total_task_duration_ms", 0)),
    )
