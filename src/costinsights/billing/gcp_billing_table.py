"""What a table of Google Cloud's billing export looks like, and how it is asked.

Which of the three forms a table has is read from its columns. Columns: cloud.google.com/billing,
how-to/export-data-bigquery-tables (standard-usage, detailed-usage, focus-export).
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.billing.columns import BY_NAME
from costinsights.billing.puller import PullError, midnight, start_of_month

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Form(NamedTuple):
    """What the columns are called that every query needs."""

    name: str
    start: str
    end: str
    exported: str
    service: tuple[str, ...]
    resource: tuple[str, ...]
    needs: tuple[str, ...]


NATIVE = Form(
    "standard",
    "usage_start_time",
    "usage_end_time",
    "export_time",
    ("service.description", "service.id"),
    ("resource.name", "resource.global_name"),
    (
        "billing_account_id",
        "usage_start_time",
        "usage_end_time",
        "export_time",
        "service.description",
        "cost",
        "currency",
        "cost_type",
        "credits",
        "invoice.month",
    ),
)
FOCUS = Form(
    "focus",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "x_ExportTime",
    ("ServiceName", "x_ServiceId"),
    ("ResourceName", "ResourceId"),
    ("BilledCost", "BillingCurrency", "ChargePeriodStart", "ChargePeriodEnd", "ServiceName"),
)

READ = (
    "billing_account_id",
    "service.id",
    "service.description",
    "sku.id",
    "sku.description",
    "usage_start_time",
    "usage_end_time",
    "project.id",
    "project.name",
    "project.labels",
    "labels",
    "tags",
    "location.location",
    "location.region",
    "location.zone",
    "cost",
    "cost_at_list",
    "currency",
    "currency_conversion_rate",
    "usage.amount",
    "usage.unit",
    "usage.amount_in_pricing_units",
    "usage.pricing_unit",
    "invoice.month",
    "cost_type",
    "adjustment_info.id",
    "adjustment_info.description",
    "adjustment_info.mode",
    "adjustment_info.type",
    "transaction_type",
    "seller_name",
    "resource.name",
    "resource.global_name",
    "price.effective_price",
    "price.tier_start_amount",
)
"""Of the standard and the detailed form, where they are there."""
CREDITS = (
    "TO_JSON_STRING(ARRAY(SELECT AS STRUCT name, {amount} AS amount, full_name, id, type "
    "FROM UNNEST(credits)))"
)


class Found(NamedTuple):
    """What the table has of one day of usage."""

    rows: int = 0
    exported: datetime | None = None
    """When its last row came."""
    partitions: tuple[int, ...] = ()
    """Where its rows are, in seconds since the epoch; of a table that is partitioned by arrival."""


class Shape:
    """What a table's columns are, and the queries that follow from that."""

    def __init__(self, name: str, table: Any) -> None:
        """Take a table as ``tables.get`` describes it.

        Raises:
            PullError: it is no export of the bill.
        """
        self.name = name
        self.location = str(table.location or "")
        self.created: datetime | None = None if table.created is None else utc(table.created)
        self._fields = dict(_fields(table.schema))
        self.form = FOCUS if "ChargePeriodStart" in self._fields else NATIVE
        lacking = [path for path in self.form.needs if path not in self._fields]
        if lacking:
            raise PullError(
                f"{name} is no export of the bill: it has no {', '.join(lacking)}; exports are "
                "called gcp_billing_export_v1_…, …_resource_v1_… and …_focus_…"
            )
        self.services = [path for path in self.form.service if path in self._fields]
        self.resources = [path for path in self.form.resource if path in self._fields]
        detailed = self.form is NATIVE and bool(self.resources)
        self.told = "detailed" if detailed else self.form.name
        self.partition, self.prunes = self._partition(table.time_partitioning)
        self.selected = tuple(self._selected())

    def _partition(self, given: Any) -> tuple[str | None, str | None]:
        """Return the column that partitions are made by, of which a later day is never before."""
        if given is None:
            return None, None
        if given.field is None:
            return "_PARTITIONTIME", str(given.type_ or "DAY")
        later = (self.form.start, self.form.end, self.form.exported)
        return (given.field, str(given.type_ or "DAY")) if given.field in later else (None, None)

    def looking(self, start: datetime, end: datetime, only: str) -> str:
        """Return the query for what there is of each day."""
        form = self.form
        last = f"MAX({form.exported})" if form.exported in self._fields else "NULL"
        parts = "''"
        if self.partition == "_PARTITIONTIME":
            parts = (
                "ARRAY_TO_STRING(ARRAY_AGG(DISTINCT CAST(UNIX_SECONDS(_PARTITIONTIME) AS STRING)), "
                "',')"
            )
        return (
            f"SELECT TIMESTAMP_TRUNC({form.start}, DAY) AS day, {last} AS last, COUNT(*) AS found, "
            f"{parts} AS parts\nFROM `{self.name}`\n"
            f"WHERE {self._since(start)}{form.start} >= {_literal(start)} "
            f"AND {form.start} < {_literal(end)}{only}\nGROUP BY day"
        )

    def reading(self, start: datetime, end: datetime, found: Found, only: str) -> str:
        """Return the query for a day's rows: those that have been counted, and no others."""
        form = self.form
        where = self._since(start)
        if found.partitions:
            listed = ", ".join(_literal(_moment(seconds)) for seconds in found.partitions)
            where = f"_PARTITIONTIME IN ({listed})\n  AND "
        upto = ""
        if found.exported is not None:
            upto = f"\n  AND {form.exported} <= {_literal(found.exported)}"
        return (
            f"SELECT {', '.join(f'{one.read} AS {one.name}' for one in self.selected)}\nFROM `{self.name}`\n"
            f"WHERE {where}{form.start} >= {_literal(start)} "
            f"AND {form.start} < {_literal(end)}{upto}{only}"
        )

    def _since(self, start: datetime) -> str:
        """Return the condition that leaves partitions out which came before a day was."""
        if self.partition is None:
            return ""
        begin = midnight(start)
        if self.prunes == "MONTH":
            begin = start_of_month(begin)
        elif self.prunes == "YEAR":
            begin = begin.replace(month=1, day=1)
        bound = _literal(begin)
        if self.partition != "_PARTITIONTIME" and self._fields[self.partition][0] == "DATE":
            bound = f"DATE '{begin:%Y-%m-%d}'"
        return f"{self.partition} >= {bound}\n  AND "

    def _selected(self) -> Iterator[Column]:
        if self.form is FOCUS:
            for name, (kind, mode) in self._fields.items():
                if "." not in name and (name in BY_NAME or name.startswith("x_")):
                    yield Column.of(name, kind, mode)
            return
        for path in READ:
            if path in self._fields:
                yield Column.of(path, *self._fields[path])
        each = Column.of("amount", *self._fields.get("credits.amount", ("FLOAT", "NULLABLE")))
        yield Column("credits", CREDITS.format(amount=each.read), "STRING")


class Column(NamedTuple):
    """A column that is asked for."""

    name: str
    read: str
    """The expression, of which nothing gets lost."""
    kind: str
    number: bool = False

    @classmethod
    def of(cls, path: str, kind: str, mode: str) -> Column:
        """Return how a column of the table is read."""
        name = path.replace(".", "_")
        if mode == "REPEATED" or kind in NESTED:
            return cls(name, f"TO_JSON_STRING({path})", "STRING")
        if kind in BINARY:
            return cls(name, f"FORMAT('{MARKED}%.17g', {path})", "STRING", number=True)
        if kind in DECIMAL:
            return cls(name, f"CAST({path} AS STRING)", "STRING", number=True)
        return cls(name, path, kind)


NESTED = frozenset(("RECORD", "STRUCT", "JSON"))
BINARY = frozenset(("FLOAT", "FLOAT64"))
DECIMAL = frozenset(("NUMERIC", "BIGNUMERIC", "DECIMAL", "BIGDECIMAL", "INTEGER", "INT64"))
MARKED = "~"
"""Stands before the text of a binary number."""
LOOKED = (
    Column("day", "", "TIMESTAMP"),
    Column("last", "", "TIMESTAMP"),
    Column("found", "", "INTEGER"),
    Column("parts", "", "STRING"),
)


def _fields(schema: Iterable[Any], before: str = "") -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each column by its path, with type and mode."""
    for field in schema:
        path = f"{before}{field.name}"
        yield path, (str(field.field_type).upper(), str(field.mode).upper())
        yield from _fields(field.fields or (), f"{path}.")


def _literal(moment: datetime) -> str:
    return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}+00:00'"


def _moment(seconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)


def utc(moment: datetime) -> datetime:
    """Return a moment in UTC; one without a zone is in it."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)
