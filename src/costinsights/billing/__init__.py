"""Billing: what providers bill, pulled into the ledger beside the charges of calls.

::

    from datetime import datetime, timezone
    from costinsights.billing import get_cost_data_for_day, open_bill, pull

    pull("aws.s3", start=datetime(2026, 11, 1, tzinfo=timezone.utc))

docs/bills.md tells what each source has; `costinsights.billing.puller` is what a puller is written
against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.later import later

if TYPE_CHECKING:
    from costinsights.billing.bill import Bill, open_bill
    from costinsights.billing.costs import (
        CostData,
        get_cost_data_for_day,
        get_cost_data_for_hour,
    )
    from costinsights.billing.pulled import BillingError, Change, NotAsked, OverCap, Pulled
    from costinsights.billing.puller import Loading, Plan, Puller, PullError
    from costinsights.billing.pulling import pull, sources
    from costinsights.billing.slices import Slice, Wanted

__all__ = [
    "Bill",
    "BillingError",
    "Change",
    "CostData",
    "Loading",
    "NotAsked",
    "OverCap",
    "Plan",
    "PullError",
    "Pulled",
    "Puller",
    "Slice",
    "Wanted",
    "get_cost_data_for_day",
    "get_cost_data_for_hour",
    "open_bill",
    "pull",
    "sources",
]

# A puller is no reason to load DuckDB.
_PLACES = {
    "Bill": "bill",
    "BillingError": "pulled",
    "Change": "pulled",
    "CostData": "costs",
    "Loading": "puller",
    "NotAsked": "pulled",
    "OverCap": "pulled",
    "Plan": "puller",
    "PullError": "puller",
    "Pulled": "pulled",
    "Puller": "puller",
    "Slice": "slices",
    "Wanted": "slices",
    "get_cost_data_for_day": "costs",
    "get_cost_data_for_hour": "costs",
    "open_bill": "bill",
    "pull": "pulling",
    "sources": "pulling",
}
__getattr__ = later(__name__, _PLACES)
