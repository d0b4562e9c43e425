"""`costinsights pull azure` from Cost Management's exports, on the disk."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import asking
from costinsights.billing import Pulled, open_bill, pull
from costinsights.billing.azure_exports import AzureExportsPuller
from costinsights.billing.puller import DAY, PullError
from tests.servers.azure_export_files import (
    BILLING,
    EA,
    LAKE,
    MACHINE,
    MCA,
    OCTOBER,
    SUBSCRIPTION,
    Container,
    classic,
    day,
    focus,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=timezone.utc)
NOVEMBER = datetime(2026, 11, 1, tzinfo=timezone.utc)


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    waits: list[float] = []
    monkeypatch.setattr(asking, "sleep", waits.append)
    return Container(tmp_path / "container")


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def run(place: Container, ledger: str, **more: Any) -> Pulled:
    url = str(place.root)
    options = {"url": url, **more.pop("options", {})}
    source = more.pop("source", "azure")
    more.setdefault("start", NOVEMBER)
    more.setdefault("now", NOW)
    puller = more.pop("puller", AzureExportsPuller)(options)
    return pull(source, ledger=ledger, puller=puller, **more)


def bill(ledger: str, columns: str) -> list[tuple[Any, ...]]:
    with open_bill(ledger) as opened:
        return opened.fetch(f"SELECT {columns} FROM bill ORDER BY ALL")


def total(ledger: str, column: str = "BilledCost") -> Decimal:
    [(found,)] = bill(ledger, f"coalesce(sum({column}), 0)")
    return Decimal(found)


# --- FOCUS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "csv.gz", "snappy.parquet"])
def test_a_focus_export_in_parts(container: Container, ledger: str, form: str) -> None:
    out = {"SkuMeter": "Standard Data Transfer Out", "x_SkuMeterCategory": "Bandwidth"}
    parts = [
        [focus(day(1), "1.234567890123456789"), focus(day(2), "-0.5", ChargeCategory="Credit")],
        [focus(day(3), "0.25", ServiceName="Bandwidth", x_SkuMeterSubcategory="", **out)],
    ]
    container.run("FocusCost", *parts, form=form)
    report = run(container, ledger)
    assert (report.failed, report.published, report.rows) == ("", 1, 3)
    assert [line.partition(":")[0] for line in report.plan] == [f"FocusCost of {BILLING}, 2026-11"]
    assert total(ledger) == Decimal("0.984567890123456789")
    assert bill(
        ledger,
        "ChargePeriodStart, x_UsageKind, x_StorageClass, x_System, ServiceName, x_ResourceGroupName",
    ) == [
        (datetime(2026, 11, 1), "storage", "Hot", "azure.storage", "Storage Accounts", "lake"),
        (datetime(2026, 11, 2), "storage", "Hot", "azure.storage", "Storage Accounts", "lake"),
        (datetime(2026, 11, 3), "transfer_internet", None, "azure.storage", "Bandwidth", "lake"),
    ]
    [(period_end,)] = bill(ledger, "DISTINCT BillingPeriodEnd")
    assert period_end == datetime(2026, 12, 1)


def test_what_has_not_changed_is_not_read(container: Container, ledger: str) -> None:
    folder = container.run("FocusCost", [focus(day(1), "1")])
    run(container, ledger)
    (folder / "part_0_0001.csv.gz").unlink()
    report = run(container, ledger)
    assert (report.failed, report.published, report.unchanged) == ("", 0, 1)


def test_the_newest_run_counts_where_each_has_a_folder(container: Container, ledger: str) -> None:
    rows = [focus(day(1), "1"), focus(day(20), "5")]
    container.run("FocusCost", rows[:1], submitted="2026-11-03T04:00:00Z", end="2026-11-02")
    container.run("FocusCost", rows, submitted="2026-11-22T04:00:00Z", end="2026-11-21")
    container.run("FocusCost", rows[:1], submitted="2026-11-23T04:00:00Z", end="2026-11-02")
    run(container, ledger)
    assert total(ledger) == 6
    container.run("FocusCost", [focus(day(1), "1.5"), *rows[1:]], submitted="2026-11-23T05:00:00Z")
    report = run(container, ledger)
    assert (report.published, report.unchanged) == (1, 0)
    assert total(ledger) == Decimal("6.5")


def test_a_run_that_is_written_over_the_last_one(container: Container, ledger: str) -> None:
    container.run("FocusCost", [focus(day(1), "1")], overwrite=True)
    run(container, ledger)
    container.run("FocusCost", [focus(day(1), "2")], overwrite=True)
    assert run(container, ledger).published == 1
    assert total(ledger) == 2


def test_months_and_scopes_are_slices(container: Container, ledger: str) -> None:
    other = f"/subscriptions/{SUBSCRIPTION}"
    container.run("FocusCost", [focus(day(1), "1")])
    container.run(
        "FocusCost",
        [focus(day(31, 10), "10", **OCTOBER)],
        start="2026-10-01",
        end="2026-10-31",
        submitted="2026-11-05T04:00:00Z",
    )
    container.run("FocusCost", [focus(day(2), "100")], scope=other)
    report = run(container, ledger, start=datetime(2026, 10, 15, tzinfo=timezone.utc))
    assert (report.failed, report.published) == ("", 3)
    assert total(ledger) == 111
    assert run(container, ledger, start=datetime(2026, 10, 1, tzinfo=timezone.utc)).closed == 1


def test_a_month_that_was_left_open_is_pulled_for_the_last_time(
    container: Container, ledger: str
) -> None:
    period: dict[str, Any] = {"start": "2026-10-01", "end": "2026-10-31"}
    rows = [focus(day(31, 10), "10", **OCTOBER)]
    folder = container.run("FocusCost", rows, submitted="2026-11-03T04:00:00Z", **period)
    third = datetime(2026, 11, 3, 9, tzinfo=timezone.utc)
    run(container, ledger, start=datetime(2026, 10, 1, tzinfo=timezone.utc), now=third)
    rows.append(focus(day(31, 10), "0.5", **OCTOBER))
    container.run("FocusCost", rows, submitted="2026-11-05T04:00:00Z", **period)
    container.run("FocusCost", [focus(day(1), "1")])
    assert run(container, ledger, start=None).published == 2
    assert total(ledger) == Decimal("11.5")
    assert run(container, ledger, start=datetime(2026, 10, 1, tzinfo=timezone.utc)).closed == 1
    assert folder.exists()


def test_a_month_whose_files_are_gone_stays_what_it_was(container: Container, ledger: str) -> None:
    period: dict[str, Any] = {"start": "2026-10-01", "end": "2026-10-31"}
    rows = [focus(day(31, 10), "10", **OCTOBER)]
    folder = container.run("FocusCost", rows, submitted="2026-11-03T04:00:00Z", **period)
    third = datetime(2026, 11, 3, 9, tzinfo=timezone.utc)
    run(container, ledger, start=datetime(2026, 10, 1, tzinfo=timezone.utc), now=third)
    shutil.rmtree(folder)
    container.run("FocusCost", [focus(day(1), "1")])
    report = run(container, ledger, start=None)
    assert (report.failed, report.published, report.unchanged) == ("", 1, 1)
    assert total(ledger) == 11


def test_one_run_of_several_months(container: Container, ledger: str) -> None:
    rows = [focus(day(3, 9), "1"), focus(day(4, 10), "10"), focus(day(5), "100")]
    container.run("FocusCost", rows, start="2026-09-01", end="2026-11-22")
    report = run(container, ledger, start=datetime(2026, 9, 1, tzinfo=timezone.utc))
    assert (report.published, report.rows) == (3, 3)
    assert bill(ledger, "ChargePeriodStart, BilledCost") == [
        (datetime(2026, 9, 3), Decimal(1)),
        (datetime(2026, 10, 4), Decimal(10)),
        (datetime(2026, 11, 5), Decimal(100)),
    ]


def test_a_run_that_lacks_a_month_s_beginning_is_no_month(
    container: Container, ledger: str
) -> None:
    container.run("FocusCost", [focus(day(10), "1")], start="2026-11-10")
    report = run(container, ledger)
    assert report.published == 0
    assert report.notes == [f"{BILLING}: no run of an export has 2026-11 from its first day on"]


def test_today_is_held_back(container: Container, ledger: str) -> None:
    container.run("FocusCost", [focus(day(22), "1"), focus(day(23), "2")], end="2026-11-23")
    report = run(container, ledger)
    assert (report.rows, report.held_back) == (1, 1)
    assert run(container, ledger, now=NOW + DAY).published == 1
    assert total(ledger) == 3


def test_storage_alone_and_one_account(container: Container, ledger: str, tmp_path: Path) -> None:
    machine = {"ResourceId": MACHINE, "ResourceName": "vm", "SkuMeter": "x"}
    rows = [
        focus(day(1), "1"),
        focus(day(1), "2", ResourceId=LAKE.replace("lake1", "lake2"), ResourceName="lake2"),
        focus(day(1), "4", ServiceName="Bandwidth", x_SkuMeterCategory="Bandwidth"),
        focus(day(1), "8", ServiceName="Bandwidth", x_SkuMeterCategory="Bandwidth", **machine),
        focus(
            day(1),
            "16",
            ServiceName="Virtual Machines",
            x_SkuMeterCategory="Virtual Machines",
            **machine,
        ),
    ]
    container.run("FocusCost", rows)
    run(container, ledger, source="azure.storage")
    assert total(ledger) == 7
    for number, (more, expected) in enumerate(
        [
            ({"source": "azure.storage", "resource": "LAKE1"}, 5),
            ({"resource": MACHINE}, 24),
            ({"service": "Virtual Machines"}, 16),
        ]
    ):
        other = str(tmp_path / f"other{number}")
        run(container, other, **more)
        assert total(other) == expected


# --- actual and amortized ------------------------------------------------------------------------


def test_actual_costs_of_a_customer_agreement(container: Container, ledger: str) -> None:
    rows = [
        classic(MCA, day(1), "1.25"),
        classic(MCA, day(2), "1.2E-05", meterName="Hot Read Operations", unitOfMeasure="10K"),
        classic(MCA, day(3), "-2", chargeType="Refund", frequency="OneTime", tags=""),
        classic(MCA, day(4), "3", meterCategory="Unassigned", consumedService="", publisherName="Acme"),
    ]  # fmt: skip
    container.run("ActualCost", rows, header=MCA)
    report = run(container, ledger)
    assert (report.failed, report.rows) == ("", 4)
    assert bill(
        ledger,
        "ChargePeriodStart, BilledCost, EffectiveCost, ListCost, ServiceName, x_UsageKind, "
        "ChargeCategory, ChargeClass, ChargeFrequency",
    ) == [
        (datetime(2026, 11, 1), Decimal("1.25"), Decimal("1.25"), Decimal("1.25"),
         "Storage", "storage", "Usage", None, "Usage-Based"),
        (datetime(2026, 11, 2), Decimal("0.000012"), Decimal("0.000012"), Decimal("0.000012"),
         "Storage", "requests", "Usage", None, "Usage-Based"),
        (datetime(2026, 11, 3), Decimal(-2), Decimal(-2), Decimal(-2),
         "Storage", "storage", "Purchase", "Correction", "One-Time"),
        (datetime(2026, 11, 4), Decimal(3), Decimal(3), Decimal(3),
         "Acme", None, "Usage", None, "Usage-Based"),
    ]  # fmt: skip
    row, *_ = bill(
        ledger,
        "ChargePeriodStart, BillingAccountId, x_BillingAccountId, BillingAccountName, SubAccountId, "
        "RegionId, RegionName, BillingPeriodStart, BillingPeriodEnd, ProviderName, "
        "x_PricingUnitDescription, ConsumedQuantity, ConsumedUnit, ListUnitPrice, "
        "ContractedUnitPrice, Tags, x_System",
    )
    assert row[0] == datetime(2026, 11, 1)
    assert row[1:] == (
        "ABCD-EFGH",
        "1234567",
        "Contoso IT",
        f"/subscriptions/{SUBSCRIPTION}",
        "westeurope",
        "West Europe",
        datetime(2026, 11, 1),
        datetime(2026, 12, 1),
        "Microsoft",
        "1 GB/Month",
        Decimal("2.5"),
        "GB-Months",
        Decimal("0.6"),
        Decimal("0.5"),
        '{"team": "data"}',
        "azure.storage",
    )


def reserved(header: Sequence[str], number: int, cost: str, **more: str) -> dict[str, str]:
    benefit = "/providers/Microsoft.Capacity/reservationOrders/1/reservations/2"
    return classic(header, day(number), cost, pricingModel="Reservation", benefitId=benefit, **more)


def test_actual_and_amortized_make_one_bill(container: Container, ledger: str) -> None:
    """What was paid for a reservation is billed, what it was used for is effective."""
    actual = [
        classic(EA, day(1), "5"),
        reserved(EA, 1, "90", chargeType="Purchase", frequency="OneTime"),
        reserved(EA, 2, "0"),
        classic(EA, day(3), "0.01", chargeType="RoundingAdjustment"),
    ]
    amortized = [
        classic(EA, day(1), "5"),
        reserved(EA, 2, "2"),
        reserved(EA, 2, "1", chargeType="UnusedReservation"),
        classic(EA, day(3), "0.01", chargeType="RoundingAdjustment"),
    ]
    container.run("ActualCost", actual, header=EA)
    container.run("AmortizedCost", amortized[:2], amortized[2:], header=EA)
    report = run(container, ledger)
    assert (report.failed, report.rows, report.notes) == ("", 5, [])
    assert total(ledger) == sum(Decimal(row["CostInBillingCurrency"]) for row in actual)
    effective = sum(Decimal(row["CostInBillingCurrency"]) for row in amortized)
    assert total(ledger, "EffectiveCost") == effective
    assert bill(
        ledger,
        "BilledCost, EffectiveCost, ChargeCategory, CommitmentDiscountStatus, "
        "CommitmentDiscountCategory, PricingCategory",
    ) == [
        (Decimal(0), Decimal(1), "Usage", "Unused", "Usage", "Committed"),
        (Decimal(0), Decimal(2), "Usage", "Used", "Usage", "Committed"),
        (Decimal("0.01"), Decimal("0.01"), "Adjustment", None, None, "Standard"),
        (Decimal(5), Decimal(5), "Usage", None, None, "Standard"),
        (Decimal(90), Decimal(0), "Purchase", None, "Usage", "Committed"),
    ]


def test_amortized_costs_alone_are_not_the_whole_bill(container: Container, ledger: str) -> None:
    container.run("AmortizedCost", [classic(EA, day(1), "5"), reserved(EA, 2, "2")], header=EA)
    report = run(container, ledger)
    assert "amortized costs alone" in report.notes[0]
    assert total(ledger) == 5
    assert total(ledger, "EffectiveCost") == 7


def test_focus_counts_before_the_others(container: Container, ledger: str) -> None:
    container.run("ActualCost", [classic(EA, day(1), "5")], header=EA)
    container.run("FocusCost", [focus(day(1), "6")])
    container.run("PriceSheet", [{"a": "b"}])
    run(container, ledger)
    assert total(ledger) == 6


def test_columns_that_are_new_are_kept_and_currencies_stay(
    container: Container, ledger: str
) -> None:
    header = [*MCA, "skyColour"]
    rows = [
        {**classic(MCA, day(1), "5"), "skyColour": "blue"},
        {**classic(MCA, day(1), "7"), "billingCurrency": "USD"},
    ]
    container.run("ActualCost", rows, header=header)
    report = run(container, ledger)
    assert report.billed == {"EUR": f"{5:.18f}", "USD": f"{7:.18f}"}
    assert bill(ledger, "x_skyColour") == [("blue",), (None,)]


# --- what goes wrong -----------------------------------------------------------------------------


def fails(container: Container, ledger: str, word: str, **more: Any) -> Pulled:
    """Pull in vain: nothing is published."""
    report = run(container, ledger, **more)
    assert (report.published, word in report.failed) == (0, True), report.failed
    return report


def changed(**changes: Any) -> Any:
    """Say otherwise in a manifest: of its first file, of its run, or (also as `rows`) of all."""

    def edit(manifest: dict[str, Any]) -> None:
        for name, value in changes.items():
            for table in (manifest["blobs"][0], manifest["runInfo"], manifest):
                if name in table:
                    table[name] = value
                    break
        manifest["dataRowCount"] = changes.get("rows", manifest["dataRowCount"])

    return edit


BAD_MANIFESTS: dict[str, tuple[Any, str]] = {
    "a file that is not there": (
        changed(blobName="exports/x/part_7_0001.csv.gz"),
        "which is not there",
    ),
    "a file outside": (changed(blobName="../../../etc/passwd"), "which is not there"),
    "fewer bytes": (changed(byteCount=7), "its manifest says 7"),
    "more rows": (changed(dataRowCount=3), "its files have 3 rows"),
    "more rows than there are": (changed(dataRowCount=3, rows=3), "its manifest says 3"),
    "more files": (changed(blobCount=2), "names 1 files and says 2"),
    "no period": (changed(startDate="soon"), "its period is none"),
    "no files": (changed(blobs=None), "cannot be read"),
}


@pytest.mark.parametrize("what", BAD_MANIFESTS)
def test_a_manifest_that_cannot_be(container: Container, ledger: str, what: str) -> None:
    edit, word = BAD_MANIFESTS[what]
    container.run("FocusCost", [focus(day(1), "2"), focus(day(2), "3")], edit=edit)
    fails(container, ledger, word)


def test_a_month_that_cannot_be_read_stays_what_it_was(container: Container, ledger: str) -> None:
    container.run("FocusCost", [focus(day(1), "1")], submitted="2026-11-22T04:00:00Z")
    run(container, ledger)
    rows = [focus(day(1), "2"), focus(day(2), "3")]
    folder = container.run("FocusCost", rows, edit=changed(byteCount=7))
    assert fails(container, ledger, "its manifest says 7").incomplete
    assert total(ledger) == 1
    shutil.rmtree(folder)
    container.run("FocusCost", rows)
    assert run(container, ledger).published == 1
    assert total(ledger) == 5


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "FOCUS without a cost": (("FocusCost", focus(day(1), "")), "BilledCost"),
    "FOCUS with no number": (("FocusCost", focus(day(1), "a lot")), "row 1: BilledCost"),
    "FOCUS without a currency": (
        ("FocusCost", focus(day(1), "1", BillingCurrency="")),
        "BillingCurrency",
    ),
    "no cost": (("ActualCost", classic(MCA, day(1), "")), "a row has no BilledCost"),
    "no number": (("ActualCost", classic(MCA, day(1), "NaN")), "NaN"),
    "no currency": (
        ("ActualCost", classic(MCA, day(1), "1", billingCurrency="")),
        "has no BillingCurrency",
    ),
    "no date": (("ActualCost", classic(MCA, day(1), "1", date="31.10.2026")), "a date is none"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_line_that_cannot_be(container: Container, ledger: str, what: str) -> None:
    (kind, row), word = BAD_ROWS[what]
    container.run(kind, [row], header=MCA if kind == "ActualCost" else ())
    fails(container, ledger, word)


def test_a_column_that_is_gone(container: Container, ledger: str) -> None:
    header = [name for name in MCA if name != "costInBillingCurrency"]
    row = classic(MCA, day(1), "1")
    del row["costInBillingCurrency"]
    container.run("ActualCost", [row], header=header)
    fails(container, ledger, "has no column costinbillingcurrency")


def test_a_file_that_is_cut_off(container: Container, ledger: str) -> None:
    folder = container.run(
        "FocusCost", [focus(day(1), "1"), focus(day(2), "3")], edit=changed(byteCount=None)
    )
    part = folder / "part_0_0001.csv.gz"
    part.write_bytes(part.read_bytes()[:-20])
    fails(container, ledger, "")
    part.write_bytes(b"PAR1")
    fails(container, ledger, "cannot be read")


class Raced(AzureExportsPuller):
    """Azure writes the export again while it is being read."""

    def _count(self, into: Any, file: Any, blob: Any) -> None:
        super()._count(into, file, blob)
        for path in Path(self.options.url).rglob("manifest.json"):
            os.utime(path, ns=(1, 1))


def test_a_run_that_is_replaced_while_it_is_read(container: Container, ledger: str) -> None:
    container.run("FocusCost", [focus(day(1), "1")])
    fails(container, ledger, "has changed while it was read", puller=Raced)
    assert run(container, ledger).published == 1


def test_there_is_nothing(container: Container, ledger: str) -> None:
    fails(container, ledger, "there is no manifest.json below")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "url"),
        ({"url": "https://acme.blob.core.windows.net"}, "url is no"),
        ({"url": "ftp://acme/container"}, "url is no"),
        ({"url": "x", "account_key": "${NO_SUCH_VARIABLE}"}, "not set"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], word: str) -> None:
    with pytest.raises(PullError, match=word):
        AzureExportsPuller(options).open()
