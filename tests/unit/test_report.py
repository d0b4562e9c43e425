"""The report adds up, is honest about what it does not know, and reads the same everywhere."""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costinsights.ledger.compact import compact
from costinsights.ledger.store import Period, open_store
from costinsights.report import before, define_views, make, period, render
from costinsights.report.explain import NotFound, as_json, as_lines, find, recomputed
from costinsights.report.layout import Column, Piece, lay_out, text_of, visible, width_of
from costinsights.report.money import UNKNOWN, count, decimals, duration, exact, money, percent
from costinsights.report.render import FORMATS, table
from costinsights.report.summary import DIMENSIONS
from tests.examples import examples
from tests.ledgers import DAY, HOUR, NOON, UNIT, Program, aged, moment

if TYPE_CHECKING:
    from pathlib import Path

    from costinsights.report import Report

NOW = datetime(2026, 11, 22, 18)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def shop(ledger: Path) -> None:
    """Three assets, one of them nobody's; one price unknown, one statement failing."""
    program = Program(ledger)
    for _ in range(10):
        program.call(labels={"asset": "orders", "team": "growth", "env": "prod"}, amount=UNIT // 10)
    program.call(labels={"asset": "ltv", "team": "growth"}, amount=5 * UNIT, rows=None)
    program.call(labels={"asset": "ltv", "team": "growth"}, amount=None, error=("E", None))
    program.call(amount=UNIT // 1000, statement=None)
    program.close()


def report(ledger: Path, by: str = "asset", asked: Period | None = None, **options: Any) -> Report:
    return make(str(ledger), by, asked or Period(), now=NOW, **options)


def summary(made: Report) -> list[tuple[str | None, Decimal | None, int]]:
    return [(row.item, row.now.amount, row.now.calls) for row in made.rows]


# --- figures --------------------------------------------------------------------------------------


def test_dearest_first_and_what_is_nobodys_has_a_row(ledger: Path) -> None:
    shop(ledger)
    made = report(ledger)
    assert summary(made) == [
        ("ltv", Decimal(5), 2),
        ("orders", Decimal(1), 10),
        (None, Decimal("0.001"), 1),
    ]
    (total,) = made.totals
    assert total.now == (13, 12, 1, Decimal("6.001"), 13 * 10**9, 12)
    assert (made.calls, made.priced) == (13, 12)
    assert made.bases == (("estimated", 12), ("unknown", 1))


@pytest.mark.parametrize(
    ("by", "items"),
    [
        ("team", ["growth", None]),
        ("system", ["postgresql"]),
        ("job", [None]),
        ("query", ["SELECT orders", None]),
        ("label:env", [None, "prod"]),
        ("label:team", ["growth", None]),
        ("label:rule", ["scope", "unattributed"]),
        ("label:no 'such\" label*", [None]),
    ],
)
def test_costs_are_reported_by_many_things(ledger: Path, by: str, items: list[str | None]) -> None:
    shop(ledger)
    for _ in range(2):
        made = report(ledger, by)
        assert [row.item for row in made.rows] == items
        assert made.totals[0].now.amount == Decimal("6.001")
        aged(ledger)
        compact(str(ledger))


def test_by_dbts_own_words(ledger: Path) -> None:
    """A node with two tags is in one row: what each tag costs alone would not add up."""
    program = Program(ledger)
    for tags, amount in (("a,b", 3), ("a", 2), (None, 1)):
        of_node = {"dbt.node_id": f"model.shop.{amount}", "dbt.owner": "growth"}
        if tags is not None:
            of_node["dbt.tags"] = tags
        program.call(labels=of_node, amount=amount * UNIT)
    program.call(labels={"asset": "other"}, amount=UNIT // 2)
    program.close()
    half = Decimal("0.5")
    for by, rows in (
        ("dbt.node", [("model.shop.3", 3), ("model.shop.2", 2), ("model.shop.1", 1), (None, half)]),
        ("dbt.tag", [("a,b", 3), ("a", 2), (None, Decimal("1.5"))]),
        ("dbt.owner", [("growth", 6), (None, half)]),
    ):
        made = report(ledger, by)
        assert [(row.item, row.now.amount) for row in made.rows] == rows
        assert made.totals[0].now.amount == Decimal("6.5")
        assert f"(no {by.removeprefix('dbt.')})" in render(made, "table")
    assert "Cost by dbt.tag (a node's tags together)" in render(report(ledger, "dbt.tag"), "table")


def test_by_nothing_else(ledger: Path) -> None:
    shop(ledger)
    for by in ("label:", "price", ""):
        with pytest.raises(ValueError, match="costs are reported by asset"):
            report(ledger, by)


def test_an_empty_ledger_is_no_mistake(tmp_path: Path) -> None:
    made = report(tmp_path)
    assert (made.rows, made.totals, made.newest) == ((), (), None)
    for style in FORMATS:
        assert render(made, style)
    assert "No calls in this time." in render(made, "table")


def test_currencies_are_never_added_up(ledger: Path) -> None:
    program = Program(ledger)
    for currency, amount in (("USD", 3), ("EUR", 2), ("USD", 1)):
        program.call(labels={"asset": "a"}, currency=currency, amount=amount * UNIT)
    program.call(labels={"asset": "a"}, amount=None)
    program.close()
    made = report(ledger)
    assert [(row.currency, row.now.amount, row.now.calls) for row in made.rows] == [
        ("EUR", Decimal(2), 1),
        ("USD", Decimal(4), 2),
        (None, None, 1),
    ]
    assert [total.currency for total in made.totals] == ["EUR", "USD", None]
    text = render(made, "table")
    assert "€2.00" in text
    assert "$4.00" in text
    assert "total EUR" in text


def test_what_a_limit_leaves_out_is_one_row(ledger: Path) -> None:
    program = Program(ledger)
    for number in range(10):
        program.call(labels={"asset": f"a{number}"}, amount=(number + 1) * UNIT)
    program.close()
    made = report(ledger, limit=3)
    assert [row.item for row in made.rows] == ["a9", "a8", "a7", None]
    assert (made.rows[3].kind, made.rows[3].others) == ("other", 7)
    assert sum(row.now.amount or 0 for row in made.rows) == Decimal(55)
    assert "other (7)" in render(made, "table")
    assert len(report(ledger, limit=10).rows) == 10


amounts = st.none() | st.integers(-(10**20), 10**20)


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefg"), st.sampled_from(["USD", "EUR"]), amounts), max_size=30
    ),
    st.integers(1, 5),
)
def test_rows_add_up_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[tuple[str, str, int | None]],
    limit: int,
) -> None:
    ledger = tmp_path_factory.mktemp("ledger")
    program = Program(ledger)
    for asset, currency, amount in calls:
        program.call(labels={"asset": asset}, currency=currency, amount=amount)
    program.close()
    made = report(ledger, limit=limit)
    with localcontext() as context:
        context.prec = 60
        for currency in ("USD", "EUR"):
            units = [amount for _, c, amount in calls if c == currency and amount is not None]
            expected = Decimal(sum(units)).scaleb(-15) if units else None
            rows = [row.now.amount for row in made.rows if row.currency == currency]
            known = [amount for amount in rows if amount is not None]
            assert (sum(known, Decimal(0)) if known else None) == expected
            totals = [row.now.amount for row in made.totals if row.currency == currency]
            assert totals == ([expected] if units else [])
    assert sum(row.now.calls for row in made.rows) == len(calls) == made.calls
    assert sum(row.now.calls for row in made.totals) == len(calls)
    for row in made.rows:
        assert (row.now.amount is None) == (row.now.priced == 0)
    for style in FORMATS:
        assert render(made, style)


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-01", datetime(2026, 11, 1)),
        ("2026-11-01T12:30", datetime(2026, 11, 1, 12, 30)),
        ("2026-11-01 12:30:05", datetime(2026, 11, 1, 12, 30, 5)),
        ("2026-11-01T12:30:00Z", datetime(2026, 11, 1, 12, 30)),
        ("2026-11-01T12:30:00+05:45", datetime(2026, 11, 1, 6, 45)),
        ("7d", NOW - timedelta(days=7)),
        ("24h", NOW - timedelta(hours=24)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2w", NOW - timedelta(weeks=2)),
        ("today", datetime(2026, 11, 22)),
        (" Yesterday ", datetime(2026, 11, 21)),
        ("now", NOW),
    ],
)
def test_times_as_people_say_them(text: str, meant: datetime) -> None:
    assert period(None, text, NOW).until == meant


@pytest.mark.parametrize("text", ["", "7", "d", "7 parsecs", "2026-13-01", "999999w", "-7d"])
def test_what_is_no_time_is_said_with_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time.*yesterday"):
        period(text, None, NOW)


@given(st.text(max_size=20))
def test_any_text_is_a_time_or_a_mistake(text: str) -> None:
    with suppress(ValueError):  # any other error would be one
        period(None, text, NOW)


def test_a_time_must_not_end_before_it_begins() -> None:
    for since, until in (("2026-11-02", "2026-11-01"), ("today", "today"), ("2026-12-01", None)):
        with pytest.raises(ValueError, match="ends before it begins"):
            period(since, until, NOW)


def test_the_time_before_is_as_long() -> None:
    assert before(period("7d", None, NOW), NOW) == Period(
        NOW - timedelta(days=14), NOW - timedelta(days=7)
    )
    assert before(period("2026-11-08", "2026-11-15", NOW), NOW).since == datetime(2026, 11, 1)
    with pytest.raises(ValueError, match="--since"):
        before(Period(), NOW)


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, 6),
        (NOON, None, 3),
        (NOON + 1, None, 2),
        (None, NOON, 3),
        (NOON - 12 * HOUR, NOON + 12 * HOUR, 3),  # exactly the day
        (NOON - HOUR, NOON + HOUR, 3),
        (NOON + 20 * DAY, None, 0),
    ],
)
def test_a_call_belongs_to_the_moment_at_which_it_ended(
    ledger: Path, since: int | None, until: int | None, expected: int, *, compacted: bool
) -> None:
    program = Program(ledger)
    for offset in (-2 * DAY, -20 * HOUR, -HOUR, 0, HOUR // 2, 2 * DAY):
        program.call(at=NOON + offset - HOUR, duration=HOUR)
    program.close()
    if compacted:
        aged(ledger)
        compact(str(ledger))
    asked = Period(
        moment(since) + timedelta(microseconds=since % 10**9) if since is not None else None,
        moment(until) if until is not None else None,
    )
    assert report(ledger, asked=asked).calls == expected
    assert report(ledger, "label:x", asked=asked).calls == expected


@pytest.mark.parametrize("compacted", [False, True])
def test_a_comparison_says_what_is_new_and_what_is_gone(ledger: Path, *, compacted: bool) -> None:
    program = Program(ledger)
    for asset, at, amount in (
        ("both", 0, 3),
        ("both", -DAY, 2),
        ("fresh", 0, 1),
        ("old", -DAY, 4),
        ("older", -2 * DAY, 9),
    ):
        program.call(labels={"asset": asset}, at=NOON + at, amount=amount * UNIT)
    program.close()
    if compacted:
        aged(ledger)
        compact(str(ledger))
    made = report(ledger, asked=period("2026-11-22", "2026-11-23", NOW), compare=True)
    assert [(row.item, row.change, row.status) for row in made.rows] == [
        ("both", Decimal(1), ""),
        ("fresh", Decimal(1), "new"),
        ("old", Decimal(-4), "gone"),
    ]
    (total,) = made.totals
    assert total.previous is not None
    assert total.now.amount == Decimal(4)
    assert total.previous.amount == Decimal(6)
    assert total.change == Decimal(-2)
    assert made.calls == 2  # the time before is only there to compare with
    text = render(made, "table")
    assert "against 2026-11-21 to 2026-11-22 UTC" in text
    assert "+$1.00" in text
    assert "-$4.00" in text


# --- how it looks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "places", "text"),
    [
        ("1234.5", 2, "$1,234.50"),
        ("0.004", 2, "<$0.01"),
        ("0.01", 2, "$0.01"),
        ("0", 2, "$0.00"),
        ("-0.004", 2, ">-$0.01"),
        ("-12", 2, "-$12.00"),
        ("0.000000000000001", 5, "<$0.00001"),
        ("0.995", 2, "$1.00"),
        ("99999999999999999999999.125", 2, "$99,999,999,999,999,999,999,999.13"),
    ],
)
def test_money(amount: str, places: int, text: str) -> None:
    assert money(Decimal(amount), "USD", places) == text


def test_money_without_a_sign_names_its_currency() -> None:
    assert money(Decimal(1), "CHF", 2) == "1.00 CHF"
    assert money(Decimal("0.001"), "CHF", 2) == "<0.01 CHF"
    assert money(None, "USD", 2) == UNKNOWN


@given(st.decimals(allow_nan=False, allow_infinity=False, places=15, min_value=-(10**15)))
def test_a_nonzero_amount_never_looks_like_zero(amount: Decimal) -> None:
    text = money(amount, "USD", 2)
    assert (text in ("$0.00", "-$0.00")) == (amount == 0)
    assert Decimal(exact(amount) or "x") == amount


@pytest.mark.parametrize(
    ("amounts", "places"),
    [(["100", "0.001"], 2), (["0.5"], 3), (["0.0123"], 4), (["0.000000001"], 11), ([], 2)],
)
def test_a_column_has_the_decimals_of_its_largest(amounts: list[str], places: int) -> None:
    assert decimals(map(Decimal, amounts)) == places


def test_shares_are_not_rounded_to_all_or_nothing() -> None:
    assert percent(1, 100_000) == "<0.1 %"
    assert percent(99_999, 100_000) == ">99.9 %"
    assert percent(1, 1) == "100 %"
    assert percent(0, 7) == "0 %"
    assert percent(1, 3) == "33.3 %"
    assert percent(1, 0) == UNKNOWN
    assert percent(Decimal(10) ** 10, Decimal("1E-15")) == f"{10**27} %"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0.0 µs"),
        (850_000, "850 µs"),
        (12_340_000, "12.3 ms"),
        (999_600_000, "1.0 s"),
        (12_340_000_000, "12.3 s"),
        (245 * 10**9, "4m 05s"),
        (3599_600_000_000, "1h 00m"),
        (11_520 * 10**9, "3h 12m"),
        (400 * 3600 * 10**9, "17 days"),
        (-12_340_000, "-12.3 ms"),
    ],
)
def test_durations(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


def test_counts() -> None:
    assert (count(1234567), count(None)) == ("1,234,567", UNKNOWN)


def test_the_whole_table(ledger: Path) -> None:
    shop(ledger)
    made = report(ledger)._replace(ledger="ledger")
    assert render(made, "table", options="--since 7d") == (
        "Cost by asset, all time\n"
        "\n"
        "asset             cost   share  calls    time  rows  errors  priced\n"
        "───────────────────────────────────────────────────────────────────\n"
        "ltv              $5.00  83.3 %      2   2.0 s     1       1  50.0 %\n"
        "orders           $1.00  16.7 %     10  10.0 s    10       0   100 %\n"
        "(unattributed)  <$0.01  <0.1 %      1   1.0 s     1       0   100 %\n"
        "───────────────────────────────────────────────────────────────────\n"
        "total USD        $6.00   100 %     13  13.0 s    12       1  92.3 %\n"
        "\n"
        "92.3 % of 13 calls have a price. By basis: 92.3 % estimated, 7.7 % unknown.\n"
        "Newest entry 5 h 59 min ago (2026-11-22 12:00:01 UTC); ledger: ledger\n"
        "To drill: costinsights report --by query --since 7d, costinsights explain [CHARGE_ID]\n"
    )


def test_no_price_at_all_says_how_to_get_one(ledger: Path) -> None:
    program = Program(ledger)
    program.call(amount=None)
    program.close()
    text = render(report(ledger), "table")
    assert "total" in text
    assert "0 % of 1 calls have a price" in text
    assert "[[capacity]]" in text
    assert "$" not in text


@pytest.mark.parametrize("by", DIMENSIONS)
@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_a_table_keeps_to_the_terminal(ledger: Path, by: str, width: int) -> None:
    program = Program(ledger)
    for number in range(3):
        long = f"{number}-{'very-' * 20}long"
        program.call(
            labels={"asset": long, "job": "中文" * 30, "team": "t"},
            statement=f"SELECT {'a_table ' * 20}",
            amount=12_345 * UNIT,
            rows=123_456_789,
        )
    program.close()
    made = report(ledger, by, period("2026-11-22", None, NOW), compare=True)
    lines = table(made, width)
    rows = lines[2 : lines.index([], 2)]
    assert all(width_of("".join(piece.text for piece in line)) <= width for line in rows)
    names = "".join(piece.text for piece in rows[0])
    assert "cost" in names  # whatever else had to go
    assert "calls" in names


def test_nothing_is_cut_in_a_pipe(ledger: Path) -> None:
    program = Program(ledger)
    long = "x" * 250
    program.call(labels={"asset": long})
    program.close()
    assert long in render(report(ledger), "table")


def test_what_could_steer_a_terminal_is_made_visible(ledger: Path) -> None:
    program = Program(ledger)
    program.call(labels={"asset": "a\x1b[31mred\nline\u202e"})
    program.close()
    for style in ("table", "md"):
        text = render(report(ledger), style)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "a�[31mred�line�" in text.replace("\\", "")


def test_markdown_is_a_table_whatever_is_in_it(ledger: Path) -> None:
    program = Program(ledger)
    program.call(labels={"asset": "a|b `c` <script>*d*"})
    program.close()
    lines = render(report(ledger), "md").splitlines()
    assert lines[2].startswith("| asset | cost |")
    assert lines[4].startswith(r"| a\|b \`c\` &lt;script&gt;\*d\* | \$1.00 |")
    assert lines[5].startswith("| **total USD** | **\\$1.00** |")


def test_csv_has_every_digit_and_no_formula(ledger: Path) -> None:
    program = Program(ledger)
    for asset in ("=cmd|' /C calc'!A0", "+1", "-1+1", "@x", "\tx", 'a,"b"'):
        program.call(labels={"asset": asset}, amount=123_456_789)
    program.close()
    rows = list(csv.DictReader(io.StringIO(render(report(ledger), "csv"))))
    assert {row["asset"][0] for row in rows} == {"'", "a"}
    assert "'\tx" in {row["asset"] for row in rows}
    assert {row["cost"] for row in rows} == {"0.000000123456789"}
    assert 'a,"b"' in {row["asset"] for row in rows}


def test_negative_numbers_in_csv_stay_numbers(ledger: Path) -> None:
    program = Program(ledger)
    program.call(labels={"asset": "credit"}, amount=-UNIT)
    program.close()
    (row,) = csv.DictReader(io.StringIO(render(report(ledger), "csv")))
    assert row["cost"] == "-1"


def test_json_has_costs_as_text(ledger: Path) -> None:
    shop(ledger)
    found = json.loads(render(report(ledger, limit=1), "json"))
    assert found["version"] == 1
    assert found["rows"][0] == {
        "kind": "item",
        "item": "ltv",
        "currency": "USD",
        "cost": "5",
        "share": "0.833194",
        "calls": 2,
        "priced_calls": 1,
        "time_ns": 2 * 10**9,
        "rows": 1,
        "errors": 1,
    }
    assert found["rows"][1]["kind"] == "other"
    assert found["rows"][1]["items"] == 2
    assert found["totals"][0]["cost"] == "6.001"
    assert found["coverage"] == {
        "calls": 13,
        "priced_calls": 12,
        "by_basis": {"estimated": 12, "unknown": 1},
    }
    assert found["newest"] == "2026-11-22T12:00:01.000000Z"


def test_what_was_lost_torn_or_deleted_is_said(ledger: Path) -> None:
    shop(ledger)
    made = report(ledger)._replace(
        lost={"disk": 1200}, torn=2, expired_charges=70, expired_until="2026-01-31"
    )
    text = render(made, "table")
    assert "Lost before they could be written: 1,200 (disk) entries." in text
    assert "2 torn lines set aside" in text
    assert "70 charges up to 2026-01-31 are no more" in text


@given(
    st.lists(st.lists(st.text(max_size=8), min_size=3, max_size=3), min_size=1, max_size=5),
)
def test_columns_are_straight(cells: list[list[str]]) -> None:
    columns = [
        Column(f"c{n}", [Piece(visible(row[n])) for row in cells], right=bool(n)) for n in range(3)
    ]
    lines = lay_out(columns, None, rule_before=0)
    assert len({width_of("".join(piece.text for piece in line)) for line in lines}) == 1
    assert len(lines) == len(cells) + 3
    assert text_of(lines).count("\n") == len(lines)


# --- the contract ---------------------------------------------------------------------------------


def test_every_view_gives_what_the_report_reads(ledger: Path) -> None:
    shop(ledger)
    with open_store(str(ledger)) as store:
        store.post(Period(), totals=False)
        define_views(store.connection, "env")
        views = {
            name
            for (name,) in store.connection.execute(
                "SELECT view_name FROM duckdb_views() WHERE NOT internal"
            ).fetchall()
        }
        assert {f"cost_by_{by}" for by in (*DIMENSIONS, "label")} | {"coverage"} <= views
        for by in (*DIMENSIONS, "label"):
            found = store.connection.execute(f"DESCRIBE cost_by_{by}").fetchall()
            assert [row[:2] for row in found] == [
                ("period", "INTEGER"),
                ("item", "VARCHAR"),
                ("detail", "VARCHAR"),
                ("currency", "VARCHAR"),
                ("basis", "VARCHAR"),
                ("calls", "HUGEINT"),
                ("errors", "HUGEINT"),
                ("amount", "DECIMAL(38,15)"),
                ("duration_ns", "HUGEINT"),
                ("rows", "HUGEINT"),
            ]


def test_totals_and_rows_give_the_same_report(ledger: Path) -> None:
    program = Program(ledger)
    for number in range(300):
        program.call(
            labels={"asset": f"a{number % 3}", "job": f"j{number % 2}"},
            amount=None if number % 7 == 0 else number,
            at=NOON + (number % 2) * DAY,
            rows=None if number % 5 else number,
            error=("E", None) if number % 11 == 0 else None,
        )
    program.close()
    live = {by: report(ledger, by).rows for by in DIMENSIONS}
    aged(ledger)
    compact(str(ledger))
    with open_store(str(ledger)) as store:
        assert store.parquet("totals") is not None
    assert {by: report(ledger, by).rows for by in DIMENSIONS} == live


def test_an_overflowing_sum_is_an_error_and_no_wrong_number(ledger: Path) -> None:
    from costinsights.ledger.writer import LedgerError

    program = Program(ledger)
    for _ in range(2):
        program.call(amount="9" * 23)
    program.close()
    with pytest.raises((LedgerError, duckdb.Error)):
        report(ledger)


# --- one charge -----------------------------------------------------------------------------------


def told(ledger: Path, prefix: str | None = None) -> str:
    return text_of(as_lines(find(str(ledger), prefix)))


def test_a_charge_explained(ledger: Path) -> None:
    program = Program(ledger)
    charge = program.call(
        duration=2 * 10**9,
        f=UNIT,
        amount=UNIT // 1000,
        labels={"asset": "orders", "team": "growth", "env": "prod"},
        rows=1234,
    )
    program.close()
    text = told(ledger, charge)
    for part in (
        f"Charge {charge}",
        "SELECT orders",
        "postgresql at db.internal:5432/app",
        "2026-11-22 12:00:00.000000 UTC, for 2.0 s in the driver",
        "asset orders, team growth, env prod",
        "1,234 rows",
        "$0.00100  (exactly 0.001000000000000 USD)",
        "= 1.000000000000000 s of capacity ÷ 3600 × 3.60 USD per hour",
        "50.0 % of the capacity during its 2.0 s",
        "estimated: what was measured here × the list price",
        "3.60 USD per hour (capacity:db)",
        "costinsights.toml, as of 2026-11-01",
        "2026-11-20+abcdef",
        "SELECT orders WHERE id = ?",
    ):
        assert part in text, part


@given(st.integers(0, 10**20), st.decimals("0.0001", "1000", places=4))
def test_the_formula_gives_the_amount(share: int, price: Decimal) -> None:
    """Seconds of capacity ÷ 3600 × price, rounded down, is what the recorder wrote."""
    from costinsights.pricing import Capacity
    from costinsights.records import decimal_text

    line = _line(price)
    capacity = Capacity(line)
    amount = decimal_text(capacity.units(share))
    charge = _charge(decimal_text(share), str(price), amount)
    assert recomputed(charge) == Decimal(amount)


def _line(price: Decimal) -> Any:
    from costinsights.pricing import PriceLine

    return PriceLine(
        key="capacity.db", provider="own", service="db", sku="", system="postgresql",
        meter="capacity_seconds", region="*", unit="hour", price=price, currency="USD",
        as_of="2026-11", source="test", unit_scale=Decimal(3600),
    )  # fmt: skip


def _charge(seconds: str, price: str, amount: str) -> Any:
    from costinsights.records import Charge, PriceInfo, Resource

    return Charge(
        charge_id="x-1", system="postgresql", resource=Resource(), operation="SELECT",
        statement=None, started_at="", ended_at="", duration_ns=1,
        usage={"capacity_seconds": seconds}, rows=None, amount=amount, currency="USD",
        basis="estimated", price=PriceInfo("k", price, "hour", "", "", ""), attribution={},
        trace_id="", span_id="", service="", host="", pid=1, instrumentor="",
    )  # fmt: skip


def test_what_is_not_known_is_said(ledger: Path) -> None:
    program = Program(ledger)
    charge = program.call(amount=None, error=("psycopg.errors.QueryCanceled", "57014"), l=True)
    program.close()
    text = told(ledger, charge)
    assert f"cost        {UNKNOWN}" in text
    assert "unknown: no price is known; that is not zero" in text
    assert "psycopg.errors.QueryCanceled, SQLSTATE 57014; it still costs" in text
    assert "the result was not read to its end" in text
    assert "nobody: (unattributed)" in text
    assert "$" not in text


@pytest.mark.parametrize("compacted", [False, True])
def test_the_history_of_a_charge(ledger: Path, *, compacted: bool) -> None:
    program = Program(ledger)
    charge = program.call(amount=3 * UNIT)
    program.close()
    if compacted:
        aged(ledger)
        compact(str(ledger))
    later = Program(ledger)
    later.call(charge_id=charge, revision=1, amount=2 * UNIT, basis="metered")
    later.close()
    text = told(ledger, charge)
    assert "revision 0: 3.000000000000000 USD, estimated" in text
    assert (
        "revision 1: 2.000000000000000 USD, metered, ended 2026-11-22T12:00:01.000000Z  ← counts"
        in text
    )
    found = json.loads(as_json(find(str(ledger), charge)))
    assert [entry["counts"] for entry in found["history"]] == [False, True]
    assert found["charge"]["amount"] == "2.000000000000000"
    assert found["formula"] == "usage × 3.60 USD per hour"


def test_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(ledger: Path) -> None:
    one, two = Program(ledger), Program(ledger)
    first = one.call(amount=UNIT)
    for _ in range(12):
        two.call(amount=2 * UNIT)
    one.close()
    two.close()
    assert find(str(ledger), first[:6]).charge.charge_id == first
    assert find(str(ledger), f"{two.process}-1").charge.charge_id == f"{two.process}-1"
    with pytest.raises(NotFound, match="at least 6 charges"):
        find(str(ledger), two.process)
    with pytest.raises(NotFound, match="no charge"):
        find(str(ledger), "nonesuch'; DROP TABLE lines; --")
    assert find(str(ledger), None).charge.amount == "2.000000000000000"


def test_an_empty_ledger_has_nothing_to_explain(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is empty"):
        find(str(tmp_path), None)
