"""Two runs held against each other: it adds up, says what it does not know, and steers nothing."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal, localcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from costinsights.ledger.compact import compact
from costinsights.report.diff import NOTHING, Item, Money, Side, Work, compare, reasons
from costinsights.report.diff_render import FORMATS, render, table
from costinsights.report.layout import text_of, visible, width_of
from costinsights.report.money import exact
from costinsights.report.sides import CostsError, SideError, open_runs, read_costs, usual_dimension
from costinsights.report.summary import EXACT
from tests.ledgers import HOUR, NOON, UNIT, Program, aged

if TYPE_CHECKING:
    from costinsights.report.diff import Diff, Row

SECOND = 10**9


def side(name: str = "base", /, **items: Item) -> Side:
    return Side(name, "", {None if item == "nobody" else item: of for item, of in items.items()})


def usd(amount: str | int | None, calls: int = 1, **work: Any) -> Item:
    """Calls that cost `amount` together; None for calls without a price."""
    unpriced = calls if amount is None else 0
    costs = {} if amount is None else {"USD": Decimal(amount)}
    return Item(costs, Work(calls=calls, unpriced=unpriced, **work))


def moneys(rows: tuple[Row, ...]) -> list[tuple[str, ...]]:
    return [
        (row.item or row.kind, row.status, *(str(exact(amount)) for amount in row.money[:3]))
        for row in rows
    ]


# --- figures --------------------------------------------------------------------------------------


def test_the_largest_change_first_and_what_is_the_same_is_one_row() -> None:
    base = side(orders=usd(1), ltv=usd(5), same=usd(2), alike=usd(3), old=usd("0.5"))
    head = side(orders=usd("1.25"), ltv=usd(3), same=usd(2), alike=usd(3), new=usd(1))
    made = compare(base, head, "asset")
    assert moneys(made.rows) == [
        ("ltv", "", "5", "3", "-2"),
        ("new", "new", "0", "1", "1"),
        ("old", "gone", "0.5", "0", "-0.5"),
        ("orders", "", "1", "1.25", "0.25"),
        ("unchanged", "", "5", "5", "0"),
    ]
    assert moneys(made.totals) == [("total", "", "11.5", "10.25", "-1.25")]
    assert made.rows[-1].items == 2


def test_an_unknown_cost_is_not_nothing() -> None:
    base = side(a=usd(None), b=usd(1), c=usd(7))
    head = side(a=usd(9), b=usd(2), c=usd(None))
    made = compare(base, head, "asset")
    assert moneys(made.rows) == [
        ("b", "", "1", "2", "1"),
        ("a", "", "None", "9", "None"),
        ("c", "", "7", "None", "None"),
    ]
    (total,) = made.totals
    assert total.money == Money(Decimal(8), Decimal(11), Decimal(1), Decimal(1))
    assert made.one_sided == total.one_sided == 2
    text = render(made, "table")
    assert "$8.00 → $11.00 (+$1.00, +100 %; without 2 items of unknown change)" in text
    assert "1 of 3 calls of the base have no price" in text
    assert "2 items have a known cost in one run only" in text


def test_calls_without_a_price_beside_others_are_said_and_not_counted() -> None:
    half = Item({"USD": Decimal(1)}, Work(calls=2, unpriced=1))
    made = compare(side(a=half), side(a=usd(3, calls=2)), "asset")
    assert moneys(made.totals) == [("total", "", "1", "3", "2")]
    assert "1 of 2 calls of the base have no price" in render(made, "md")


def test_no_price_at_all_still_shows_what_was_done() -> None:
    base = side(a=usd(None, duration_ns=SECOND), b=usd(None, duration_ns=SECOND))
    head = side(a=usd(None, 3, duration_ns=5 * SECOND), b=usd(None, duration_ns=2 * SECOND))
    made = compare(base, head, "asset")
    assert moneys(made.rows) == [
        ("a", "", "None", "None", "None"),
        ("unchanged", "", "None", "None", "None"),
    ]
    assert [total.currency for total in made.totals] == [None]
    text = render(made, "table")
    assert "unknown, no call has a price" in text
    assert "1.0 s → 5.0 s" in text
    assert "0.00" not in text


def test_currencies_are_never_added_up_and_work_counts_once() -> None:
    both = Item({"USD": Decimal(1), "EUR": Decimal(2)}, Work(calls=7))
    made = compare(side(a=both), side(a=usd(4, 3)), "asset")
    assert [(row.currency, *row.money[:3]) for row in made.rows] == [
        ("EUR", Decimal(2), NOTHING, Decimal(-2)),
        ("USD", Decimal(1), Decimal(4), Decimal(3)),
    ]
    assert [total.currency for total in made.totals] == ["EUR", "USD"]
    assert [row.base is None for row in made.rows] == [False, True]
    assert [work.calls for work in made.work] == [7, 3]


def test_runs_without_calls() -> None:
    made = compare(side(), side(), "asset")
    assert (made.rows, made.totals) == ((), ())
    for style in FORMATS:
        assert render(made, style)
    # A model that sent nothing (an ephemeral one) is no change.
    assert compare(side(a=Item()), side(a=Item()), "asset").rows == ()


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (Work(calls=2), Work(calls=3), ["calls +50.0 %"]),
        (Work(calls=2), Work(calls=2), ["another price"]),
        (Work(calls=2, duration_ns=100), Work(calls=2, duration_ns=150), ["time +50.0 %"]),
        # Where the system has meters, how long we waited is not what it was paid for.
        (
            Work(calls=2, duration_ns=100, usage={"bytes": Decimal(5)}),
            Work(calls=2, duration_ns=150, usage={"bytes": Decimal(5)}),
            ["another price"],
        ),
        (
            Work(calls=4, usage={"bytes": Decimal(100)}),
            Work(calls=3, usage={"bytes": Decimal(200), "slots": Decimal(1)}),
            ["slots new", "bytes +100 %"],
        ),
    ],
)
def test_why_it_costs_something_else(before: Work, after: Work, why: list[str]) -> None:
    made = compare(
        side(a=Item({"USD": Decimal(1)}, before)), side(a=Item({"USD": Decimal(2)}, after)), "asset"
    )
    for text in why:
        assert text in render(made, "table")
    assert len(reasons(made.rows[0])) == len(why)


AMOUNTS = st.decimals(-(10**12), 10**12, places=15, allow_nan=False)
WORKS = st.builds(
    Work,
    calls=st.integers(1, 10**9),
    unpriced=st.integers(0, 1),
    errors=st.integers(0, 9),
    duration_ns=st.integers(0, 10**18),
    rows=st.none() | st.integers(0, 10**9),
    usage=st.dictionaries(st.sampled_from(["bytes", "slots"]), st.decimals(0, 10**9, places=9)),
)
ITEMS = st.builds(Item, st.dictionaries(st.sampled_from(["USD", "EUR"]), AMOUNTS), WORKS)
NAMES = st.none() | st.sampled_from("a b c d e | ` <b>".split())
SIDES = st.builds(Side, st.text(max_size=9), st.text(max_size=9), st.dictionaries(NAMES, ITEMS))
LIMITS = st.none() | st.integers(0, 3)


def known(amounts: list[Decimal | None]) -> Decimal | None:
    there = [amount for amount in amounts if amount is not None]
    return sum(there, start=NOTHING) if there else None


@settings(deadline=None)
@given(SIDES, SIDES, LIMITS)
def test_rows_add_up_to_the_last_digit(base: Side, head: Side, limit: int | None) -> None:
    made = compare(base, head, "asset", limit=limit)
    with localcontext() as context:
        context.prec = 100
        for total in made.totals:
            rows = [row for row in made.rows if row.currency == total.currency]
            for part in range(4):
                assert total.money[part] == known([row.money[part] for row in rows])
            if total.currency is not None and not total.one_sided:
                money = total.money
                assert (money.head or 0) - (money.base or 0) == (money.change or 0)
        for currency in ("USD", "EUR"):
            total_of = {row.currency: row.money for row in made.totals}.get(currency, Money())
            for part, one in enumerate((base, head)):
                spent = [item.costs.get(currency) for item in one.items.values()]
                assert (total_of[part] or 0) == (known(spent) or 0)
    for number, one in enumerate((base, head)):
        works = [(row.base, row.head)[number] for row in made.rows]
        calls = sum(work.calls for work in works if work is not None)
        assert calls == made.work[number].calls
        assert calls == sum(item.work.calls for item in one.items.values())


@settings(deadline=None)
@given(SIDES, SIDES, LIMITS)
def test_swapped_sides_are_the_same_changes_with_the_other_sign(
    base: Side, head: Side, limit: int | None
) -> None:
    def changes(made: Diff, sign: int) -> list[Any]:
        rows = [
            (row.kind, row.item or "", row.currency or "", row.items, row.money.change)
            for row in (*made.rows, *made.totals)
        ]
        return sorted(
            (*said, change is None, EXACT.multiply(change or NOTHING, Decimal(sign)))
            for *said, change in rows
        )

    there, back = (
        compare(base, head, "asset", limit=limit),
        compare(head, base, "asset", limit=limit),
    )
    assert changes(there, 1) == changes(back, -1)


@settings(deadline=None)
@given(SIDES, SIDES, LIMITS)
def test_every_form_is_whole_whatever_is_compared(
    base: Side, head: Side, limit: int | None
) -> None:
    made = compare(base, head, "asset", limit=limit)
    lines = render(made, "md").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    bars = {len(line.replace("\\|", "").split("|")) for line in rows}
    assert len(bars) <= 1
    assert len(rows) == (len(made.rows) + len(made.totals) + 2 if made.totals else 0)
    assert "<b>" not in "".join(lines)
    assert len(list(csv.reader(io.StringIO(render(made, "csv"))))) == len(made.rows) + 1
    document = json.loads(render(made, "json"))
    assert len(document["rows"]) == len(made.rows)
    for width in (60, 100):
        widths = [width_of(line) for line in text_of(table(made, width)).splitlines()]
        assert widths


def test_what_is_named_and_what_is_only_counted() -> None:
    base = side(**{f"a{number}": usd(1) for number in range(9)})
    head = side(**{f"a{number}": usd(number + 2) for number in range(9)})
    made = compare(base, head, "asset", limit=2)
    assert moneys(made.rows) == [
        ("a8", "", "1", "10", "9"),
        ("a7", "", "1", "9", "8"),
        ("other", "", "7", "35", "28"),
    ]
    assert "other (7)" in render(made, "md")


# --- forms ----------------------------------------------------------------------------------------


def example() -> Diff:
    base = side("main", orders=usd(1, 2), ltv=usd(5, duration_ns=5 * SECOND), same=usd(2))
    head = side("feature", orders=usd("1.5", 3), new=usd("0.001"), same=usd(2))
    return compare(base, head, "dbt.node")


WHOLE = """\
Cost: $8.00 → $3.50 (-$4.50, -56.2 %)
base: main
head: feature

dbt.node        base    head   change           calls            time  why
────────────────────────────────────────────────────────────────────────────────────
ltv            $5.00           -$5.00     gone      1           5.0 s
orders         $1.00   $1.50   +$0.50  +50.0 %  2 → 3          0.0 µs  calls +50.0 %
new                   <$0.01  <+$0.01      new      1          0.0 µs
unchanged (1)  $2.00   $2.00    $0.00               1          0.0 µs
────────────────────────────────────────────────────────────────────────────────────
total USD      $8.00   $3.50   -$4.50  -56.2 %  4 → 5  5.0 s → 0.0 µs
"""


def test_the_whole_table() -> None:
    assert render(example(), "table") == WHOLE


def test_the_example_of_the_page_is_what_it_says() -> None:
    def cost(amount: str, calls: int, seconds: str, **usage: int) -> Item:
        spent = int(Decimal(seconds) * SECOND)
        meters = {meter: Decimal(figure) for meter, figure in usage.items()}
        return usd(amount, calls, duration_ns=spent, usage=meters)

    same = {f"model.shop.m{number}": cost("0.14", 3, "2") for number in range(30)}
    same["model.shop.customers"] = cost("0.15", 3, "1")
    base = side(
        "main/costs.json",
        **same,
        **{
            "model.shop.orders": cost("1", 3, "12", bytes_billed=10),
            "model.shop.ltv": cost("0.40", 2, "4"),
        },
    )._replace(about="dbt build of shop to ci, 2026-11-22 12:00 UTC, branch main")
    head = side(
        "target/costs.json",
        **same,
        **{
            "model.shop.orders": cost("1.90", 3, "12.5", bytes_billed=19),
            "model.shop.ltv_monthly": cost("0.39", 2, "4.1"),
        },
    )._replace(about="dbt build of shop to ci, 2026-11-23 09:30 UTC, branch feature")
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    assert f"```text\n{render(compare(base, head, 'dbt.node'), 'table')}```" in page


def test_markdown_is_a_table_whatever_is_in_it() -> None:
    name = "a|b `c` <script>*d* @team #1 https://x"
    made = compare(side(**{name: usd(1)}), side(**{name: usd(2)}), "asset")
    lines = render(made, "md").splitlines()
    assert lines[0] == r"**Cost: \$1.00 → \$2.00 (+\$1.00, +100 %)**"
    row = next(line for line in lines if line.startswith(r"| a\|"))
    assert row.startswith(
        r"| a\|b \`c\` &lt;script&gt;\*d\* @&#8203;team #&#8203;1 https://x | \$1.00 | \$2.00 |"
    )
    assert any(line.startswith("| **total USD** |") for line in lines)


@settings(deadline=None)
@given(st.text(min_size=1, max_size=20))
def test_a_name_is_nothing_but_text_in_markdown(name: str) -> None:
    made = compare(side("base", **{name: usd(1)}), side(name, **{name: usd(2)}), "asset")
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(render(made, "md"))
    assert sum(token.type == "table_open" for token in tokens) == 1
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {"text", "softbreak", "hardbreak", "strong_open", "strong_close"}
    cells = [
        "".join(child.content for child in (tokens[number + 1].children or ()))
        for number, token in enumerate(tokens)
        if token.type == "td_open"
    ]
    shown = visible(name).strip().replace("@", "@\u200b").replace("#", "#\u200b")
    assert cells[0].strip() == (shown or "").strip()
    assert len(cells) == 2 * sum(token.type == "th_open" for token in tokens)


def test_csv_and_json_have_every_digit() -> None:
    amount = "12345678901234567890.123456789012345"
    made = compare(side(a=usd(1)), side(**{"a": usd(amount), "=cmd": usd(1)}), "asset")
    rows = list(csv.DictReader(io.StringIO(render(made, "csv"))))
    assert [row["asset"] for row in rows] == ["a", "'=cmd"]
    assert rows[0]["head_cost"] == amount
    assert rows[0]["change"] == "12345678901234567889.123456789012345"
    document = json.loads(render(made, "json"))
    assert document["version"] == 1
    assert document["rows"][0]["head_cost"] == amount
    assert document["totals"][0]["change"] == "12345678901234567890.123456789012345"


def test_a_terminal_gets_no_line_that_is_too_long() -> None:
    base = side(
        **{f"model.shop.a_rather_long_name_{n}": usd(n + 1, duration_ns=n) for n in range(9)}
    )
    head = side(
        **{f"model.shop.a_rather_long_name_{n}": usd(n + 2, n, duration_ns=9) for n in range(9)}
    )
    made = compare(base, head, "dbt.node")
    for width in (70, 80, 100, 120):
        body = text_of(table(made, width)).splitlines()[4:-1]
        assert all(width_of(line) <= width for line in body), width


# --- costs.json -----------------------------------------------------------------------------------


def node(name: str, amount: str | None, **more: Any) -> dict[str, Any]:
    costs = [] if amount is None else [{"currency": "USD", "amount": amount}]
    return {
        "unique_id": f"model.shop.{name}",
        "name": name,
        "resource_type": "model",
        "tags": ["nightly", "finance"],
        "owner": "growth",
        "team": None,
        "status": "success",
        "costs": costs,
        "failed_costs": [],
        "retried_costs": [],
        "calls": 2,
        "unpriced_calls": 0 if costs else 2,
        "failed_calls": 0,
        "duration_seconds": 1.5,
        "rows": None,
        "usage": {"time_ns": 1500000000, "data_scanned_bytes": 10, "class": "x"},
        "bases": {"estimated": 2},
        **more,
    }


def costs_file(path: Path, *nodes: dict[str, Any], **more: Any) -> Path:
    other: dict[str, Any] = {
        "costs": [{"currency": "USD", "amount": "0.25"}],
        "calls": 1,
        "bases": {},
    }
    amounts = [cost["amount"] for one in (*nodes, other) for cost in one["costs"]]
    total = sum(map(Decimal, amounts), start=NOTHING)
    document: dict[str, Any] = {
        "version": 1,
        "invocation_id": "8f2c1a34-0000",
        "command": "build",
        "target": "dev",
        "project": "shop",
        "branch": "main",
        "commit": "0123456789abcdef",
        "started_at": "2026-11-22T12:00:00.000000Z",
        "finished_at": "2026-11-22T12:01:00.000000Z",
        "elapsed_seconds": 60.0,
        "totals": [{"currency": "USD", "amount": f"{total:f}"}],
        "calls": 3,
        "unpriced_calls": 0,
        "failed_calls": 0,
        "nodes": nodes,
        "other": other,
        **more,
    }
    path.write_text(json.dumps(document))
    return path


def test_a_costs_json_is_read(tmp_path: Path) -> None:
    costs_file(tmp_path / "costs.json", node("orders", "0.1"), node("free", None))
    for path in (tmp_path, tmp_path / "costs.json"):
        read = read_costs(str(path), "dbt.node")
        assert read.about == (
            "dbt build of shop to dev, 2026-11-22 12:00 UTC, branch main, commit 01234567, "
            "invocation 8f2c1a34-0000"
        )
        assert read.identity == ("dbt.invocation_id", "8f2c1a34-0000")
        assert {name: item.costs for name, item in read.items.items()} == {
            "model.shop.orders": {"USD": Decimal("0.1")},
            "model.shop.free": {},
            None: {"USD": Decimal("0.25")},
        }
        work = read.items["model.shop.orders"].work
        assert work == Work(
            calls=2,
            duration_ns=1_500_000_000,
            usage={"data_scanned_bytes": Decimal(10)},
            bases={"estimated": 2},
        )


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    )
)
def test_whatever_a_meter_says_it_can_be_added_up(usage: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        costs_file(Path(folder) / "costs.json", node("a", "1", usage=usage), node("b", "1"))
        read = read_costs(folder, "dbt.tag")
    made = compare(read, side(), "dbt.tag")
    for style in FORMATS:
        assert render(made, style)


@pytest.mark.parametrize(
    ("by", "item"), [("dbt.tag", "finance,nightly"), ("dbt.owner", "growth"), ("team", None)]
)
def test_nodes_are_put_together_by_what_they_share(
    tmp_path: Path, by: str, item: str | None
) -> None:
    path = costs_file(tmp_path / "costs.json", node("a", "0.1"), node("b", "0.2"))
    amount = Decimal("0.3") + (Decimal("0.25") if item is None else 0)
    assert read_costs(str(path), by).items[item].costs == {"USD": amount}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"version": 2}, "is of version 2, and this costinsights reads version 1: update it"),
        ({"version": 0}, "make the file anew"),
        ({"totals": [{"currency": "USD", "amount": "9"}]}, "do not add up to its total"),
        ({"nodes": [node("a", "NaN")]}, "is no costs.json"),
        ({"nodes": [node("a", "1e9")]}, "is no costs.json"),
        ({"nodes": [node("a", "1", calls=-1)]}, "is no costs.json"),
        ({"nodes": [node("a", "1", bases={"estimated": -1})]}, "is no costs.json"),
        ({"totals": [{"currency": "\x1b[31m", "amount": "0.25"}]}, "is no costs.json"),
        ({"nodes": 5}, "is no costs.json"),
        ({"version": "1"}, "is no costs.json"),
    ],
)
def test_a_file_that_is_none_is_said(tmp_path: Path, content: dict[str, Any], says: str) -> None:
    path = costs_file(tmp_path / "costs.json", **content)
    with pytest.raises(CostsError, match=says):
        read_costs(str(path), "dbt.node")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"version": 1}'])
def test_any_other_file_is_no_costs_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "costs.json").write_bytes(content)
    with pytest.raises(CostsError, match="is no costs"):
        read_costs(str(tmp_path), "dbt.node")


def test_what_a_file_does_not_know_is_said(tmp_path: Path) -> None:
    path = costs_file(tmp_path / "costs.json", node("a", "1"))
    with pytest.raises(
        SideError, match=r"knows dbt\.node, dbt\.tag, dbt\.owner, team, not 'asset'"
    ):
        read_costs(str(path), "asset")
    with pytest.raises(SideError, match="No such file"):
        read_costs(str(tmp_path / "none" / "costs.json"), "dbt.node")


# --- the ledger -----------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Two runs of main, the second dearer; one of a feature, within a Dagster run."""
    ledger = tmp_path / "ledger"
    program = Program(ledger)
    runs: tuple[tuple[int, int, dict[str, str]], ...] = (
        (0, 1, {"branch": "main", "dbt.invocation_id": "i1"}),
        (1, 2, {"branch": "main", "dbt.invocation_id": "i2"}),
        (2, 3, {"branch": "feature", "dbt.invocation_id": "i3", "run": "r1"}),
        (3, 4, {"branch": "feature", "dbt.invocation_id": "i4", "run": "r1"}),
    )
    for hours, units, labels in runs:
        own = {"asset": "orders", "dbt.node_id": "model.shop.orders", "dbt.tags": "a,b", **labels}
        program.call(
            at=NOON + hours * HOUR,
            amount=units * UNIT,
            labels=own,
            u={"bytes": units, "class": "x"},
        )
        program.call(at=NOON + hours * HOUR, amount=None, labels=labels, f=UNIT)
    program.call(at=NOON + 9 * HOUR, amount=UNIT, labels={"asset": "other", "release": "7"})
    program.close()
    return ledger


def costs(ledger: Path, selector: str, by: str = "dbt.node") -> dict[str | None, Any]:
    with open_runs(str(ledger)) as runs:
        return {name: dict(item.costs) for name, item in runs.side(selector, by).items.items()}


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize(
    ("selector", "amount"),
    [
        ("dbt.invocation_id=i1", 1),
        ("branch=main", 2),  # the latest run that has it
        ("branch=main,dbt.invocation_id=i1", 1),
        ("branch=feature", 7),  # of a Dagster run, all that dbt did in it
        ("run=r1", 7),
        ("run=r1,dbt.invocation_id=i4", 4),
        ("dbt.node=model.shop.orders", 7),
    ],
)
def test_a_run_is_found_by_its_labels(
    ledger: Path, selector: str, amount: int, *, compacted: bool
) -> None:
    if compacted:
        aged(ledger)
        compact(str(ledger))
    found = costs(ledger, selector)
    assert found["model.shop.orders"] == {"USD": Decimal(amount)}


def test_what_is_of_no_run_is_taken_whole(ledger: Path) -> None:
    assert costs(ledger, "release=7", "asset") == {"other": {"USD": Decimal(1)}}
    assert costs(ledger, "asset=other", "team") == {None: {"USD": Decimal(1)}}


def test_the_run_that_was_taken_is_said(ledger: Path) -> None:
    with open_runs(str(ledger)) as runs:
        main, feature = runs.side("branch=main", "asset"), runs.side("branch=feature", "asset")
        own = runs.side("run=r1", "asset")
    assert main.about == ("dbt.invocation_id i2 (the latest of 2), 2026-11-22 13:00 UTC, 2 calls")
    assert (
        feature.about == "run r1 (the only one), 2026-11-22 14:00 to 2026-11-22 15:00 UTC, 4 calls"
    )
    assert feature.identity == own.identity == ("run", "r1")
    made = compare(feature, own, "asset")
    assert "Both are the same run." in render(made, "table")


def test_the_beginning_of_an_id_will_do(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    program = Program(ledger)
    for run in ("4f1d", "4f1d-2", "9a3c-1", "9a3c-2", "77ef-1"):
        program.call(labels={"asset": run, "run": run, "branch": "main"}, amount=UNIT)
    program.close()
    for begun, whole in (("4f1d", "4f1d"), ("77", "77ef-1"), ("9a3c-2", "9a3c-2")):
        assert set(costs(ledger, f"run={begun}", "asset")) == {whole}
    with open_runs(str(ledger)) as runs:
        side = runs.side("run=77", "asset")
    assert side.identity == ("run", "77ef-1")
    assert side.about.startswith("run 77ef-1, 2026")
    with pytest.raises(SideError, match="run=9a is the beginning of several: 9a3c-1, 9a3c-2"):
        costs(ledger, "run=9a", "asset")
    with pytest.raises(SideError, match="no call in the ledger has branch=mai"):
        costs(ledger, "branch=mai", "asset")


def test_what_was_done_is_added_up(ledger: Path) -> None:
    with open_runs(str(ledger)) as runs:
        items = runs.side("run=r1", "dbt.node").items
    orders = items["model.shop.orders"].work
    assert (orders.calls, orders.unpriced, orders.usage) == (2, 0, {"bytes": Decimal(7)})
    assert orders.bases == {"estimated": 2}
    others = items[None]
    assert others.costs == {}
    assert (others.work.calls, others.work.unpriced) == (2, 2)
    assert others.work.usage == {"capacity_seconds": Decimal(2)}


@pytest.mark.parametrize(
    ("by", "items"),
    [
        ("asset", {"orders", None}),
        ("dbt.tag", {"a,b", None}),
        ("label:branch", {"main"}),
        ("system", {"postgresql"}),
        ("label:no 'such", {None}),
    ],
)
def test_runs_are_compared_by_many_things(ledger: Path, by: str, items: set[str | None]) -> None:
    assert set(costs(ledger, "branch=main", by)) == items


def test_a_query_is_known_by_its_fingerprint(ledger: Path) -> None:
    (item,) = costs(ledger, "branch=main", "query")
    assert item is not None
    assert item.startswith("SELECT orders (")


@pytest.mark.parametrize(
    ("selector", "by", "says"),
    [
        ("branch=none", "asset", "no call in the ledger has branch=none: .* --by label:branch"),
        ("run='; DROP TABLE live; --", "asset", "no call in the ledger has"),
        ("no'such=1", "asset", "does not say which run is meant"),
        ("branch=", "asset", "does not say which run is meant"),
        ("branch=main", "price", "costs are reported by asset"),
    ],
)
def test_what_is_not_there_is_said(ledger: Path, selector: str, by: str, says: str) -> None:
    with pytest.raises(SideError, match=says):
        costs(ledger, selector, by)


def test_an_empty_ledger_has_no_run(tmp_path: Path) -> None:
    with pytest.raises(SideError, match="no call in the ledger has branch=main"):
        costs(tmp_path, "branch=main")


def test_dbts_runs_are_compared_by_node(tmp_path: Path) -> None:
    path = str(costs_file(tmp_path / "costs.json"))
    assert usual_dimension((path, "branch=main")) == "dbt.node"
    assert usual_dimension(("branch=main", "dbt.invocation_id=i1")) == "dbt.node"
    assert usual_dimension(("branch=main", "run=1")) == "asset"
    with pytest.raises(SideError, match=r"there is no file 'costs\.json': write the path"):
        usual_dimension(("costs.json", path))


def test_settled_and_estimated_costs_are_told_apart(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    program = Program(ledger)
    charge = program.call(labels={"asset": "a", "run": "r1"}, amount=UNIT)
    program.call(
        labels={"asset": "a", "run": "r1"},
        amount=3 * UNIT,
        charge_id=charge,
        revision=1,
        basis="metered",
    )
    program.call(labels={"asset": "a", "run": "r2"}, amount=UNIT)
    program.close()
    with open_runs(str(ledger)) as runs:
        made = compare(runs.side("run=r1", "asset"), runs.side("run=r2", "asset"), "asset")
    assert moneys(made.totals) == [("total", "", "3", "1", "-2")]
    assert "By basis: 100 % metered → 100 % estimated." in render(made, "table")
