"""Databricks' list prices: ``system.billing.list_prices``, asked as settlement asks.

On the warehouse of ``[settle.databricks]``, which that wakes; with its credentials and its grants.
"""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from costinsights.pricing.refreshing.fetching import RefreshError
from costinsights.pricing.refreshing.offers import Offer, Tier, fits
from costinsights.settlement.databricks import DatabricksHistory
from costinsights.settlement.databricks_tables import PRICES, literal, moment
from costinsights.settlement.history import MARK, HistoryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.pricing.refreshing.offers import Wanted

SOURCE = "system.billing.list_prices"


class DatabricksPrices:
    """Reads the table."""

    def __init__(self, options: Mapping[str, object], now: datetime | None = None) -> None:
        """Take ``[settle.databricks]`` of the configuration.

        Raises:
            RefreshError: an option is missing or wrong.
        """
        try:
            self._history = DatabricksHistory(options)
        except HistoryError as error:
            raise RefreshError(str(error)) from None
        self._now = now or datetime.now(timezone.utc)

    def offers(self, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, list[Offer]]]:
        """Yield each wanted price with all that fits it.

        Raises:
            RefreshError: the table cannot be read.
        """
        found: list[list[Offer]] = [[] for _ in wanted]
        try:
            self._history.open()
            query = PRICES.format(since=literal(self._now), mark=MARK)
            for sku, cloud, unit, start, end, currency, price in self._history.ask(
                query, "list_prices"
            ):
                if not self._in_force(start, end):
                    continue
                for one, into in zip(wanted, found, strict=True):
                    attributes = {"sku_name": sku or "", "cloud": cloud or ""}
                    if one.lookup.service == cloud and fits(one.lookup, one.region, attributes):
                        into.append(_offer(sku, cloud, unit, currency, price))
        except HistoryError as error:
            raise RefreshError(
                self._history.without_secrets(str(error)), grant=error.grant
            ) from None
        finally:
            self._history.close()
        yield from zip(wanted, found, strict=True)

    def _in_force(self, start: str | None, end: str | None) -> bool:
        return (start is None or moment(start) <= self._now) and (
            end is None or self._now < moment(end)
        )


def _offer(
    sku: str | None, cloud: str | None, unit: str | None, currency: str | None, price: str | None
) -> Offer:
    try:
        amount = Decimal(price or "")
    except InvalidOperation:
        raise RefreshError(f"{SOURCE}: {sku} has no price that is a number") from None
    tiers = (Tier(Decimal(0), amount),)
    return Offer(f"{sku} on {cloud}", unit or "", currency or "", tiers, SOURCE)
