"""Amounts at the end of a call: the short way and the book's own answer are the same figure."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights import recorder, runtime
from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage
from costinsights.pricing import PriceBook
from costinsights.pricing.pricer import Pricer
from costinsights.testing import Clock, capture
from tests.examples import examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from costinsights.testing import Captured

_decimals = st.decimals("0.000001", 10**6, places=6, allow_nan=False)


def _book(folder: Path, *, price: str, scale: int, minimum: str, increment: str) -> PriceBook:
    path = folder / "prices.toml"
    path.write_text(
        f"""
        [[price]]
        key = "mine"
        provider = "me"
        service = "mine"
        sku = "mine"
        system = "mydb"
        meter = "scanned_bytes"
        region = "global"
        regions = ["*"]
        unit = "TB"
        unit_scale = "{scale}"
        price = "{price}"
        currency = "USD"
        as_of = "2026-11-01"
        source = "our contract"
        minimum = "{minimum}"
        increment = "{increment}"
        """
    )
    return PriceBook.load(path)


@settings(max_examples=examples(60), deadline=None)
@given(
    price=_decimals,
    scale=st.sampled_from([2**40, 10**12]),
    minimum=_decimals,
    increment=_decimals,
    quantities=st.lists(st.integers(0, 2**60), min_size=2, max_size=8),
)
def test_the_short_way_is_the_books_answer(
    tmp_path_factory: pytest.TempPathFactory,
    price: object,
    scale: int,
    minimum: object,
    increment: object,
    quantities: list[int],
) -> None:
    book = _book(
        tmp_path_factory.mktemp("book"),
        price=f"{price:f}",
        scale=scale,
        minimum=f"{minimum:f}",
        increment=f"{increment:f}",
    )
    pricer = Pricer(book, "mydb", None, {}, pytest.fail)
    for quantity in quantities:
        priced = pricer({"scanned_bytes": quantity, "rows": 1})
        wanted = book.quote("mydb", {"scanned_bytes": quantity}).amount
        assert wanted is not None
        assert priced is not None
        assert priced.amount == wanted.scaleb(15)
        assert priced.price.key == "mine"


def test_athenas_terabytes() -> None:
    pricer = Pricer(PriceBook.load(), "aws.athena", "us-east-1", {}, pytest.fail)
    amounts = [pricer({"data_scanned_bytes": size}) for size in (1, 2**40, 3 * 2**40)]
    assert [priced and priced.amount for priced in amounts] == [
        47683715820,  # 10 MB of it, at 5 dollars a TB
        5 * 10**15,
        15 * 10**15,
    ]


def test_what_is_missing_is_said_once() -> None:
    said: list[str] = []
    pricer = Pricer(PriceBook.load(), "aws.athena", "mars-north-1", {}, said.append)
    assert [pricer({"data_scanned_bytes": size}) for size in (1, 2)] == [None, None]
    assert len(said) == 1
    assert "mars-north-1" in said[0]


def test_what_the_book_does_not_know_is_no_usage() -> None:
    pricer = Pricer(PriceBook.load(), "aws.athena", "us-east-1", {}, pytest.fail)
    assert pricer({"engine_time_ms": 12}) is None
    assert Pricer(PriceBook.load(), "nosuch", None, {}, pytest.fail)({"x": 1}) is None


class Statistics:
    scanned = 0


class Cursor:
    """Reads a gigabyte with each row that is fetched."""

    connection = "somewhere"
    rowcount = -1

    def __init__(self) -> None:
        self.statistics = Statistics()
        self._left = 0

    def execute(self, query: str) -> Cursor:
        self.statistics = Statistics()
        if "nowhere" in query:
            self.statistics.scanned = 5
            raise LookupError(query)
        self._left = 3
        return self

    def fetchone(self) -> int | None:
        if not self._left:
            return None
        self._left -= 1
        self.statistics.scanned += 2**30
        return self._left

    def close(self) -> None:
        self._left = 0


class Instrumentor(DBAPIInstrumentor):
    name = "testdriver"
    system = "aws.athena"
    driver = "testdriver"
    supports = ("1", "2")
    meters = ("data_scanned_bytes",)
    basis = "metered"
    hooks = (
        Hook("testdriver:Cursor.execute", lazy=True),
        Hook("testdriver:Cursor.fetchone", fetch="one"),
        Hook("testdriver:Cursor.close", fetch="close"),
    )

    def region(self, connection: Any) -> str:
        return "us-east-1"

    def has_rows(self, cursor: Any, result: Any) -> bool:
        return True

    def source(self, cursor: Any, result: Any) -> object:
        return cursor.statistics

    def final(self, source: Any) -> Usage:
        return Usage(None, {"data_scanned_bytes": source.scanned}, "query-1")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[Cursor], Captured]]:
    module = ModuleType("testdriver")
    kind = type("Cursor", (Cursor,), dict(vars(Cursor)))
    vars(module)["Cursor"] = kind
    monkeypatch.setitem(sys.modules, "testdriver", module)
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    assert recorder.Recorder is not None
    instrumentor = Instrumentor()
    with capture("sqlite3", clock=Clock()) as found:
        active = runtime.active()
        assert active is not None
        instrumentor.instrument(active.recorder)
        yield kind, found
        instrumentor.uninstrument()


def _figures(captured: Captured) -> list[tuple[Mapping[str, object], str | None, str, bool]]:
    return [
        (
            {name: value for name, value in charge.usage.items() if name != "time_ns"},
            charge.amount,
            charge.basis,
            charge.partial,
        )
        for charge in captured.charges
    ]


def test_the_figures_that_count_are_the_last_ones(
    driver: tuple[type[Cursor], Captured],
) -> None:
    kind, captured = driver
    cursor = kind()
    cursor.execute("SELECT 1")
    while cursor.fetchone() is not None:
        pass
    assert _figures(captured) == [
        ({"data_scanned_bytes": 3 * 2**30}, "0.014648437500000", "metered", False)
    ]
    (charge,) = captured.charges
    assert charge.rows == 3
    assert charge.vendor_id == "query-1"
    assert charge.price is not None
    assert charge.price.key == "aws.athena.sql/us-east-1"


@pytest.mark.parametrize("leave", ["close", "drop", "again"])
def test_who_walks_away_pays_for_what_was_read(
    driver: tuple[type[Cursor], Captured], leave: str
) -> None:
    kind, captured = driver
    cursor = kind()
    cursor.execute("SELECT 1")
    cursor.fetchone()
    if leave == "close":
        cursor.close()
    elif leave == "again":
        with pytest.raises(LookupError):
            cursor.execute("SELECT nowhere")
    else:
        del cursor
    assert _figures(captured)[0] == (
        {"data_scanned_bytes": 2**30},
        "0.004882812500000",
        "metered",
        True,
    )


def test_what_failed_still_costs(driver: tuple[type[Cursor], Captured]) -> None:
    kind, captured = driver
    with pytest.raises(LookupError):
        kind().execute("SELECT nowhere")
    assert _figures(captured) == [
        ({"data_scanned_bytes": 5}, "0.000047683715820", "metered", False)
    ]


def test_a_usage_says_what_its_price_depends_on(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    line = """
        [[price]]
        key = "{size}"
        provider = "me"
        service = "mine"
        sku = "mine"
        system = "mydb"
        meter = "used_seconds"
        dims = {{ size = "{size}" }}
        region = "global"
        regions = ["*"]
        unit = "hour"
        price = "{price}"
        currency = "USD"
        as_of = "2026-11-01"
        source = "our contract"
        """
    path.write_text(line.format(size="small", price="1") + line.format(size="large", price="8"))
    said: list[str] = []
    pricer = Pricer(PriceBook.load(path), "mydb", None, {"size": "small"}, said.append)
    hour = {"used_seconds": 3600}
    for _ in range(2):  # the second time by the short way, where there is one
        amounts = [pricer(hour), pricer({**hour, "size": "large"}), pricer({**hour, "tint": "red"})]
        assert [one and one.amount for one in amounts] == [10**15, 8 * 10**15, 10**15]
    assert pricer({**hour, "size": "huge"}) is None
    assert "size (small, large)" in said[0]
    # What has figures that make no sense keeps them, and has no price.
    assert pricer({**hour, "unpriced": "nobody knows the state PAUSED"}) is None
    assert len(said) == 1
