"""AWS's usage report (CUR 2.0) as FOCUS rows, and what usage types add to any rows of AWS.

Columns: docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html. Amortized cost: AWS's
Well-Architected labs, static/Cost/300_CUR_Queries/Code/Global/amortized_cost_by_charge_type.sql.

``identity_line_item_id`` changes with each delivery, and is not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.asking import batches
from costinsights.billing.aws import OF_USAGE, RECORDS, UNKNOWN
from costinsights.billing.focus_files import Group, moment, source
from costinsights.billing.loading import exact
from costinsights.billing.puller import PullError
from costinsights.billing.services import AWS, SERVICES
from costinsights.billing.units import AMAZON, unit_sql
from costinsights.ledger.columns import quoted
from costinsights.ledger.live import literal
from costinsights.systems.aws_s3_usage import usage_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb import DuckDBPyConnection

MARK = "line_item_unblended_cost"
"""The column by which a report is known."""
NEEDED = (
    "bill_billing_period_start_date",
    "bill_payer_account_id",
    "line_item_currency_code",
    "line_item_line_item_type",
    "line_item_product_code",
    MARK,
    "line_item_usage_end_date",
    "line_item_usage_start_date",
)
"""Columns without which a report is no bill; of the others, what is not there is NULL."""

REGION = "x_Region"
"""A report's region, until usage types say it where the report does not."""
_TABLE = "aws_usage"
_AT_ONCE = 500
_ADDED: Mapping[str, str] = {
    "x_UsageKind": "kind",
    "x_StorageClass": "class",
    "x_RequestClass": "request",
    "x_AccessTier": "tier",
    "x_OtherRegion": "other",
}

_TYPE = "{line_item_line_item_type}"
_COST = "{#line_item_unblended_cost}"
_OF_USAGE = f"{_TYPE} IN ({', '.join(map(literal, OF_USAGE))})"
_UNIT = unit_sql("{pricing_unit}", AMAZON)
_COVERED = f"{_TYPE} IN ('DiscountedUsage', 'SavingsPlanCoveredUsage')"
_UNUSED = (
    "coalesce({#reservation_unused_amortized_upfront_fee_for_billing_period}, 0) "
    "+ coalesce({#reservation_unused_recurring_fee}, 0)"
)
_LEFT = (
    "coalesce({#savings_plan_total_commitment_to_date}, 0) "
    "- coalesce({#savings_plan_used_commitment}, 0)"
)
_RESERVATION = "nullif({reservation_reservation_a_r_n}, '')"
_PLAN = "nullif({savings_plan_savings_plan_a_r_n}, '')"

# FOCUS's columns, by those of the report: {name} stands for a column, {#name} for a number,
# {@name} for a moment.
COLUMNS: Mapping[str, str] = {
    "AvailabilityZone": "{line_item_availability_zone}",
    "BilledCost": _COST,
    "BillingAccountId": "{bill_payer_account_id}",
    "BillingAccountName": "{bill_payer_account_name}",
    "BillingCurrency": "{line_item_currency_code}",
    "BillingPeriodStart": "{@bill_billing_period_start_date}",
    "ChargeDescription": "{line_item_line_item_description}",
    "ChargePeriodStart": "{@line_item_usage_start_date}",
    "ChargePeriodEnd": "{@line_item_usage_end_date}",
    "CommitmentDiscountId": f"coalesce({_PLAN}, {_RESERVATION})",
    "CommitmentDiscountCategory": (
        f"CASE WHEN {_PLAN} IS NOT NULL THEN 'Spend' WHEN {_RESERVATION} IS NOT NULL THEN 'Usage' END"
    ),
    "CommitmentDiscountType": (
        f"CASE WHEN {_PLAN} IS NOT NULL THEN 'Savings Plan' "
        f"WHEN {_RESERVATION} IS NOT NULL THEN 'Reserved Instance' END"
    ),
    "CommitmentDiscountStatus": f"CASE WHEN {_COVERED} THEN 'Used' END",
    "ConsumedQuantity": f"CASE WHEN {_OF_USAGE} THEN {{#line_item_usage_amount}} END",
    "ConsumedUnit": f"CASE WHEN {_OF_USAGE} THEN {_UNIT} END",
    "ContractedCost": "{#line_item_net_unblended_cost}",
    "EffectiveCost": (
        f"CASE {_TYPE} "
        "WHEN 'SavingsPlanCoveredUsage' THEN {#savings_plan_savings_plan_effective_cost} "
        f"WHEN 'SavingsPlanRecurringFee' THEN {_LEFT} "
        "WHEN 'SavingsPlanNegation' THEN 0 WHEN 'SavingsPlanUpfrontFee' THEN 0 "
        "WHEN 'DiscountedUsage' THEN {#reservation_effective_cost} "
        f"WHEN 'RIFee' THEN {_UNUSED} "
        f"WHEN 'Fee' THEN CASE WHEN {_RESERVATION} IS NULL THEN {_COST} ELSE 0 END "
        f"ELSE {_COST} END"
    ),
    "InvoiceId": "{bill_invoice_id}",
    "InvoiceIssuerName": "{bill_invoicing_entity}",
    "ListCost": f"CASE WHEN {_OF_USAGE} THEN {{#pricing_public_on_demand_cost}} END",
    "PricingCategory": (
        f"CASE WHEN {_COVERED} THEN 'Committed' WHEN {_OF_USAGE} THEN 'Standard' END"
    ),
    "PricingQuantity": f"CASE WHEN {_OF_USAGE} THEN {{#line_item_usage_amount}} END",
    "PricingUnit": f"CASE WHEN {_OF_USAGE} THEN {_UNIT} END",
    "PublisherName": (
        "CASE WHEN {bill_billing_entity} = 'AWS Marketplace' THEN {line_item_legal_entity} END"
    ),
    "ResourceId": "{line_item_resource_id}",
    "SkuId": "{product_sku}",
    "SkuPriceId": "{pricing_rate_code}",
    "SubAccountId": "{line_item_usage_account_id}",
    "SubAccountName": "{line_item_usage_account_name}",
    "Tags": "{resource_tags}",
    "x_Operation": "{line_item_operation}",
    "x_ServiceCode": "{line_item_product_code}",
    "x_UsageType": "{line_item_usage_type}",
    "x_RecordType": f"nullif({_TYPE}, 'Usage')",
}


def is_report(header: Sequence[str]) -> bool:
    """Tell a usage report from FOCUS, by its columns."""
    return MARK in header


def rows(connection: DuckDBPyConnection, group: Group, given: Mapping[str, str]) -> str:
    """Return the SELECT that makes FOCUS rows of reports; `given` are the user's own categories.

    Raises:
        PullError: a column is missing without which it is no bill.
    """
    lacking = [name for name in NEEDED if name not in group.header]
    if lacking:
        raise PullError(
            f"{group.files[0].told}: {', '.join(lacking)}: it has no such column, and without it "
            "the usage report is no bill"
        )
    described = connection.execute(f"DESCRIBE SELECT * FROM {source(group)}").fetchall()
    types = {str(name): str(kind) for name, kind, *_ in described}
    read = _Columns(types)
    columns = [f"{expression.format_map(read)} AS {name}" for name, expression in COLUMNS.items()]
    columns.append(f"{read.category(given)} AS ChargeCategory")
    columns.append(f"{read.of_records('frequency')} AS ChargeFrequency")
    columns.append(f"{read.of_records('correction')} AS ChargeClass")
    columns.append(f"{read.service()} AS ServiceName")
    columns.append(f"nullif({read.either('product_region_code', 'region')}, '') AS x_Region")
    return f"SELECT {', '.join(columns)} FROM {source(group)}"


class _Columns(dict[str, str]):
    """The columns of a report, as SQL; what it does not have is NULL."""

    def __init__(self, types: Mapping[str, str]) -> None:
        super().__init__()
        self._types = types

    def __missing__(self, name: str) -> str:
        plain = name.lstrip("#@")
        kind = self._types.get(plain)
        value = "NULL" if kind is None else quoted(plain)
        if kind is None:
            return value
        if name[0] == "@":
            return moment(value, kind)
        if name[0] == "#":
            return exact(value, kind)
        return value

    def category(self, given: Mapping[str, str]) -> str:
        """Return the ChargeCategory of a line."""
        known = {name: record.category for name, record in RECORDS.items()}
        return self._case({**known, **given}, literal(UNKNOWN.category))

    def of_records(self, what: str) -> str:
        """Return what else follows from the type of a line."""
        if what == "correction":
            found = {name: "Correction" for name, one in RECORDS.items() if one.correction}
        else:
            found = {name: one.frequency for name, one in RECORDS.items() if one.frequency}
        return self._case(found, "NULL")

    def _case(self, words: Mapping[str, str], other: str) -> str:
        cases = " ".join(f"WHEN {literal(name)} THEN {literal(w)}" for name, w in words.items())
        return f"CASE {self['line_item_line_item_type']} {cases} ELSE {other} END"

    def service(self) -> str:
        """Return the service as the invoice and Cost Explorer call it, not by its code."""
        known = {
            name: service.names[0]
            for service in SERVICES
            if service.provider == AWS
            for name in service.names[1:]
        }
        code = self["line_item_product_code"]
        cases = " ".join(f"WHEN {literal(c)} THEN {literal(name)}" for c, name in known.items())
        named = self.either("product_product_name", "product_name")
        return f"coalesce(nullif({named}, ''), CASE {code} {cases} ELSE {code} END)"

    def either(self, column: str, key: str) -> str:
        """Return a column or, where the report has them in one, a value of ``product``."""
        kind = self._types.get("product", "")
        table = "NULL"
        if kind.startswith("MAP"):
            table = f"list_extract(map_extract(product, {literal(key)}), 1)"
        elif kind == "VARCHAR":
            table = f"json_extract_string(product, {literal(f'$.{key}')})"
        return f"coalesce({self[column]}, {table})"


def told(connection: DuckDBPyConnection, selected: str, names: Sequence[str], service: str) -> str:
    """Return a SELECT of AWS's rows with what their usage types say: kinds, classes, regions.

    Args:
        connection: It gets a temporary table, which the SELECT reads.
        selected: A SELECT of FOCUS rows.
        names: Its columns.
        service: The column that has the service's name or product code.
    """
    word = "x_UsageType" if "x_UsageType" in names else "SkuMeter"
    if word not in names:
        return selected
    operation = "x_Operation" if "x_Operation" in names else "NULL"
    keys = ", ".join(f"coalesce({key}, '')" for key in (word, service, operation))
    seen = connection.execute(f"SELECT DISTINCT {keys} FROM ({selected})").fetchall()
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {_TABLE} (word VARCHAR, service VARCHAR, operation VARCHAR, "
        "kind VARCHAR, class VARCHAR, request VARCHAR, tier VARCHAR, other VARCHAR, region VARCHAR)"
    )
    for some in batches([_line(*map(str, one)) for one in seen if one[0]], _AT_ONCE):
        connection.execute(f"INSERT INTO {_TABLE} VALUES {', '.join(some)}")
    columns = [f"u.{value} AS {name}" for name, value in _ADDED.items() if name not in names]
    if REGION in names:
        columns.append(f"coalesce(f.{REGION}, u.region) AS RegionId")
    kept = f"f.* EXCLUDE ({REGION})" if REGION in names else "f.*"
    same = " AND ".join(
        f"coalesce(f.{mine}, '') = u.{theirs}"
        for mine, theirs in ((word, "word"), (service, "service"), (operation, "operation"))
        if mine != "NULL"
    )
    return (
        f"SELECT {', '.join((kept, *columns))} FROM ({selected}) f LEFT JOIN {_TABLE} u ON {same}"
    )


def _line(word: str, service: str, operation: str) -> str:
    found = usage_type(word, service, operation)
    values = (
        word,
        service,
        operation,
        found.kind,
        found.storage_class,
        found.request_class,
        found.access_tier,
        found.other_region,
        found.region,
    )
    return f"({', '.join('NULL' if value is None else literal(value) for value in values)})"
