"""A provider whose bill is seeded: what a puller of a real one would find, given by the test."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from costinsights.billing.puller import DAY, Plan, Puller, PullError, Slice, days

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costinsights.billing.puller import Loading

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=timezone.utc)
TODAY = NOW.replace(hour=0, minute=0)


def day(number: int) -> datetime:
    """Midnight of so many days before today."""
    return TODAY - number * DAY


def line(
    at: datetime, cost: str, service: str = "Acme Object Store", **more: Any
) -> dict[str, Any]:
    """A line of the bill, of one day."""
    return {
        "BilledCost": cost,
        "BillingCurrency": "USD",
        "BillingAccountId": "acme-1",
        "ChargePeriodStart": at,
        "ChargePeriodEnd": at + DAY,
        "ServiceName": service,
        **more,
    }


@dataclass
class Acme:
    """What the provider has: pages of lines by day, and what goes wrong when it is asked."""

    pages: dict[datetime, list[list[dict[str, Any]]]] = field(
        default_factory=dict[datetime, list[list[dict[str, Any]]]]
    )
    versions: dict[datetime, str] = field(default_factory=dict[datetime, str])
    asked: list[tuple[datetime, int]] = field(default_factory=list[tuple[datetime, int]])
    """Every page that was asked for: its day, and which it was."""
    fails: Callable[[datetime, int], Exception | None] = lambda _at, _page: None

    def bill(self, at: datetime, *costs: str, **more: Any) -> None:
        """Have one page a cost on a day."""
        self.pages[at] = [[line(at, cost, **more)] for cost in costs]


class AcmeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str = ""


class AcmePuller(Puller):
    """Pulls Acme's bill page by page, and goes on where it was thrown out."""

    system = "acme.bills"
    provider = "Acme"
    answers = {"acme": "", "acme.storage": "Acme Object Store"}
    grants = '{"bills": "read"}'

    Options = AcmeOptions

    def __init__(self, acme: Acme, account: str = "acme-1", **options: object) -> None:
        super().__init__(options)
        self.acme, self.account = acme, account

    def slices(self, start: datetime, end: datetime) -> Sequence[Slice]:
        return [
            Slice(self.system, self.account, *bounds, self.wanted.text)
            for bounds in days(start, end)
        ]

    def version(self, slice: Slice) -> str | None:  # noqa: A002
        return self.acme.versions.get(slice.start)

    def plan(self, slices: Sequence[Slice]) -> Plan:
        return Plan((f"{len(slices)} days of {self.account}",), {"requests": len(slices)})

    def pull(self, slice: Slice, into: Loading) -> None:  # noqa: A002
        pages = self.acme.pages.get(slice.start, [])
        for number in range(int(into.resumed or 0), len(pages)):
            self.acme.asked.append((slice.start, number))
            self.spend(requests=1)
            error = self.acme.fails(slice.start, number)
            if error is not None:
                raise error
            last = number + 1 == len(pages)
            rows = [{**row, "BillingAccountId": self.account} for row in pages[number]]
            into.rows(rows, None if last else str(number + 1))


def refused() -> PullError:
    """The provider has had enough."""
    return PullError("acme.bills: Throttled, 8 times")
