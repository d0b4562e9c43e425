"""Azure's own cost and usage files, actual and amortized, as FOCUS rows.

Columns have the names of an Enterprise Agreement or of a Microsoft Customer Agreement, in small
letters or in large ones, and are taken by name. What becomes of each: microsoft/finops-toolkit,
docs-mslearn/focus/convert.md (2024-10) and mapping.md (2026-04). Three things differ from it:

- its tables of services, regions and units are not here: ServiceName is the meter's category,
  units stay as they are written, and there is no PricingQuantity;
- what a reservation or savings plan was not used for is not billed (BilledCost is 0), as what it
  was used for is not: what is billed is its purchase;
- ListUnitPrice of a price in another currency is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.billing import focus_files
from costinsights.billing.azure_cost_management import CATEGORIES, FREQUENCIES, PRICING
from costinsights.billing.focus_files import File, Group
from costinsights.billing.puller import PullError
from costinsights.billing.units import MICROSOFT, unit_sql
from costinsights.ledger.columns import quoted
from costinsights.ledger.live import literal

if TYPE_CHECKING:
    from collections.abc import Mapping

ACTUAL, AMORTIZED, USAGE = "ActualCost", "AmortizedCost", "Usage"

# A column of FOCUS, or a further one, and what it is called in the files: the first that is there.
_PLAIN: Mapping[str, str] = {
    "AvailabilityZone": "availabilityzone",
    "BillingAccountId": "billingprofileid billingaccountid",
    "BillingAccountName": "billingprofilename billingaccountname",
    "BillingCurrency": "billingcurrency billingcurrencycode",
    "ChargeDescription": "productname product",
    "CommitmentDiscountId": "benefitid reservationid",
    "CommitmentDiscountName": "benefitname reservationname",
    "ContractedUnitPrice": "unitprice",
    "InvoiceId": "invoiceid",
    "InvoiceIssuerName": "partnername",
    "ListCost": "paygcostinbillingcurrency",
    "PricingCurrency": "pricingcurrency",
    "PublisherName": "publishername",
    "RegionName": "resourcelocation resourcelocationnormalized location",
    "ResourceId": "resourceid instanceid",
    "SkuId": "productid",
    "SkuMeter": "metername",
    "SubAccountName": "subscriptionname",
    "x_AccountName": "accountname",
    "x_AccountOwnerId": "accountownerid",
    "x_BillingAccountId": "billingaccountid",
    "x_BillingAccountName": "billingaccountname",
    "x_BillingExchangeRate": "exchangeratepricingtobilling",
    "x_BillingExchangeRateDate": "exchangeratedate",
    "x_CostAllocationRuleName": "costallocationrulename",
    "x_CostCenter": "costcenter",
    "x_CustomerId": "customertenantid",
    "x_CustomerName": "customername",
    "x_EffectiveUnitPrice": "effectiveprice",
    "x_InvoiceIssuerId": "partnertenantid",
    "x_InvoiceSectionId": "invoicesectionid",
    "x_InvoiceSectionName": "invoicesectionname departmentname",
    "x_PartnerCreditApplied": "partnerearnedcreditapplied",
    "x_PartnerCreditRate": "partnerearnedcreditrate",
    "x_PricingUnitDescription": "unitofmeasure",
    "x_ResellerId": "resellermpnid",
    "x_ResellerName": "resellername",
    "x_ResourceGroupName": "resourcegroupname resourcegroup",
    "x_ResourceType": "resourcetype",
    "x_ServicePeriodEnd": "serviceperiodenddate serviceperiodend",
    "x_ServicePeriodStart": "serviceperiodstartdate serviceperiodstart",
    "x_SkuDetails": "additionalinfo",
    "x_SkuIsCreditEligible": "isazurecrediteligible",
    "x_SkuMeterCategory": "metercategory",
    "x_SkuMeterId": "meterid",
    "x_SkuMeterSubcategory": "metersubcategory",
    "x_SkuOfferId": "offerid",
    "x_SkuOrderId": "productorderid",
    "x_SkuOrderName": "productordername",
    "x_SkuPartNumber": "partnumber",
    "x_SkuRegion": "meterregion",
    "x_SkuServiceFamily": "servicefamily",
    "x_SkuTerm": "term",
    "x_SubscriptionId": "subscriptionid subscriptionguid",
    "x_ConsumedService": "consumedservice",
    "x_ChargeType": "chargetype",
    "x_PricingModel": "pricingmodel",
}
# What the expressions below take, so that it is not kept under its own name once more.
_TAKEN = (
    "billingperiodenddate billingperiodstartdate cost costinbillingcurrency costinusd date frequency "
    "payGprice quantity resourcename tags"
).lower()
# Without these nobody knows what is billed, and when: any of the names will do.
_NEEDED = (
    "costinbillingcurrency cost",
    "date usagedate",
    "billingcurrency billingcurrencycode",
    "billingaccountid billingprofileid",
    "chargetype",
)
_DATES = ("%m/%d/%Y", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")
_COMMITMENTS = "('Reservation', 'SavingsPlan')"


def source(file: File) -> tuple[str, dict[str, str]]:
    """Return what stands behind FROM for a file, and its columns: by their names in small letters.

    Under these they are given as text.

    Raises:
        PullError: it cannot be read, or has a column twice.
    """
    try:
        form, header = focus_files.header_of(file.path)
    except focus_files.UNREADABLE as error:
        raise PullError(f"{file.told} cannot be read: {type(error).__name__}") from None
    names = {raw.lower(): raw for raw in header}
    if len(names) != len(header) or "" in names:
        raise PullError(f"{file.told}: a column has no name, or comes twice")
    texts = ", ".join(
        f"nullif(trim(CAST({quoted(raw)} AS VARCHAR)), '') AS {quoted(name)}"
        for name, raw in names.items()
    )
    return f"(SELECT {texts} FROM {focus_files.source(Group(form, header, (file,)))})", names


def rows(file: File, source_: str, have: Mapping[str, str], dataset: str) -> str:
    """Return the SELECT that makes FOCUS rows of a file's.

    Args:
        file: Which file it is, for messages.
        source_: What stands behind FROM; the first of `source`.
        have: Its columns; the second of `source`.
        dataset: `ACTUAL`, `AMORTIZED` or `USAGE`.

    Raises:
        PullError: a column is missing without which nothing can be said.
    """
    for names in _NEEDED:
        if not any(name in have for name in names.split()):
            raise PullError(f"{file.told}: it has no column {names.split()[0]}")

    def first(names: str) -> str:
        there = [quoted(name) for name in names.split() if name in have]
        return f"coalesce({', '.join(there)})" if there else "CAST(NULL AS VARCHAR)"

    cost, kind = first("costinbillingcurrency cost"), first("chargetype")
    model, benefit = first("pricingmodel"), f"lower({first('benefitid reservationid')})"
    committed = f"{model} IN {_COMMITMENTS}"
    used = f"{committed} AND {kind} NOT IN ('Purchase', 'Refund')"
    bought = f"{committed} AND {kind} IN ('Purchase', 'Refund')"
    usage = f"{kind} = 'Usage'"
    resource, name = first("resourceid instanceid"), first("resourcename")
    region, subscription = (
        first(_PLAIN["RegionName"]),
        first(_PLAIN["x_SubscriptionId"]),
    )
    category = f"nullif({first('metercategory')}, 'Unassigned')"
    commitment = (
        f"CASE WHEN contains({benefit}, '/microsoft.capacity/') THEN {{}} "
        f"WHEN contains({benefit}, '/microsoft.billingbenefits/') THEN {{}} END"
    )
    day = _day(first("date usagedate"), file)
    made: dict[str, str] = {
        "BilledCost": cost,
        "ChargeCategory": _case(kind, CATEGORIES, "'Adjustment'"),
        "ChargeClass": f"CASE WHEN {kind} = 'Refund' THEN 'Correction' END",
        "ChargeFrequency": _case(first("frequency"), FREQUENCIES, "'Other'"),
        "ChargePeriodStart": day,
        "ChargePeriodEnd": f"{day} + INTERVAL 1 DAY",
        "BillingPeriodStart": _day(first("billingperiodstartdate"), file),
        "BillingPeriodEnd": f"{_day(first('billingperiodenddate'), file)} + INTERVAL 1 DAY",
        "CommitmentDiscountCategory": commitment.format("'Usage'", "'Spend'"),
        "CommitmentDiscountType": commitment.format("'Reservation'", "'Savings Plan'"),
        "CommitmentDiscountStatus": (
            f"CASE WHEN {kind} IN ('UnusedReservation', 'UnusedSavingsPlan') THEN 'Unused' "
            f"WHEN {used} THEN 'Used' END"
        ),
        "ConsumedQuantity": f"CASE WHEN {usage} THEN {first('quantity')} END",
        "ConsumedUnit": f"CASE WHEN {usage} THEN {unit_sql(first('unitofmeasure'), MICROSOFT)} END",
        "ListUnitPrice": (
            f"CASE WHEN coalesce({first('exchangeratepricingtobilling')}, '1') = '1' "
            f"THEN {first('paygprice')} END"
        ),
        "PricingCategory": _case(model, PRICING, "NULL"),
        "RegionId": f"replace(lower({region}), ' ', '')",
        "ResourceName": f"coalesce({name}, regexp_extract({resource}, '[^/]+$'))",
        "ServiceName": f"coalesce({category}, {first('consumedservice publishername')}, {kind})",
        "SubAccountId": f"'/subscriptions/' || {subscription}",
        "Tags": _tags(first("tags")),
        "x_UsageType": first("metername"),
    }
    if dataset == AMORTIZED:
        made["BilledCost"] = f"CASE WHEN {used} THEN '0' ELSE {cost} END"
        made["EffectiveCost"] = f"CASE WHEN {bought} THEN '0' ELSE {cost} END"
    usd = "x_EffectiveCostInUsd" if dataset == AMORTIZED else "x_BilledCostInUsd"
    made[usd] = first("costinusd")
    for column, names in _PLAIN.items():
        if any(one in have for one in names.split()):
            made[column] = first(names)
    taken = {one for names in (*_PLAIN.values(), *_NEEDED, _TAKEN) for one in names.split()}
    for one, raw in have.items():
        if one not in taken:
            made[raw if one.startswith("x_") else f"x_{raw}"] = quoted(one)
    columns = ", ".join(f"{value} AS {quoted(column)}" for column, value in made.items())
    return f"SELECT {columns} FROM {source_}"


def purchases(query: str) -> str:
    """Return the SELECT of what was bought in reservations and savings plans, of actual rows.

    It is billed, and effective nowhere: the amortized rows have what it was used for.
    """
    return (
        f"SELECT *, '0' AS EffectiveCost FROM ({query}) "
        f"WHERE x_ChargeType IN ('Purchase', 'Refund') AND x_PricingModel IN {_COMMITMENTS}"
    )


def _case(value: str, words: Mapping[str, str], otherwise: str) -> str:
    cases = " ".join(f"WHEN {literal(one)} THEN {literal(other)}" for one, other in words.items())
    return f"CASE {value} {cases} ELSE CASE WHEN {value} IS NULL THEN NULL ELSE {otherwise} END END"


def _day(value: str, file: File) -> str:
    formats = ", ".join(map(literal, _DATES))
    what = literal(f"{file.told}: what stands for a date is none")
    return (
        f"CASE WHEN {value} IS NULL THEN NULL "
        f"ELSE date_trunc('day', coalesce(try_strptime({value}, [{formats}]), error({what}))) END"
    )


def _tags(value: str) -> str:
    """Return tags with the braces that older files leave away."""
    return (
        f"CASE WHEN {value} IS NULL OR starts_with({value}, '{{') THEN {value} "
        f"ELSE '{{' || {value} || '}}' END"
    )
