"""`costinsights settle trino` on a real Trino: its list, its events, and a table of them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights.settlement.history import MARK, HistoryError, utc
from costinsights.settlement.presto import PrestoHistory
from costinsights.settlement.settling import settle
from costinsights.settlement.trino import COLUMNS, FIELDS, TrinoHistory
from tests.servers.charges import Charges, instrumented
from tests.servers.trino_tpch import TPCH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.history import Figure
    from tests.servers.trino_server import Coordinator

trino: Any = import_module("trino")
QUERIES = (1, 6, 13, 14)
PRICE = Decimal("36.00")
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


class Ran:
    """A program that ran a few queries, and was instrumented for all but the last of them."""

    def __init__(self, ledger: Path, server: Coordinator) -> None:
        self.ledger, self.server = ledger, server
        self.begun = datetime.now(timezone.utc)
        with instrumented(ledger, "trino") as charges:
            self.ids = [self._run(number, f"tpch_{number}") for number in QUERIES]
            self.charges = {charge.vendor_id: charge for charge in charges.new()}
        assert set(self.charges) == set(self.ids)
        self.outside = self._run(12, "outside")
        self.since = self.begun.replace(minute=0, second=0, microsecond=0)

    def _run(self, number: int, asset: str) -> str:
        connection = trino.dbapi.connect(
            host=self.server.host,
            port=self.server.port,
            user="analyst",
            source="nightly",
            client_tags=["ci:asset=late"] if asset == "outside" else None,
            catalog="tpch",
            schema="tiny",
        )
        with connection, costinsights.attribute(asset=asset):
            cursor = connection.cursor()
            cursor.execute(TPCH[number])
            cursor.fetchall()
            query: str = cursor.query_id
            return query

    def settle(
        self, history: TrinoHistory, *, since: datetime | None = None, **more: Any
    ) -> list[Charge]:
        """Settle, three hours after the queries, and return what it wrote."""
        look = Charges(self.ledger)
        look.new()
        settle(
            "trino",
            since or self.since,
            self.begun + HOUR,
            ledger=self.ledger,
            history=history,
            config={
                "capacity": [{"system": "trino", "price": str(PRICE), "currency": "USD"}],
            },
            now=self.begun + 3 * HOUR,
            **more,
        )
        return look.new()


@pytest.fixture(scope="module")
def server(trino_coordinator: Coordinator) -> Coordinator:
    return trino_coordinator


@pytest.fixture
def ran(tmp_path: Path, server: Coordinator) -> Ran:
    return Ran(tmp_path / "ledger", server)


def options(server: Coordinator, **more: object) -> dict[str, object]:
    return {"url": server.url, **more}


def events_of(ran: Ran, path: Path) -> dict[str, object]:
    """Write what the event listener sent to a file, as a collector does."""
    assert ran.server.events is not None
    found = [ran.server.events.of(query) for query in (*ran.ids, ran.outside)]
    path.write_text("".join(json.dumps(event) + "\n" for event in found))
    return options(ran.server, events=[str(path)])


def is_paid_for(charges: list[Charge], ran: Ran) -> Decimal:
    """Return how many hours the shares, and what was idle, add up to."""
    assert {charge.currency for charge in charges} == {"USD"}
    assert {charge.vendor_id for charge in charges} >= {*ran.ids}
    return sum((Decimal(charge.amount or 0) for charge in charges), Decimal(0)) / PRICE


def test_the_coordinators_list_settles_by_cpu_time(ran: Ran) -> None:
    history = TrinoHistory(options(ran.server, history=1000))
    # The time before the coordinator was started is nobody's: it knows nothing of it. Other tests
    # may have started it in an hour before this one's.
    found = ran.settle(history, since=ran.since - 24 * HOUR, all=True)
    assert 0 < is_paid_for(found, ran) < 26
    assert "remembers its queries from" in history.incomplete[0]
    by_id = {charge.vendor_id: charge for charge in found}
    for query in ran.ids:
        before, after = ran.charges[query], by_id[query]
        assert (after.charge_id, after.basis) == (before.charge_id, "allocated")
        assert after.attribution["asset"] == before.attribution["asset"]
        assert after.rows == before.rows
    first, second = (Decimal(by_id[query].amount or 0) for query in ran.ids[:2])
    cpu = [Decimal(str(ran.charges[query].usage["cpu_time_ms"])) for query in ran.ids[:2]]
    # Figures of three digits, and a query's time may lie in two hours.
    assert first / second == pytest.approx(cpu[0] / cpu[1], rel=Decimal("0.1"))
    outside = by_id[ran.outside]
    assert outside.attribution["asset"] == "late"
    assert outside.service == "nightly"


def test_twice_is_once(ran: Ran) -> None:
    history = options(ran.server, history=1000)
    assert ran.settle(TrinoHistory(history))
    assert [c for c in ran.settle(TrinoHistory(history)) if c.vendor_id in ran.ids] == []


def test_events_have_the_exact_figures(ran: Ran, tmp_path: Path) -> None:
    given = events_of(ran, tmp_path / "events.jsonl")
    found = {figure.vendor_id: figure for figure in read(TrinoHistory(given), ran)}
    assert set(found) == {*ran.ids, ran.outside}
    for query in ran.ids:
        charge = ran.charges[query]
        figure = found[query]
        for meter in ("cpu_time_ms", "wall_time_ms", "processed_rows", "peak_memory_bytes"):
            assert figure.meters[meter] == charge.usage[meter], meter
        assert (figure.rows, figure.weight) == (charge.rows, charge.usage["cpu_time_ms"])
        assert (figure.user, figure.program, figure.error) == ("analyst", "nightly", None)
    hours = is_paid_for(ran.settle(TrinoHistory(given), all=True), ran)
    assert hours == hours.to_integral_value() > 0


def read(history: TrinoHistory, ran: Ran) -> list[Figure]:
    history.open()
    try:
        return list(history.read(ran.since, ran.since + 2 * HOUR))
    finally:
        history.close()


def test_lines_that_are_no_events_are_counted_and_left(ran: Ran, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    given = events_of(ran, path)
    path.write_text('{"torn": \n' + path.read_text() + '{"endTime": 1}\n')
    history = TrinoHistory(given)
    assert len(read(history, ran)) == len(QUERIES) + 1
    assert history.incomplete == [f"{path} has 2 lines that are no events"]
    with pytest.raises(HistoryError, match="no file is there"):
        read(TrinoHistory(options(ran.server, events=[str(tmp_path / "none*")])), ran)


@pytest.fixture
def table(ran: Ran) -> Iterator[str]:
    """The MySQL event listener's table, filled with what the server itself reported."""
    assert ran.server.events is not None
    name = "memory.default.trino_queries"
    kinds = {
        column: "bigint" if column.endswith(("_millis", "_rows", "_bytes")) else "varchar"
        for column in COLUMNS
    }
    declared = ", ".join(f'"{column}" {kind}' for column, kind in kinds.items())
    connection = trino.dbapi.connect(host=ran.server.host, port=ran.server.port, user="writer")
    with connection:
        cursor = connection.cursor()
        cursor.execute(f"create table {name} ({declared})")
        rows = [literals(ran.server.events.of(query)) for query in (*ran.ids, ran.outside)]
        cursor.execute(f"insert into {name} values {', '.join(rows)}")
        yield name
        cursor.execute(f"drop table {name}")


def literals(event: dict[str, Any]) -> str:
    metadata, context, used = event["metadata"], event["context"], event["statistics"]
    values: dict[str, object] = {
        "query_id": metadata["queryId"],
        "query": metadata["query"],
        "user": context["user"],
        "source": context["source"],
        "client_tags_json": json.dumps(context["clientTags"]),
        "catalog": context["catalog"],
        "query_state": metadata["queryState"],
        "output_rows": used["outputRows"],
        "written_rows": used["writtenRows"],
    }
    for meter, (column, field, _) in FIELDS.items():
        scale = 1000 if meter.endswith("_ms") else 1
        values[column] = round(used[field] * scale)
    return "({})".format(", ".join(literal(values.get(column)) for column in COLUMNS))


def literal(value: object) -> str:
    if value is None:
        return "null"
    return str(value) if isinstance(value, int) else "'{}'".format(str(value).replace("'", "''"))


def test_a_listeners_table_is_read_with_one_query_that_is_marked(ran: Ran, table: str) -> None:
    history = TrinoHistory(options(ran.server, table=table))
    assert table in history.plan(ran.since, ran.since + HOUR).reads[0]
    found = {figure.vendor_id: figure for figure in read(history, ran)}
    assert set(found) == {*ran.ids, ran.outside}
    assert history.requests == 1
    for query in ran.ids:
        charge, figure = ran.charges[query], found[query]
        assert figure.meters["cpu_time_ms"] == charge.usage["cpu_time_ms"]
        assert abs((figure.started_at - utc(charge.started_at)).total_seconds()) < 30
        assert figure.ended_at is not None
    ours = [query for query in ran.server.page("/v1/query") if MARK in query["query"]]
    assert len(ours) == 1
    assert ours[0]["session"]["clientTags"] == [MARK]
    with pytest.raises(HistoryError, match="does not exist"):
        read(TrinoHistory(options(ran.server, table=f"{table}_2")), ran)


def test_what_is_forgotten_is_said(ran: Ran) -> None:
    for kept in (1, 1000):
        history = TrinoHistory(options(ran.server, history=kept))
        history.open()
        assert list(history.read(ran.begun - 9 * HOUR, ran.begun - 8 * HOUR)) == []
        assert list(history.capacity(ran.since - 9 * HOUR, ran.since - 8 * HOUR)) == []
        assert "settle more often, or have an event listener" in history.incomplete[0]
        stretches = list(history.capacity(ran.since, ran.since + 2 * HOUR))
        assert stretches[-1].ended_at == ran.since + 2 * HOUR
        history.close()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "url"),
        ({"url": "trino.example.com"}, "url is not like"),
        ({"url": "http://127.0.0.1", "password": "s3cret"}, "https only"),
        ({"url": "http://127.0.0.1", "table": "a; drop table b"}, "table is not like"),
    ],
)
@pytest.mark.parametrize("kind", [TrinoHistory, PrestoHistory])
def test_wrong_options(kind: type[TrinoHistory], given: dict[str, object], why: str) -> None:
    with pytest.raises(HistoryError, match=why):
        kind(given)


def test_a_coordinator_that_is_not_there() -> None:
    history = TrinoHistory({"url": "http://127.0.0.1:9"})
    now = datetime.now(timezone.utc)
    with pytest.raises(HistoryError, match="does not answer"):
        list(history.read(now - HOUR, now))
