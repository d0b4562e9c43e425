"""``costinsights pull focus PATH``: FOCUS files of all versions and forms, slice by slice."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights.billing import BillingError, Pulled, open_bill, pull
from costinsights.billing import slices as manifests
from costinsights.billing.focus import FOCUSPuller
from costinsights.billing.focus_files import NEEDED
from tests.examples import examples
from tests.focus_rows import as_csv, as_parquet, november, row, without
from tests.pullers import NOW

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.focus_rows import Row

    Write = Callable[[Path, Sequence[Row]], Path]


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


def run(ledger: str, path: Path | str, **more: object) -> Pulled:
    report: Pulled = pull("focus", path=str(path), ledger=ledger, now=NOW, **more)  # type: ignore[arg-type]  # each test's own
    return report


def bill(ledger: str, query: str = "SELECT sum(BilledCost) FROM bill") -> list[tuple[object, ...]]:
    with open_bill(ledger) as found:
        return found.fetch(query)


def refusal(ledger: str, path: Path) -> str:
    """Why nothing could be pulled."""
    report = run(ledger, path)
    assert report.failed
    assert report.published == 0
    assert bill(ledger, "SELECT count(*) FROM bill") == [(0,)]
    return report.failed.replace(str(path.parent) + os.sep, "")


# -- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [as_csv, as_parquet], ids=["csv", "parquet"])
def test_a_slice_is_a_billing_period_of_an_account(ledger: str, folder: Path, write: Write) -> None:
    rows = [row(), row(BilledCost="-0.25"), november(), row(BillingAccountId="4444")]
    report = run(ledger, write(folder / "all.parquet", rows))
    assert (report.slices, report.published, report.rows) == (3, 3, 4)
    assert bill(ledger) == [(Decimal("4.25"),)]
    scopes = [one.slice.scope.split(" | ")[1:] for one in manifests.load(ledger).slices]
    assert scopes == [["AWS", "111122223333"], ["AWS", "111122223333"], ["AWS", "4444"]]


def test_csv_comes_with_null_as_a_word_quoted_or_empty_and_gzipped(
    ledger: str, folder: Path
) -> None:
    as_csv(folder / "a.csv", [row(Tags=None)], null="NULL")
    as_csv(folder / "b.csv.gz", [row(Tags=None)], null="")
    quoted = as_csv(folder / "c.csv", [row(Tags=None)], null="NULL")
    quoted.write_text(quoted.read_text().replace("NULL", '"NULL"'))
    run(ledger, folder)
    assert bill(ledger, "SELECT count(*), count(ChargeClass), count(Tags) FROM bill") == [(3, 0, 0)]


@pytest.mark.parametrize("lost", [3, 9, 200, -1])
def test_a_gzipped_file_that_breaks_off_is_refused(ledger: str, folder: Path, lost: int) -> None:
    # DuckDB takes the rows that there are for all of them.
    path = as_csv(folder / "a.csv.gz", [row(ChargeDescription=str(n)) for n in range(2000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 if lost < 0 else -lost])
    assert "a.csv.gz cannot be read: EOFError" in refusal(ledger, path)


@pytest.mark.parametrize(
    "text",
    [
        "2026-10-05T00:00:00Z",
        "2026-10-05 00:00:00",
        "2026-10-05T00:00Z",
        "2026-10-05",
        "2026-10-05T00:00:00.000Z",
        "2026-10-05T00:00:00+00:00",
        "2026-10-05 00:00:00 UTC",
    ],
)
def test_moments_are_utc_with_and_without_t_and_z(ledger: str, folder: Path, text: str) -> None:
    run(ledger, as_csv(folder / "a.csv", [row(ChargePeriodStart=text)]))
    assert bill(ledger, "SELECT ChargePeriodStart FROM bill") == [(datetime(2026, 10, 5),)]


@pytest.mark.parametrize(
    "text", ["2026-10-05T00:00:00+02:00", "05/10/2026", "2026-10-05T00:00:00-05"]
)
def test_a_moment_of_another_zone_is_refused(ledger: str, folder: Path, text: str) -> None:
    said = refusal(ledger, as_csv(folder / "a.csv", [row(), row(ChargePeriodStart=text)]))
    assert f"a.csv, row 2: ChargePeriodStart is {text!r}, no moment" in said


def test_parquet_may_have_zones_doubles_and_maps(ledger: str, folder: Path) -> None:
    types = {
        "BilledCost": "DOUBLE",
        "ChargePeriodStart": "TIMESTAMP WITH TIME ZONE",
        "BillingAccountId": "BIGINT",
        "Tags": "MAP(VARCHAR, VARCHAR)",
    }
    given_row = row(BilledCost="0.1", ChargePeriodStart="2026-10-05 00:00:00+00", Tags="{a=b}")
    run(ledger, as_parquet(folder / "a.parquet", [given_row], types))
    query = "SELECT BilledCost, ChargePeriodStart, BillingAccountId, Tags FROM bill"
    assert bill(ledger, query) == [
        (Decimal("0.1"), datetime(2026, 10, 5), "111122223333", '{"a":"b"}')
    ]


def test_versions_mix_in_one_folder(ledger: str, folder: Path) -> None:
    as_csv(folder / "1.0.csv", [row()])
    as_csv(folder / "1.2.csv", [row(InvoiceId="i-1", SkuMeter="storage", SubAccountType="Account")])
    as_parquet(folder / "1.3.parquet", [row(ServiceProviderName="AWS", HostProviderName="AWS")])
    newest = without(
        "ProviderName", "PublisherName", ServiceProviderName="AWS", InvoiceDetailId="7"
    )
    as_parquet(folder / "1.4.parquet", [newest])
    report = run(ledger, folder)
    assert (report.slices, report.rows) == (1, 4)
    assert bill(ledger, "SELECT DISTINCT ProviderName, PublisherName FROM bill") == [("AWS", "AWS")]
    assert bill(
        ledger, "SELECT x_InvoiceDetailId FROM bill WHERE x_InvoiceDetailId IS NOT NULL"
    ) == [("7",)]


def test_columns_are_known_by_name_in_any_order_and_case(ledger: str, folder: Path) -> None:
    mixed = {name.lower(): value for name, value in sorted(row(X_Own="1", Odd="2").items())}
    run(ledger, as_csv(folder / "a.csv", [mixed]))
    assert bill(ledger, "SELECT BilledCost, x_own, x_odd FROM bill") == [(Decimal("1.5"), "1", "2")]


def test_only_a_service_or_a_resource(ledger: str, folder: Path) -> None:
    path = as_csv(
        folder / "a.csv",
        [
            row(ResourceId="one"),
            row(ResourceId="two"),
            row(ServiceName="AWS Glue", ResourceId="one"),
        ],
    )
    report = run(ledger, path, service="AWS Glue")
    assert report.rows == 1
    assert run(ledger, path, resource="one").rows == 2
    as_csv(folder / "b.csv", [row()])  # a file without the column has nothing of the resource
    assert run(ledger, folder, resource="one").rows == 2


# -- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["BilledCost", "BillingPeriodStart", "ChargeClass", "ProviderName", "PublisherName"]
)
def test_a_missing_column_is_named(ledger: str, folder: Path, name: str) -> None:
    assert name in NEEDED
    said = refusal(ledger, as_csv(folder / "a.csv", [without(name)]))
    assert said == f"a.csv: {name}: it has no such column, and FOCUS demands it"


@pytest.mark.parametrize("write", [as_csv, as_parquet], ids=["csv", "parquet"])
def test_a_column_that_stands_twice_is_named(ledger: str, folder: Path, write: Write) -> None:
    folder.mkdir()
    said = refusal(ledger, write(folder / "a.parquet", [row(Id="1", x_Id="2")]))
    assert said == "a.parquet: it has the column x_Id twice"


def test_an_amount_that_is_none_is_named_with_its_row(ledger: str, folder: Path) -> None:
    rows = [*[row() for _ in range(5000)], row(ListCost="1,234.50")]
    said = refusal(ledger, as_csv(folder / "a.csv", rows))
    assert said == "a.csv, row 5001: ListCost is '1,234.50', no number"


def test_an_amount_that_is_none_is_named_in_a_file_of_several_slices(
    ledger: str, folder: Path
) -> None:
    rows = [row(), row(BillingAccountId="4"), row(BillingAccountId="5", EffectiveCost="free")]
    said = refusal_of_some(ledger, as_csv(folder / "a.csv", rows))
    assert said == "a.csv, row 3: EffectiveCost is 'free', no number"


def refusal_of_some(ledger: str, path: Path) -> str:
    return run(ledger, path).failed.replace(str(path.parent) + os.sep, "")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e400"])
def test_no_number_of_a_binary_kind_is_taken_for_an_amount(
    ledger: str, folder: Path, text: str
) -> None:
    folder.mkdir()
    rows = [row(), row(BilledCost=text)]
    path = as_csv(folder / "a.csv", rows)
    if text != "1e400":
        path = as_parquet(folder / "a.parquet", rows, {"BilledCost": "FLOAT"})
    assert "row 2: BilledCost is" in refusal(ledger, path)


@pytest.mark.parametrize(
    "name", ["BilledCost", "BillingCurrency", "ChargePeriodEnd", "ServiceName"]
)
def test_what_is_null_and_must_not_be_is_named(ledger: str, folder: Path, name: str) -> None:
    said = refusal(ledger, as_csv(folder / "a.csv", [row(), row(**{name: None})]))
    assert said == f"a.csv, row 2: {name} is NULL"


def test_a_column_of_another_type_is_named(ledger: str, folder: Path) -> None:
    folder.mkdir()
    path = as_parquet(folder / "a.parquet", [row(BilledCost="true")], {"BilledCost": "BOOLEAN"})
    assert refusal(ledger, path) == "a.parquet: the column BilledCost is BOOLEAN, no number"


def test_a_row_that_breaks_off_is_an_error(ledger: str, folder: Path) -> None:
    path = as_csv(folder / "a.csv", [row(), row()])
    path.write_bytes(path.read_bytes()[:-60])
    assert "a.csv: " in refusal(ledger, path)


@pytest.mark.parametrize("data", [b"", b"PAR1 and no more", b"\x1f\x8b\x08broken", b"\xff\xfe\x00"])
def test_what_is_no_file_of_focus_is_named(ledger: str, folder: Path, data: bytes) -> None:
    folder.mkdir()
    path = folder / "a.csv"
    path.write_bytes(data)
    assert refusal(ledger, path).startswith("a.csv")


def test_a_folder_without_files_and_no_folder_are_errors(ledger: str, folder: Path) -> None:
    assert "is not there" in run(ledger, folder).failed
    folder.mkdir()
    assert "there is no FOCUS file" in run(ledger, folder).failed
    assert "name the files" in run(ledger, "").failed
    assert "ftp:// cannot be read" in run(ledger, "ftp://host/x").failed


# -- again ----------------------------------------------------------------------------------------


def test_what_has_not_changed_is_not_opened(
    ledger: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_csv(folder / "october.csv", [row(), row(BillingAccountId="4")])
    as_csv(folder / "november.csv", [november()])
    run(ledger, folder, restate=True)

    def look(_self: FOCUSPuller, _connection: object, entry: object) -> None:
        pytest.fail(f"{entry} was opened")

    monkeypatch.setattr(FOCUSPuller, "_look", look)
    report = run(ledger, folder, restate=True)
    assert (report.slices, report.unchanged, report.published) == (3, 3, 0)
    assert report.plan == ()


def test_a_file_more_is_the_only_one_that_is_read(ledger: str, folder: Path) -> None:
    as_csv(folder / "october.csv", [row()])
    run(ledger, folder)
    as_csv(folder / "november.csv", [november(BilledCost="2")])
    report = run(ledger, folder, restate=True)
    assert (report.unchanged, report.published) == (1, 1)
    assert report.plan[0].startswith("1 files")
    assert bill(ledger) == [(Decimal("3.5"),)]


def test_a_slice_is_replaced_whole_by_what_its_files_are_now(ledger: str, folder: Path) -> None:
    path = as_csv(folder / "a.csv", [november(), november(BilledCost="8")])
    run(ledger, path)
    as_csv(path, [november(BilledCost="2")])
    report = run(ledger, path)
    assert (report.published, report.rows) == (1, 1)
    assert bill(ledger) == [(Decimal(2),)]


def test_an_account_that_a_period_has_no_more_is_gone(ledger: str, folder: Path) -> None:
    path = as_csv(folder / "a.csv", [november(), november(BillingAccountId="4"), row()])
    run(ledger, path)
    as_csv(path, [november()])
    run(ledger, path, restate=True)
    # Of October no file is left, which says nothing of what was billed then.
    assert bill(
        ledger, "SELECT BillingPeriodStart, sum(BilledCost) FROM bill GROUP BY 1 ORDER BY 1"
    ) == [
        (datetime(2026, 10, 1), Decimal("1.5")),
        (datetime(2026, 11, 1), Decimal("1.5")),
    ]
    assert run(ledger, path, restate=True).published == 0


def test_what_is_final_stays_as_it_was_without_restate(ledger: str, folder: Path) -> None:
    old = {
        "BillingPeriodStart": "2026-08-01",
        "BillingPeriodEnd": "2026-09-01",
        "ChargePeriodStart": "2026-08-03",
        "ChargePeriodEnd": "2026-08-04",
    }
    path = as_csv(folder / "a.csv", [row(**old)])
    run(ledger, path)
    as_csv(path, [row(**old, BilledCost="99")])
    report = run(ledger, path)
    assert (report.closed, report.published, len(report.moved)) == (1, 0, 1)
    report = run(ledger, path, restate=True)
    assert [change.difference for change in report.changes] == [{"USD": "97.500000000000000000"}]


def test_a_file_that_changes_while_it_is_read_is_no_part_of_the_bill(
    ledger: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_csv(folder / "a.csv", [november()])
    whole = FOCUSPuller.pull

    def changed(self: FOCUSPuller, slice_: object, into: object) -> None:
        whole(self, slice_, into)  # type: ignore[arg-type]  # they are passed on
        as_csv(path, [november(), november()])

    monkeypatch.setattr(FOCUSPuller, "pull", changed)
    assert "has changed while it was read" in run(ledger, path).failed
    assert bill(ledger, "SELECT count(*) FROM bill") == [(0,)]
    monkeypatch.undo()
    assert run(ledger, path).published == 1
    assert bill(ledger) == [(Decimal(3),)]


def test_a_half_that_is_wrong_leaves_the_other_half_and_comes_again(
    ledger: str, folder: Path
) -> None:
    as_csv(folder / "october.csv", [row()])
    as_csv(folder / "november.csv", [november(ListCost="much")])
    report = run(ledger, folder)
    assert (report.published, len(report.incomplete)) == (1, 1)
    as_csv(folder / "november.csv", [november()])
    assert run(ledger, folder).published == 1
    assert bill(ledger) == [(Decimal(3),)]


def test_another_path_with_the_same_period_is_said(ledger: str, folder: Path) -> None:
    run(ledger, as_csv(folder / "a.csv", [row()]))
    report = run(ledger, as_csv(folder / "b.csv", [row()]))
    (note,) = report.notes
    assert "was also pulled from" in note
    assert "a.csv" in note


def test_a_time_is_asked_for_by_billing_period(ledger: str, folder: Path) -> None:
    path = as_csv(folder / "a.csv", [row(), november()])
    report = run(ledger, path, start=datetime(2026, 11, 1, tzinfo=timezone.utc))
    assert (report.slices, report.rows) == (1, 1)
    # The other slice of the file is not in the ledger, so the file is looked into once more.
    assert run(ledger, path).published == 1
    assert bill(ledger) == [(Decimal(3),)]


@pytest.mark.parametrize("write", [as_csv, as_parquet], ids=["csv", "parquet"])
def test_a_file_of_many_slices_is_split_in_one_reading(
    ledger: str, folder: Path, write: Write
) -> None:
    folder.mkdir()
    rows = [
        row(BillingAccountId=f"{account}|'{account}", BilledCost=str(account), x_Own=str(account))
        for account in range(13)
        for _ in range(account + 1)
    ]
    report = run(ledger, write(folder / "a.parquet", rows))
    assert (report.slices, report.rows) == (13, 91)
    query = "SELECT BillingAccountId, count(*), sum(BilledCost), min(x_Own) FROM bill GROUP BY 1 ORDER BY 2"
    assert bill(ledger, query) == [
        (f"{n}|'{n}", n + 1, Decimal(n * (n + 1)), str(n)) for n in range(13)
    ]


def test_nothing_is_left_of_what_was_needed_for_it(
    ledger: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    run(ledger, as_csv(folder / "a.csv", [row(), row(BillingAccountId="4"), november()]))
    assert list(scratch.iterdir()) == []


def test_the_configuration_is_checked(ledger: str, folder: Path) -> None:
    path = as_csv(folder / "a.csv", [row()])
    with pytest.raises(BillingError, match=r'\[pull."focus"\].*`bucket`'):
        run(ledger, path, config={"pull": {"focus": {"bucket": "x"}}})


# -- any decimals ---------------------------------------------------------------------------------

AMOUNTS = st.decimals(
    min_value=Decimal("-9e19"), max_value=Decimal("9e19"), places=18, allow_nan=False
) | st.decimals(min_value=-1, max_value=1, places=18)


@settings(max_examples=examples(15), deadline=None)
@given(costs=st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=8), form=st.booleans())
def test_any_decimals_arrive_to_the_last_digit(
    costs: list[tuple[Decimal, Decimal]], form: bool
) -> None:
    write = as_csv if form else as_parquet
    with TemporaryDirectory() as folder:
        rows = [row(BilledCost=f"{one:f}", ListCost=f"{two:f}") for one, two in costs]
        ledger = os.path.join(folder, "ledger")
        run(ledger, write(Path(folder) / "a.parquet", rows))
        assert sorted(bill(ledger, "SELECT BilledCost, ListCost FROM bill")) == sorted(costs)
