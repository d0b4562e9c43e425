"""BigQuery with billing exports in it: tables in Google's schemas, their SQL on DuckDB by sqlglot.

    with billing_server() as bigquery:
        bigquery.export(TABLE, DETAILED)
        bigquery.bill(TABLE, line(at, "Cloud Storage", "Standard Storage Belgium", 0.1))

Partitions count: `_PARTITIONTIME` is when a row came, and what a query reads is counted from the
partitions that its WHERE leaves and the columns that it names, 8 bytes each. So a query without its
partition filter costs more here as well, and ``maximumBytesBilled`` is held.

An emulator of our own. That Google's engine leaves out the same partitions it cannot prove.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import duckdb
import sqlglot
from sqlglot import exp

from tests.servers import bigquery_tables
from tests.servers.bigquery_server import BigQueryServer, Call, Failure, Figures, Job, serving

pa: Any = import_module("pyarrow")  # comes without types

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from tests.servers.bigquery_server import Request

    Resource = dict[str, Any]
    Field = tuple[str, str] | tuple[str, str, tuple[Any, ...]]

LEAST = 10 * 2**20
HOUR = timedelta(hours=1)

LABELS = (("key", "STRING"), ("value", "STRING"))
STANDARD: tuple[Field, ...] = (
    ("billing_account_id", "STRING"),
    ("service", "RECORD", (("id", "STRING"), ("description", "STRING"))),
    ("sku", "RECORD", (("id", "STRING"), ("description", "STRING"))),
    ("usage_start_time", "TIMESTAMP"),
    ("usage_end_time", "TIMESTAMP"),
    (
        "project",
        "RECORD",
        (
            ("id", "STRING"),
            ("number", "STRING"),
            ("name", "STRING"),
            ("labels", "REPEATED", LABELS),
            ("ancestry_numbers", "STRING"),
        ),
    ),
    ("labels", "REPEATED", LABELS),
    ("system_labels", "REPEATED", LABELS),
    (
        "location",
        "RECORD",
        (
            ("location", "STRING"),
            ("country", "STRING"),
            ("region", "STRING"),
            ("zone", "STRING"),
        ),
    ),
    ("export_time", "TIMESTAMP"),
    ("cost", "FLOAT"),
    ("currency", "STRING"),
    ("currency_conversion_rate", "FLOAT"),
    (
        "usage",
        "RECORD",
        (
            ("amount", "FLOAT"),
            ("unit", "STRING"),
            ("amount_in_pricing_units", "FLOAT"),
            ("pricing_unit", "STRING"),
        ),
    ),
    (
        "credits",
        "REPEATED",
        (
            ("name", "STRING"),
            ("amount", "FLOAT"),
            ("full_name", "STRING"),
            ("id", "STRING"),
            ("type", "STRING"),
        ),
    ),
    ("invoice", "RECORD", (("month", "STRING"), ("publisher_type", "STRING"))),
    ("cost_type", "STRING"),
    (
        "adjustment_info",
        "RECORD",
        (
            ("id", "STRING"),
            ("description", "STRING"),
            ("mode", "STRING"),
            ("type", "STRING"),
        ),
    ),
    ("tags", "REPEATED", (*LABELS, ("inherited", "BOOLEAN"), ("namespace", "STRING"))),
    ("cost_at_list", "FLOAT"),
    ("transaction_type", "STRING"),
    ("seller_name", "STRING"),
)
"""Of docs.cloud.google.com, export-data-bigquery-tables/standard-usage, as far as it is read here."""
DETAILED: tuple[Field, ...] = (
    *STANDARD,
    ("resource", "RECORD", (("name", "STRING"), ("global_name", "STRING"))),
    (
        "price",
        "RECORD",
        (
            ("effective_price", "NUMERIC"),
            ("tier_start_amount", "NUMERIC"),
            ("unit", "STRING"),
            ("pricing_unit_quantity", "NUMERIC"),
        ),
    ),
)
FOCUS: tuple[Field, ...] = (
    ("BilledCost", "NUMERIC"),
    ("BillingAccountId", "STRING"),
    ("BillingCurrency", "STRING"),
    ("BillingPeriodStart", "TIMESTAMP"),
    ("BillingPeriodEnd", "TIMESTAMP"),
    ("ChargeCategory", "STRING"),
    ("ChargeClass", "STRING"),
    ("ChargeDescription", "STRING"),
    ("ChargePeriodStart", "TIMESTAMP"),
    ("ChargePeriodEnd", "TIMESTAMP"),
    ("ConsumedQuantity", "NUMERIC"),
    ("ConsumedUnit", "STRING"),
    ("ContractedCost", "NUMERIC"),
    ("EffectiveCost", "NUMERIC"),
    ("ListCost", "NUMERIC"),
    ("PricingCategory", "STRING"),
    ("ProviderName", "STRING"),
    ("PublisherName", "STRING"),
    ("RegionId", "STRING"),
    ("ResourceId", "STRING"),
    ("ResourceName", "STRING"),
    ("ServiceName", "STRING"),
    ("SkuId", "STRING"),
    ("SubAccountId", "STRING"),
    ("SubAccountName", "STRING"),
    ("x_CostType", "STRING"),
    ("x_Credits", "REPEATED", (("Name", "STRING"), ("Amount", "NUMERIC"))),
    ("x_CurrencyConversionRate", "FLOAT"),
    ("x_ExportTime", "TIMESTAMP"),
    ("x_Labels", "REPEATED", (("Key", "STRING"), ("Value", "STRING"))),
    ("x_ProjectLabels", "REPEATED", (("Key", "STRING"), ("Value", "STRING"))),
)
"""Of the native FOCUS export, as its columns were on 2026-07-10."""

KINDS = {
    "STRING": "VARCHAR",
    "FLOAT": "DOUBLE",
    "NUMERIC": "DECIMAL(38, 9)",
    "TIMESTAMP": "TIMESTAMPTZ",
    "BOOLEAN": "BOOLEAN",
    "INTEGER": "BIGINT",
}


ARROW = {
    "STRING": pa.string(),
    "FLOAT": pa.float64(),
    "NUMERIC": pa.decimal128(38, 9),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "BOOLEAN": pa.bool_(),
    "INTEGER": pa.int64(),
}


class BillingServer(BigQueryServer):
    """BigQuery with exports of bills, and with what goes wrong when they are read."""

    def __init__(self) -> None:
        """Begin without any table."""
        super().__init__()
        self.database.execute("SET TimeZone = 'UTC'")
        self._tables: dict[str, tuple[Field, ...]] = {}
        self._facts: dict[str, Resource] = {}
        self.most_rows = 0
        """Rows that a page has at most, whatever is asked for; 0: as many as are asked for."""
        self.twisted: list[Callable[[Resource, Request], Resource]] = []
        """What is made of the answers of tabledata.list, one of them each, first come, first served."""
        self.tears = 0
        """How many of the next pages break off."""
        self.denied: set[str] = set()
        """Tables that nobody may read."""
        self.location = "EU"

    # -- what a test says -----------------------------------------------------------------------

    def export(
        self,
        name: str,
        schema: Sequence[Field] = STANDARD,
        *,
        created: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc),
        partitioning: Resource | None = None,
        **more: Any,
    ) -> None:
        """Make an empty table, partitioned by when its rows come; see ``tables.get`` for `more`."""
        project, dataset, _ = name.split(".")
        bigquery_tables.attach(self.database, project)
        self.database.execute(f'CREATE SCHEMA IF NOT EXISTS "{project}"."{dataset}"')
        columns = ", ".join(f'"{column[0]}" {_kind(column)}' for column in schema)
        self.database.execute(
            f"CREATE OR REPLACE TABLE {_quoted(name)} ({columns}, _PARTITIONTIME TIMESTAMPTZ)"
        )
        self._tables[name] = tuple(schema)
        self._facts[name] = {
            "creationTime": str(int(created.timestamp() * 1000)),
            "timePartitioning": partitioning or {"type": "DAY"},
            **more,
        }

    def bill(self, name: str, *lines: Mapping[str, Any]) -> None:
        """Append lines; each came when its export time says."""
        schema = pa.schema([_arrow(column) for column in self._tables[name]])
        schema = schema.append(pa.field("_PARTITIONTIME", ARROW["TIMESTAMP"]))
        arrived = "export_time" if "export_time" in lines[0] else "x_ExportTime"
        filled = [{**line, "_PARTITIONTIME": _day(line[arrived])} for line in lines]
        with self._lock:
            self.database.register("lines", pa.Table.from_pylist(filled, schema=schema))
            self.database.execute(f"INSERT INTO {_quoted(name)} BY NAME FROM lines")
            self.database.unregister("lines")

    def queries(self) -> list[str]:
        """Return the text of every query that ran, without dry runs."""
        return [job.configuration["query"]["query"] for job in self.jobs.values()]

    def operations(self) -> set[str]:
        """Return what was asked for: method and path without names."""
        return {_plain(request) for request in list(self.requests)}

    # -- answers --------------------------------------------------------------------------------

    def tables(self, call: Call) -> Resource | Failure:
        """Answer tables.get."""
        dataset, _, table = call.id.partition("/tables/")
        name = f"{call.project}.{dataset}.{table}"
        if name not in self._tables:
            return Failure("notFound", f"Not found: Table {name}")
        if name in self.denied:
            return Failure("accessDenied", f"Access Denied: Table {name}")
        return {
            "kind": "bigquery#table",
            "id": f"{call.project}:{dataset}.{table}",
            "tableReference": {
                "projectId": call.project,
                "datasetId": dataset,
                "tableId": table,
            },
            "type": "TABLE",
            "location": self.location,
            "schema": {"fields": [_field(column) for column in self._tables[name]]},
            **self._facts[name],
        }

    def rows(self, call: Call) -> Resource | Failure:
        """Answer tabledata.list, with at most so many rows, and twisted."""
        asked = call.request.query
        if self.most_rows:
            size = min(self.most_rows, int(asked.get("maxResults", self.most_rows)))
            asked = {**asked, "maxResults": str(size)}
        request = call.request._replace(query=asked)
        found = super().rows(call._replace(request=request))
        if self.twisted and not isinstance(found, Failure):
            found = self.twisted.pop(0)(found, request)
        return found

    def torn(self, request: Request) -> bool:
        """Break off in a page of rows."""
        if self.tears and request.path.endswith("/data"):
            self.tears -= 1
            return True
        return False

    # -- queries --------------------------------------------------------------------------------

    def _job(self, project: str, id_: str, configuration: Resource, location: str | None) -> Job:
        job = super()._job(project, id_, configuration, location)
        query = configuration.get("query")
        if query is None or job.figures != Figures():
            return job
        read = self._read(query["query"], query.get("queryParameters", []))
        most = int(query.get("maximumBytesBilled", 0))
        job.figures.processed = read
        job.figures.billed = max(LEAST, -(-read // 2**20) * 2**20)
        if most and job.figures.billed > most:
            job.figures.reason = "bytesBilledLimitExceeded"
        return job

    def _read(self, text: str, parameters: Sequence[Resource]) -> int:
        """Count what a query reads: the columns that it names, of the partitions that are left."""
        tree = sqlglot.parse_one(text, read="bigquery")
        table = next(tree.find_all(exp.Table))
        columns = {column.parts[0].name for column in tree.find_all(exp.Column)}
        kept = [
            condition
            for condition in _conditions(tree)
            if "_PARTITIONTIME" in condition.sql() and not condition.find(exp.Subquery)
        ]
        where = " AND ".join(one.sql(dialect="duckdb") for one in kept) or "true"
        name = f"{table.catalog}.{table.db}.{table.name}"
        with self._lock:
            counted = self.database.execute(
                f"SELECT count(*) FROM {_quoted(name)} WHERE {where}"
            ).fetchone()
        rows = 0 if counted is None else int(counted[0])
        names = {column[0] for column in self._tables[name]} | {"_PARTITIONTIME"}
        return rows * len(columns & names) * 8

    def _execute(self, job: Job, text: str, parameters: Sequence[Resource]) -> None:
        """Run a query of BigQuery's on DuckDB."""
        tree = sqlglot.parse_one(text, read="bigquery")
        for table in tree.find_all(exp.Table):
            name = f"{table.catalog}.{table.db}.{table.name}"
            if name in self.denied:
                job.figures.reason = "accessDenied"
                return
        sql = tree.transform(_duckdb).sql(dialect="duckdb")
        named = {one["name"]: one["parameterValue"]["value"] for one in parameters}
        with self._lock:
            cursor = self.database.cursor()
            try:
                cursor.execute("SET TimeZone = 'UTC'")
                cursor.execute(sql, named or None)
                described = cursor.description or ()
                job.columns = [(str(one[0]), str(one[1]).upper()) for one in described]
                job.rows = cursor.fetchall()
            except duckdb.Error as error:
                job.figures.reason = "invalidQuery"
                job.figures.statement_type = str(error)
            finally:
                cursor.close()


def _conditions(tree: Any) -> list[Any]:
    where = tree.args.get("where")
    if where is None:
        return []
    return list(where.this.flatten() if isinstance(where.this, exp.And) else [where.this])


def _duckdb(node: Any) -> Any:
    """Rewrite what sqlglot leaves as it is: FORMAT is C's, and UNNEST gives a structure's fields."""
    if isinstance(node, exp.Format) or (
        isinstance(node, exp.Anonymous) and node.name.upper() == "FORMAT"
    ):
        return exp.Anonymous(this="printf", expressions=[node.this, *node.expressions])
    if isinstance(node, exp.Unnest) and isinstance(node.parent, exp.From):
        inner = node.expressions[0].sql(dialect="duckdb")
        return sqlglot.parse_one(f"(SELECT unnest({inner}, max_depth := 2))", read="duckdb")
    return node


def _kind(column: Any) -> str:
    kind, *parts = column[1:]
    if kind not in ("RECORD", "REPEATED"):
        return KINDS[kind]
    listed = ", ".join(f'"{part[0]}" {_kind(part)}' for part in parts[0])
    return f"STRUCT({listed}){'[]' if kind == 'REPEATED' else ''}"


def _arrow(column: Any) -> Any:
    kind, *parts = column[1:]
    if kind not in ("RECORD", "REPEATED"):
        return pa.field(column[0], ARROW[kind])
    whole = pa.struct([_arrow(part) for part in parts[0]])
    return pa.field(column[0], pa.list_(whole) if kind == "REPEATED" else whole)


def _field(column: Any) -> Resource:
    name, kind, *parts = column
    found: Resource = {"name": name, "type": kind, "mode": "NULLABLE"}
    if parts:
        found["fields"] = [_field(part) for part in parts[0]]
    if kind == "REPEATED":
        found |= {"type": "RECORD", "mode": "REPEATED"}
    return found


def _quoted(name: str) -> str:
    return ".".join(f'"{part}"' for part in name.split("."))


def _day(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _plain(request: Request) -> str:
    parts = request.path.strip("/").split("/")
    return f"{request.method} {'/'.join(part for part in parts[0::2])}"


def line(
    at: datetime,
    service: str = "Cloud Storage",
    sku: str = "Standard Storage Belgium",
    cost: float | None = 0.1,
    *,
    exported: datetime | None = None,
    month: str | None = None,
    credits: Sequence[Mapping[str, Any]] = (),  # noqa: A002  the column's name
    bucket: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a line of the standard export; with a bucket, of the detailed one."""
    found: dict[str, Any] = {
        "billing_account_id": "01ABCD-234567-89EFAB",
        "service": {"id": "95FF-2EF5-5EA1", "description": service},
        "sku": {"id": f"SKU-{sku[:8]}", "description": sku},
        "usage_start_time": at,
        "usage_end_time": at + HOUR,
        "project": {
            "id": "shop-prod",
            "number": "123",
            "name": "Shop",
            "labels": [{"key": "team", "value": "shop"}],
            "ancestry_numbers": None,
        },
        "labels": [{"key": "env", "value": "prod"}],
        "location": {
            "location": "europe-west1",
            "country": "BE",
            "region": "europe-west1",
            "zone": None,
        },
        "export_time": exported or at + timedelta(hours=5),
        "cost": cost,
        "currency": "USD",
        "currency_conversion_rate": 1.0,
        "usage": {
            "amount": 3600.0,
            "unit": "byte-seconds",
            "amount_in_pricing_units": 0.25,
            "pricing_unit": "gibibyte month",
        },
        "credits": [
            {"name": None, "full_name": None, "id": None, "type": None, **one} for one in credits
        ],
        "invoice": {"month": month or f"{at:%Y%m}", "publisher_type": "GOOGLE"},
        "cost_type": "regular",
        "cost_at_list": cost,
        "transaction_type": "GOOGLE",
    }
    if bucket is not None:
        found["resource"] = {
            "name": bucket,
            "global_name": f"//storage.googleapis.com/projects/_/buckets/{bucket}",
        }
        found["price"] = {
            "effective_price": Decimal("0.020000001"),
            "tier_start_amount": Decimal(0),
            "unit": "gibibyte month",
            "pricing_unit_quantity": Decimal(1),
        }
    return found | more


@contextmanager
def billing_server() -> Generator[BillingServer]:
    """Run a server without any table, until the block ends."""
    with serving(BillingServer()) as state:
        yield state
