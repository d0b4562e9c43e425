"""`costinsights.billing.pull`: slices that are replaced whole, whatever happens half-way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights import config as configuration
from costinsights.billing import (
    BillingError,
    NotAsked,
    OverCap,
    Pulled,
    get_cost_data_for_day,
    open_bill,
    pull,
)
from costinsights.billing import slices as manifests
from costinsights.billing.bill import check
from costinsights.billing.loading import number
from costinsights.billing.puller import DAY, PullError
from costinsights.cli.checkup import pullers
from costinsights.ledger.reader import read_ledger
from costinsights.ledger.writer import LedgerError
from tests.pullers import NOW, TODAY, Acme, AcmePuller, day, line, refused

if TYPE_CHECKING:
    from collections.abc import Sequence

PRICE = """
[[price]]
key = "acme.bills.request"
provider = "own"
service = "Acme bills"
system = "acme.bills"
meter = "requests"
region = "everywhere"
regions = ["*"]
unit = "request"
price = "0.01"
currency = "USD"
as_of = "2026-11-01"
source = "our contract with Acme"
"""


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


@pytest.fixture
def acme() -> Acme:
    made = Acme()
    for back in range(1, 5):
        made.bill(day(back), f"{back}.10", "0.000000000000000001")
    return made


def run(ledger: str, acme: Acme, *window: datetime, **more: Any) -> Pulled:
    more.setdefault("now", NOW)
    more.setdefault("puller", AcmePuller(acme))
    return pull("acme", *window, ledger=ledger, **more)


def bill(ledger: str, columns: str = "ChargePeriodStart, BilledCost") -> list[tuple[Any, ...]]:
    with open_bill(ledger) as opened:
        return opened.fetch(f"SELECT {columns} FROM bill ORDER BY ALL")


def total(ledger: str) -> Decimal:
    [(found,)] = bill(ledger, "coalesce(sum(BilledCost), 0)")
    return Decimal(found)


# --- rows ----------------------------------------------------------------------------------------


def test_a_row_is_a_whole_focus_row(ledger: str) -> None:
    acme = Acme()
    acme.pages[day(1)] = [
        [
            line(
                day(1),
                "12.345678901234567890123",
                "AmazonS3",
                Tags={"team": "data", "env": "prod"},
                ConsumedQuantity=2.5,
                ChargePeriodStart="2026-11-22T05:00:00Z",
                ChargePeriodEnd=datetime(2026, 11, 22, 7, tzinfo=timezone(timedelta(hours=1))),
                x_Shelf="7",
                RegionId="",
            )
        ]
    ]
    run(ledger, acme, day(1))
    with open_bill(ledger) as opened:
        cursor = opened.connection.execute("SELECT * FROM bill")
        names = [str(column[0]) for column in cursor.description or ()]
        [row] = [dict(zip(names, found, strict=True)) for found in cursor.fetchall()]
    told = {name: value for name, value in row.items() if value is not None}
    cost = Decimal("12.345678901234567890")
    assert told == {
        "BilledCost": cost,
        "BillingAccountId": "acme-1",
        "BillingCurrency": "USD",
        "BillingPeriodStart": datetime(2026, 11, 1),
        "BillingPeriodEnd": datetime(2026, 12, 1),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": datetime(2026, 11, 22, 5),
        "ChargePeriodEnd": datetime(2026, 11, 22, 6),
        "ConsumedQuantity": Decimal("2.5"),
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "ListCost": cost,
        "HostProviderName": "Acme",
        "InvoiceIssuerName": "Acme",
        "ProviderName": "Acme",
        "PublisherName": "Acme",
        "ServiceProviderName": "Acme",
        "ServiceName": "AmazonS3",
        "ServiceCategory": "Storage",
        "ServiceSubcategory": "Object Storage",
        "Tags": '{"env":"prod","team":"data"}',
        "x_System": "aws.s3",
        "x_Shelf": "7",
    }


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"BilledCost": None}, "has no BilledCost"),
        ({"BilledCost": "a lot"}, "Could not convert"),
        ({"BilledCost": "1" + "0" * 30}, "Could not (cast|convert)"),
        ({"BillingCurrency": None}, "has no BillingCurrency"),
        ({"ServiceName": ""}, "has no ServiceName"),
        ({"ChargeCategory": "Bribe"}, "ChargeCategory that FOCUS does not know"),
        ({"ChargePeriodEnd": day(9)}, "ends before it begins"),
        ({"ChargePeriodStart": day(300), "ChargePeriodEnd": day(299)}, "of another period"),
        ({"Colour": "red"}, "Colour: no column of FOCUS"),
    ],
)
def test_a_row_that_is_not_as_it_should_be_stops_its_slice(
    ledger: str, wrong: dict[str, Any], why: str
) -> None:
    acme = Acme()
    acme.pages[day(1)] = [[line(day(1), "1"), {**line(day(1), "2"), **wrong}]]
    report = run(ledger, acme, day(1))
    assert report.published == 0
    [(slice_, reason)] = report.incomplete.items()
    assert slice_ == "acme.bills acme-1 2026-11-22"
    assert re.search(why, reason), reason
    assert bill(ledger) == []


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=18, min_value=-(10**19), max_value=10**19
    )
)
def test_a_number_is_exact_to_18_decimals(value: Decimal) -> None:
    assert Decimal(number(value)) == value
    assert Decimal(number(str(value))) == value
    assert "E" not in number(value)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18))
def test_a_binary_number_is_its_shortest_text(value: float) -> None:
    assert abs(Decimal(number(value)) - Decimal(repr(value))) <= Decimal("0.5e-18")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "NaN", "-Infinity", "five"])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(PullError):
        number(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  on purpose


def test_a_credit_is_less_than_nothing_and_a_day_without_a_line_is_a_day(ledger: str) -> None:
    acme = Acme()
    acme.bill(day(2), "-7.25", ChargeCategory="Credit")
    report = run(ledger, acme, day(3))
    assert (report.slices, report.published, report.rows) == (3, 3, 1)
    assert report.billed == {"USD": "-7.250000000000000000"}
    assert bill(ledger, "BilledCost, ChargeFrequency") == [(Decimal("-7.25"), "One-Time")]


def test_currencies_are_apart(ledger: str) -> None:
    acme = Acme()
    acme.pages[day(1)] = [[line(day(1), "1"), line(day(1), "2", BillingCurrency="EUR")]]
    report = run(ledger, acme, day(1))
    assert report.billed == {"EUR": "2.000000000000000000", "USD": "1.000000000000000000"}


# --- slices --------------------------------------------------------------------------------------


def test_twice_is_once_and_what_is_restated_takes_the_place_of_what_it_was(
    ledger: str, acme: Acme
) -> None:
    run(ledger, acme, day(4))
    before = total(ledger)
    run(ledger, acme, day(4))
    assert total(ledger) == before == Decimal("10.400000000000000004")
    acme.bill(day(3), "5.00")  # one line in place of two: one has gone, one is another
    report = run(ledger, acme, day(4))
    assert total(ledger) == before - Decimal("3.100000000000000001") + 5
    assert (report.changes, report.published) == ([], 4)  # it was not final: that is expected


def test_today_is_never_pulled_and_yesterday_is_provisional(ledger: str, acme: Acme) -> None:
    acme.bill(TODAY, "99")
    report = run(ledger, acme, day(2), NOW + DAY)
    assert (report.end, report.published, report.provisional) == (TODAY, 2, 1)
    states = {one.slice.start: one.state for one in manifests.load(ledger).slices}
    assert states == {day(2): "open", day(1): "provisional"}
    with pytest.raises(NotAsked, match="nothing to pull"):
        run(ledger, acme, TODAY)


def test_what_the_source_says_has_not_changed_is_not_pulled(ledger: str, acme: Acme) -> None:
    acme.versions = dict.fromkeys(acme.pages, "a")
    run(ledger, acme, day(4))
    acme.asked.clear()
    acme.versions[day(2)] = "b"
    report = run(ledger, acme, day(4))
    assert (report.unchanged, report.published) == (3, 1)
    assert {at for at, _ in acme.asked} == {day(2)}


def test_a_month_that_is_over_stays_closed(ledger: str) -> None:
    acme, october = Acme(), datetime(2026, 10, 7, tzinfo=timezone.utc)
    acme.bill(october, "5")
    run(ledger, acme, october, october + DAY)  # 23 days after the end of its month
    acme.bill(october, "4.5")
    acme.asked.clear()
    report = run(ledger, acme, october, october + DAY)
    assert (report.closed, report.published, acme.asked) == (1, 0, [])
    assert total(ledger) == 5
    report = run(ledger, acme, october, october + DAY, restate=True)
    [change] = report.changes
    assert change.slice == "acme.bills acme-1 2026-10-07"
    assert change.difference == {"USD": "-0.500000000000000000"}
    assert total(ledger) == Decimal("4.5")
    [published] = manifests.load(ledger).slices
    assert [one.billed["USD"][:3] for one in published.pulls] == ["5.0", "4.5"]


def test_a_closed_month_of_another_version_is_said(ledger: str) -> None:
    acme, october = Acme(), datetime(2026, 10, 7, tzinfo=timezone.utc)
    acme.bill(october, "5")
    acme.versions[october] = "a"
    run(ledger, acme, october, october + DAY)
    acme.versions[october] = "b"
    report = run(ledger, acme, october, october + DAY)
    assert report.moved == ["acme.bills acme-1 2026-10-07"]


@pytest.mark.parametrize(
    ("now", "begin"),
    [("2026-11-14", "2026-10-01"), ("2026-11-15", "2026-10-01"), ("2026-11-16", "2026-11-01")],
)
def test_without_a_beginning_all_is_pulled_that_may_change(
    ledger: str, now: str, begin: str
) -> None:
    at = datetime.fromisoformat(now).replace(hour=9, tzinfo=timezone.utc)
    report = run(ledger, Acme(), now=at)
    assert f"{report.start:%Y-%m-%d}" == begin


def test_a_day_that_was_never_closed_is_pulled_when_it_can_be(ledger: str) -> None:
    acme, old = Acme(), datetime(2026, 9, 30, tzinfo=timezone.utc)
    acme.bill(old, "1")
    run(ledger, acme, old, old + DAY, now=old + 2 * DAY)
    acme.bill(old, "2")  # and nobody ran until November
    report = run(ledger, acme)
    assert total(ledger) == 2
    assert report.slices == 23
    [state] = [one.state for one in manifests.load(ledger).slices if one.slice.start == old]
    assert state == "final"


WINDOWS = st.lists(
    st.tuples(st.integers(1, 12), st.integers(1, 6)).map(lambda pair: (pair[0], pair[0] - pair[1])),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(WINDOWS, st.randoms(use_true_random=False))
def test_any_order_of_overlapping_windows_gives_the_same_view(
    windows: list[tuple[int, int]], random: Any
) -> None:
    acme = Acme()
    for back in range(1, 13):
        acme.bill(day(back), *(f"{back}.{page}" for page in range(back % 3)))
    orders = [windows, random.sample(windows, len(windows)), [*windows, *windows]]
    seen: list[object] = []
    for order in orders:
        with TemporaryDirectory() as folder:
            for begin, end in order:
                run(folder, acme, day(begin), day(max(0, end)))
            seen.append(bill(folder))
    assert all(one == other for one, other in pairwise(seen))
    days = {back for begin, end in windows for back in range(begin, max(0, end), -1)}
    assert len(seen[0]) == sum(back % 3 for back in days)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  a list


def test_of_the_same_money_from_two_sources_one_counts(ledger: str, acme: Acme) -> None:
    class Exports(AcmePuller):
        system = "acme.exports"
        rank = 1

    acme.bill(day(2), "2", "3", service="Acme Object Store")
    run(ledger, acme, day(2))
    run(ledger, acme, day(2), resource="shelf-7")  # a part of it, asked for on its own
    assert total(ledger) == 5 + Decimal("1.100000000000000001")
    acme.pages[day(2)] = [[line(day(2), "4.9"), line(day(2), "1", service="Acme Compute")]]
    run(ledger, acme, day(2), day(1), puller=Exports(acme))
    # On the day that the export has, it counts; the day after it, what the API said.
    assert total(ledger) == Decimal("5.9") + Decimal("1.100000000000000001")


# --- half-way ------------------------------------------------------------------------------------


def test_what_breaks_off_leaves_the_slice_as_it_was_and_the_next_run_goes_on(
    ledger: str, acme: Acme
) -> None:
    run(ledger, acme, day(4))
    before = bill(ledger)
    acme.bill(day(3), "7", "8", "9")
    acme.fails = lambda at, page: refused() if (at, page) == (day(3), 2) else None
    report = run(ledger, acme, day(4))
    assert report.incomplete == {"acme.bills acme-1 2026-11-20": "acme.bills: Throttled, 8 times"}
    assert report.failed == "acme.bills: Throttled, 8 times"
    assert bill(ledger) == before
    assert manifests.load(ledger).incomplete == report.incomplete
    acme.asked.clear()
    acme.fails = lambda _at, _page: None
    report = run(ledger, acme, day(4))
    assert not report.failed
    assert [page for at, page in acme.asked if at == day(3)] == [2]  # two were there already
    assert manifests.load(ledger).incomplete == {}
    assert total(ledger) == sum(Decimal(cost) for _, cost in before) - Decimal(
        "3.1"
    ) + 24 - Decimal("1e-18")


def test_a_broken_off_pull_is_not_taken_up_for_another_version(ledger: str, acme: Acme) -> None:
    acme.bill(day(3), "7", "8", "9")
    acme.versions[day(3)] = "a"
    acme.fails = lambda at, page: refused() if (at, page) == (day(3), 2) else None
    run(ledger, acme, day(3), day(2))
    acme.versions[day(3)], acme.fails = "b", lambda _at, _page: None
    acme.bill(day(3), "1", "2", "3")
    run(ledger, acme, day(3), day(2))
    assert total(ledger) == 6


def test_what_changes_while_it_is_read_is_not_published(ledger: str, acme: Acme) -> None:
    acme.bill(day(3), "7", "8")
    acme.versions[day(3)] = "a"

    def restated(at: datetime, page: int) -> None:
        acme.versions[at] = "b" if page else "a"

    acme.fails = restated
    report = run(ledger, acme, day(3), day(2))
    assert "has changed while it was read" in report.failed
    assert bill(ledger) == []


def test_one_account_that_is_denied_stops_no_other(ledger: str, acme: Acme) -> None:
    class Denied(AcmePuller):
        def accounts(self) -> Sequence[AcmePuller]:
            return [Denied(self.acme, f"acme-{one}") for one in range(1, 9)]

        def pull(self, slice: Any, into: Any) -> None:  # noqa: A002
            if self.account == "acme-3":
                raise self.denied("its bill")
            super().pull(slice, into)

    report = run(ledger, acme, day(2), puller=Denied(acme))
    assert report.accounts == 8
    assert (report.slices, report.published) == (16, 14)
    assert list(report.incomplete) == ["acme.bills acme-3 2026-11-21"]
    assert report.grant == '{"bills": "read"}'
    assert total(ledger) == 7 * Decimal("3.200000000000000002")


def test_a_run_beside_another_does_not_touch_its_slice(ledger: str, acme: Acme) -> None:
    inner: list[Pulled] = []

    def meanwhile(at: datetime, page: int) -> None:
        if not inner and page == 1:
            other = Acme(pages={at: [[line(at, "50")]]})
            inner.append(run(ledger, other, at, at + DAY))

    acme.fails = meanwhile
    report = run(ledger, acme, day(2), day(1))
    assert "another run is pulling this very slice" in inner[0].failed
    assert not report.failed
    assert total(ledger) == Decimal("2.100000000000000001")


KILLED = """
import os, sys
from tests.pullers import NOW, Acme, AcmePuller, day
from costinsights.billing import pull

acme = Acme()
for back in range(1, 5):
    acme.bill(day(back), *(["0.25"] * 3))
made = 0
def count():
    global made
    made += 1
    if made == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
opened, replaced = os.open, os.replace
os.open = lambda *a, **k: (count(), opened(*a, **k))[1]
os.replace = lambda *a, **k: (count(), replaced(*a, **k))[1]
pull("acme", day(4), ledger=sys.argv[1], puller=AcmePuller(acme), now=NOW)
"""


@pytest.mark.slow
def test_killed_anywhere_it_is_as_it_was_or_as_it_is(tmp_path: Path) -> None:
    ended = False
    for at in range(1, 400, 23):
        ledger = str(tmp_path / f"ledger-{at}")
        done = subprocess.run(
            [sys.executable, "-c", KILLED, ledger, str(at)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": "."},
            check=False,
        )
        ended = done.returncode == 0
        if ended:
            break
        assert done.returncode == -signal.SIGKILL
        found = bill(ledger)
        assert len(found) % 3 == 0  # whole slices only
        acme = Acme()
        for back in range(1, 5):
            acme.bill(day(back), *(["0.25"] * 3))
        assert not run(ledger, acme, day(4)).failed
        assert total(ledger) == 3
        assert len(bill(ledger)) == 12
    assert ended, "it was never let go to its end"


def test_a_file_that_is_gone_is_said(ledger: str, acme: Acme) -> None:
    run(ledger, acme, day(1))
    [published] = manifests.load(ledger).slices
    (Path(manifests.folder(ledger)) / published.path).unlink()
    with pytest.raises(LedgerError, match="--restate"):
        bill(ledger)


def test_what_is_damaged_is_found(ledger: str, acme: Acme) -> None:
    run(ledger, acme, day(3))
    assert check(ledger) == (3, [])
    place = Path(manifests.folder(ledger))
    gone, cut, other = (place / one.path for one in manifests.load(ledger).slices)
    other_size = other.stat().st_size
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    other.write_bytes(b"x" * other_size)
    _, damage = check(ledger)
    assert [
        str(place / one.path) in text
        for one, text in zip(manifests.load(ledger).slices, damage, strict=True)
    ] == [True] * 3
    for text, said in zip(
        damage, ("is missing", "bytes instead of", "cannot be read"), strict=True
    ):
        assert said in text


def test_files_are_their_owners_only(ledger: str, acme: Acme) -> None:
    acme.fails = lambda at, page: refused() if (at, page) == (day(1), 1) else None
    run(ledger, acme, day(2))
    for folder, folders, files in os.walk(ledger):
        modes = {os.stat(os.path.join(folder, name)).st_mode & 0o777 for name in files}
        assert modes <= {0o600}, (folder, files)
        assert {os.stat(os.path.join(folder, name)).st_mode & 0o777 for name in folders} <= {0o700}


# --- what it costs to look -----------------------------------------------------------------------


def test_looking_has_a_price_a_limit_and_a_charge(ledger: str, acme: Acme, tmp_path: Path) -> None:
    book = tmp_path / "prices.toml"
    book.write_text(PRICE)

    class Paid(AcmePuller):
        def pull(self, slice: Any, into: Any) -> None:  # noqa: A002
            super().pull(slice, into)
            self.spent["requests"] = self.requests

    config = {"price_books": [str(book)]}
    said: list[str] = []
    with pytest.raises(OverCap, match=r"up to 0\.04 USD, more than the 0\.03"):
        run(
            ledger,
            acme,
            day(4),
            puller=Paid(acme),
            config=config,
            cap=Decimal("0.03"),
            said=said.extend,
        )
    assert said == ["4 days of acme-1", "That costs 0.04 USD at most."]
    report = run(ledger, acme, day(4), puller=Paid(acme), config=config)
    assert (report.requests, report.cost, report.currency) == (8, "0.080000000000000", "USD")
    [charge] = list(read_ledger(ledger))
    assert (charge.system, charge.operation, charge.amount, charge.basis) == (
        "acme.bills",
        "PULL",
        "0.080000000000000",
        "metered",
    )
    assert charge.attribution == {"costinsights.self": "pull", "rule": "self"}
    # More than was said beforehand: it stops where the limit is, and what it has is kept.
    report = run(
        ledger, acme, day(4), puller=Paid(acme), config=config, cap=Decimal("0.05"), restate=True
    )
    assert "looking has cost 0.06 USD so far, more than the 0.05" in report.failed
    assert report.published == 3


def test_a_dry_run_says_it_and_reads_nothing(ledger: str, acme: Acme) -> None:
    report = run(ledger, acme, day(4), dry_run=True)
    assert (report.dry_run, report.slices, report.published, acme.asked) == (True, 4, 0, [])
    assert report.plan[0] == "4 days of acme-1"


def test_doctor_says_what_is_there(ledger: str, acme: Acme) -> None:
    class Focus(AcmePuller):
        system = "focus"

    acme.fails = lambda at, page: refused() if at == day(1) else None
    run(ledger, acme, day(3), puller=Focus(acme))
    looked_at = pullers(configuration.load(ledger=ledger))
    [found] = [one for one in looked_at if one.puller == "focus"]
    assert (found.state, found.slices, found.newest, found.incomplete) == (
        "not configured",
        {"open": 2},
        "2026-11-22",
        1,
    )


# --- asking for it -------------------------------------------------------------------------------


def test_a_source_that_is_not_there_is_said(ledger: str) -> None:
    with pytest.raises(NotAsked, match=r"there is no source 'acme\.storag'"):
        pull("acme.storag", day(2), ledger=ledger)
    with pytest.raises(NotAsked, match=r"acme\.bills has daily figures only"):
        run(ledger, Acme(), day(2), granularity="hourly")


def test_a_secret_of_the_environment_is_in_no_message(
    ledger: str, acme: Acme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_TOKEN", "hunter2-77ac")
    puller = AcmePuller(acme, token="${ACME_TOKEN}")
    acme.fails = lambda _at, _page: PullError("no entry for hunter2-77ac")
    report = run(ledger, acme, day(1), puller=puller)
    assert report.failed == "no entry for …"
    assert "hunter2" not in str(manifests.load(ledger))


class OtherPuller(AcmePuller):
    """Another provider's bill in the same ledger."""

    system = "other.bills"
    provider = "Other"
    answers: ClassVar[dict[str, str]] = {"other": ""}


def test_another_providers_bill_is_not_counted(ledger: str, acme: Acme) -> None:
    others = Acme()
    others.bill(day(3), "100")
    other = get_cost_data_for_day(
        "other", day(3), ledger=ledger, puller=OtherPuller(others, "other-1"), now=NOW
    )
    assert other.billed == {"USD": Decimal(100)}
    found = get_cost_data_for_day("acme", day(3), ledger=ledger, puller=AcmePuller(acme), now=NOW)
    assert found.billed == {"USD": Decimal("3.100000000000000001")}


def test_one_call_gives_the_cost_of_a_day(ledger: str, acme: Acme) -> None:
    found = get_cost_data_for_day(
        "acme", day(3).replace(hour=13), ledger=ledger, puller=AcmePuller(acme), now=NOW
    )
    assert (found.start, found.end, found.state) == (day(3), day(2), "open")
    assert found.billed == {"USD": Decimal("3.100000000000000001")}
    assert [row["BilledCost"] for row in found.rows] == [
        Decimal("0.000000000000000001"),
        Decimal("3.1"),
    ]
    acme.bill(day(2), "1")
    acme.fails = lambda _at, _page: refused()
    with pytest.raises(BillingError, match="Throttled"):
        get_cost_data_for_day("acme", day(2), ledger=ledger, puller=AcmePuller(acme), now=NOW)
