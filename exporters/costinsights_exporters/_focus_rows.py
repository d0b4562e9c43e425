"""Charges of calls and lines of the bill as rows of FOCUS, in SQL of DuckDB.

A charge of a call is an estimate beside the bill and no part of it: its BilledCost is 0, and its
BillingAccountId is `ACCOUNT`, so that no sum for an invoice has it. Its cost is in ListCost,
ContractedCost and EffectiveCost, as FOCUS has them, and in ``x_EstimatedCost``, which alone is NULL
where no price is known: FOCUS allows no NULL in the others, and ``x_Basis`` then says ``unknown``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.billing.columns import COLUMNS, MONEY, TYPES
from costinsights.ledger.columns import quoted
from costinsights.ledger.live import literal
from costinsights_exporters._focus_services import service_of, unit_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duckdb import DuckDBPyConnection

ACCOUNT = "costinsights"
"""The billing account of charges of calls, which no provider issues."""
CURRENCY = "USD"
"""Stands beside the zeros of charges without a price, where no charge of the ledger has one."""

METHODS = {
    "estimated": "usage that the client saw × list price",
    "metered": "the system's own figure × price",
    "allocated": "a share of capacity that is paid for by the hour",
    "billed": "from the provider's bill",
    "unknown": "no price is known",
}
"""How an amount is known, in words: ``x_EstimateMethod``."""

BYTES = ("billed_bytes", "data_scanned_bytes", "scanned_bytes")
"""Meters that say more of what was consumed than the time does, best first."""

_LABELS = ("asset", "partition", "job", "run", "team")
_METHOD = " ".join(f"WHEN {literal(b)} THEN {literal(text)}" for b, text in METHODS.items())
_TAGS = ", ".join(f"{literal(name)}, c.{quoted(name)}" for name in _LABELS)

# What every expression below may use beside the columns of a charge: service s, unit u, ids i.
_BYTES = ", ".join(f"TRY_CAST(c.meters ->> '$.{name}' AS {MONEY})" for name in BYTES)
_PREPARED = f"""
    SELECT c.*,
        coalesce(c.amount, 0) AS cost,
        nullif(TRY_CAST(c.unit_price AS {MONEY}), 0) AS list_price,
        coalesce({_BYTES}) AS bytes,
        CAST(c.duration_ns AS DECIMAL(19,0)) * CAST('0.000000001' AS DECIMAL(10,9)) AS seconds,
        date_trunc('second', c.started_at) AS began
    FROM {{relation}} c
"""

_CALL = {
    "BilledCost": "0",
    "BillingAccountId": literal(ACCOUNT),
    "BillingAccountName": "'costinsights: charges of calls'",
    "BillingCurrency": "coalesce(c.currency, {currency})",
    "BillingPeriodEnd": "date_trunc('month', c.began) + INTERVAL 1 MONTH",
    "BillingPeriodStart": "date_trunc('month', c.began)",
    "ChargeCategory": "'Usage'",
    "ChargeDescription": "coalesce(c.summary, nullif(c.operation, ''))",
    "ChargeFrequency": "'Usage-Based'",
    # The end is not included: a call that ended within a second has it in its period.
    "ChargePeriodEnd": "date_trunc('second', c.ended_at) + INTERVAL 1 SECOND",
    "ChargePeriodStart": "c.began",
    "ConsumedQuantity": "coalesce(c.bytes, c.seconds)",
    "ConsumedUnit": "CASE WHEN c.bytes IS NULL THEN 'Seconds' ELSE 'B' END",
    "ContractedCost": "c.cost",
    "ContractedUnitPrice": "c.list_price",
    "EffectiveCost": "c.cost",
    "HostProviderName": "s.provider",
    "InvoiceIssuerName": "s.provider",
    "ListCost": "c.cost",
    "ListUnitPrice": "c.list_price",
    "PricingCategory": "'Standard'",
    "PricingQuantity": (
        "CASE WHEN c.list_price IS NULL THEN coalesce(c.bytes, c.seconds) "
        "ELSE c.cost / c.list_price END"
    ),
    "PricingUnit": (
        "CASE WHEN c.list_price IS NOT NULL THEN u.unit "
        "WHEN c.bytes IS NULL THEN 'Seconds' ELSE 'B' END"
    ),
    "ProviderName": "s.provider",
    "PublisherName": "s.provider",
    "RegionId": "c.region",
    "RegionName": "c.region",
    "ResourceId": "nullif(concat_ws('/', c.address, c.namespace), '')",
    "ResourceName": "coalesce(c.namespace, c.address)",
    "ResourceType": (
        "CASE WHEN c.address IS NULL AND c.namespace IS NULL THEN NULL "
        "WHEN c.fingerprint IS NULL THEN 'Job' ELSE 'Database' END"
    ),
    "ServiceCategory": "s.category",
    "ServiceName": "s.name",
    "ServiceProviderName": "s.provider",
    "ServiceSubcategory": "s.subcategory",
    "SkuId": "c.price_key",
    "SkuMeter": "c.price_unit",
    "SkuPriceId": "c.price_key || '@' || c.price_as_of",
    "Tags": (
        f"nullif(CAST(json_merge_patch('{{{{}}}}', json_object({_TAGS}), "
        "coalesce(c.labels, '{{}}')) AS VARCHAR), '{{}}')"
    ),
    "x_System": "c.system",
    "x_Operation": "nullif(c.operation, '')",
    "x_Basis": "c.basis",
    "x_CapacitySeconds": "c.capacity_seconds",
    "x_ChargeId": "c.charge_id",
    "x_ErrorType": "c.error_type",
    "x_EstimateMethod": f"CASE c.basis {_METHOD} END",
    "x_EstimatedCost": "c.amount",
    "x_Fingerprint": "c.fingerprint",
    "x_ParentSpanId": "c.parent_span_id",
    "x_PriceAsOf": "c.price_as_of",
    "x_PriceBook": "c.price_book",
    "x_PriceSource": "c.price_source",
    "x_Program": "c.service",
    "x_Revision": "c.revision",
    "x_Rows": 'c."rows"',
    "x_Rule": "c.rule",
    "x_SpanId": "i.span_id",
    "x_TraceId": "coalesce(c.trace_id, i.trace_id)",
    "x_Usage": "c.meters",
    "x_VendorId": "c.vendor_id",
}
"""Each column of a charge of a call. What is not here is NULL."""

NUMBERS = frozenset(("x_CapacitySeconds", "x_EstimatedCost", "x_Revision", "x_Rows"))
"""Columns of ours that are numbers; all others that begin with ``x_`` are text."""

_COMPLETED = {
    "ChargeDescription": (
        "coalesce(ChargeDescription, x_UsageType, concat(ServiceName, ': ', ChargeCategory))"
    ),
    "PricingQuantity": (
        "CASE WHEN PricingQuantity IS NULL AND ChargeCategory = 'Usage' "
        "THEN ConsumedQuantity ELSE PricingQuantity END"
    ),
    "PricingUnit": (
        "CASE WHEN PricingUnit IS NULL AND ChargeCategory = 'Usage' "
        "AND PricingQuantity IS NULL THEN ConsumedUnit ELSE PricingUnit END"
    ),
}
"""What a line of the bill gets where its source leaves it out and FOCUS has it: what it says of
itself elsewhere."""

_KINDS = {column.name: TYPES[column.kind] for column in COLUMNS}
_BILLED = {"x_Basis": "'billed'", "x_EstimateMethod": literal(METHODS["billed"])}


def calls(relation: str, ids: str) -> str:
    """Return the SELECT of charges of calls; ``services``, ``units`` and ``currencies`` are there.

    Args:
        relation: The charges, as `costinsights.ledger.store.Store.relation` gives them.
        ids: A table of charge_id, trace_id and span_id.
    """
    columns = ", ".join(
        f"CAST({text.format(currency='(SELECT currency FROM usual)')} AS {_type(name)}) "
        f"AS {quoted(name)}"
        for name, text in _CALL.items()
    )
    return (
        f"SELECT {columns} FROM ({_PREPARED.format(relation=relation)}) c "
        "JOIN services s ON s.system = c.system "
        "AND s.managed IS NOT DISTINCT FROM c.resource_service "
        "LEFT JOIN units u ON u.text = c.price_unit "
        f"LEFT JOIN {ids} i ON i.charge_id = c.charge_id"
    )


def billed(bill: str) -> str:
    """Return the SELECT of lines of the bill: as their sources have them, and completed."""
    added = ", ".join(f"{value} AS {quoted(name)}" for name, value in _BILLED.items())
    completed = ", ".join(f"{value} AS {quoted(name)}" for name, value in _COMPLETED.items())
    return f"SELECT * REPLACE ({completed}), {added} FROM {bill}"


def arranged(connection: DuckDBPyConnection, parts: Iterable[str]) -> str:
    """Return the SELECT of all of these, with every column of FOCUS in its order and then ours.

    A column that nobody has is there, typed, and NULL.
    """
    whole = " UNION ALL BY NAME ".join(parts)
    have = [str(row[0]) for row in connection.execute(f"DESCRIBE {whole}").fetchall()]
    order = [column.name for column in COLUMNS]
    order += sorted({*have, *_CALL}.difference(order))
    listed = ", ".join(
        f"CAST({quoted(name) if name in have else 'NULL'} AS {_type(name)}) AS {quoted(name)}"
        for name in order
    )
    return f"SELECT {listed} FROM ({whole})"


def _type(name: str) -> str:
    return _KINDS.get(name) or (MONEY if name in NUMBERS else "VARCHAR")


def name_services(connection: DuckDBPyConnection, relation: str) -> None:
    """Create the tables that `calls` needs: what systems, units and money are called in FOCUS."""
    systems = _rows(connection, f"SELECT DISTINCT system, resource_service FROM {relation}")
    _table(
        connection,
        "services",
        ("system", "managed", "provider", "name", "category", "subcategory"),
        [(system, managed, *service_of(system, managed)) for system, managed in systems],
    )
    units = _rows(
        connection, f"SELECT DISTINCT price_unit FROM {relation} WHERE price_unit IS NOT NULL"
    )
    _table(connection, "units", ("text", "unit"), [(text, unit_of(text)) for (text,) in units])
    found = _rows(connection, f"SELECT mode(currency) FROM {relation}")
    _table(connection, "usual", ("currency",), [(found[0][0] or CURRENCY,)])


def _table(
    connection: DuckDBPyConnection,
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str | None]],
) -> None:
    declared = ", ".join(f"{quoted(column)} VARCHAR" for column in columns)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({declared})")
    if rows:
        marks = ", ".join("?" for _ in columns)
        connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)


def _rows(connection: DuckDBPyConnection, query: str) -> list[tuple[str, ...]]:
    return connection.execute(query).fetchall()
