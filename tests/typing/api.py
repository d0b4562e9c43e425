"""The public API as type checkers see it: never run, only checked (`make types`)."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from typing_extensions import assert_type

import costinsights
from costinsights import Charge, Cost, DBAPIInstrumentor, Hook, NotEnabled, PriceBook, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from concurrent.futures import Executor, Future
    from pathlib import Path


def switched_on_and_off(folder: Path) -> None:
    assert_type(costinsights.instrument(), None)
    costinsights.instrument("psycopg", "sqlite3", ledger=folder, exporters=["jsonl", "otlp"])
    costinsights.instrument(attribution={"team": "growth"}, tagging="comment")
    costinsights.instrument(price_book=folder / "prices.toml", config={"service": "nightly"})
    assert_type(costinsights.flush(timeout=2.0), bool)
    assert_type(costinsights.uninstrument(), None)


def cost_of_a_scope() -> None:
    with costinsights.attribute(asset="orders", partition="2026-11-22", customer=7) as scope:
        assert_type(costinsights.current(), Cost)
        assert_type(scope.cost().amount, Decimal)
        assert_type(costinsights.current().currency, "str | None")
        assert_type(costinsights.current().calls, int)


@costinsights.attribute(job="nightly")
def work(day: str, *, full: bool = False) -> int:
    return len(day) + full


@costinsights.attribute(job="nightly")
async def fetch(day: str) -> list[str]:
    return [day]


@costinsights.attribute(job="nightly")
def rows(count: int) -> Iterator[int]:
    yield from range(count)


@costinsights.attribute(job="nightly")
async def pages(count: int) -> AsyncIterator[int]:
    for page in range(count):
        yield page


def a_decorated_function_keeps_its_type(executor: Executor) -> None:
    assert_type(work("2026-11-22", full=True), int)
    coroutine: Coroutine[Any, Any, list[str]] = fetch("2026-11-22")
    coroutine.close()
    assert_type(rows(3), "Iterator[int]")
    assert_type(pages(3), "AsyncIterator[int]")
    future: Future[Any] = executor.submit(costinsights.carry(work), "2026-11-22")
    future.result()
    assert_type(costinsights.child_environment(), dict[str, str])


def what_exporters_and_reports_read(charge: Charge, book: PriceBook) -> None:
    assert_type(charge.amount, "str | None")
    assert_type(charge.duration_ns, int)
    assert_type(charge.attribution, dict[str, str])
    assert_type(book.version, str)


class Instrumentor(DBAPIInstrumentor):
    name = "mydb"
    system = "mydb"
    driver = "mydb"
    supports = ("1", "2")
    hooks = (Hook("mydb:Cursor.execute"), Hook("mydb:Cursor.fetchall", fetch="all"))
    facts = {"address": "host"}

    def usage(self, cursor: Any, result: Any) -> Usage | None:
        return Usage(rows=1, meters={"data_scanned_bytes": 10}, vendor_id="q-1")


def refused() -> Callable[[], None]:
    try:
        costinsights.instrument("mydb")
    except NotEnabled as error:
        print(error)
    return costinsights.uninstrument
