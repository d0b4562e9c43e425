"""Layers above PostgreSQL's drivers, and other tools beside us: one charge a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.ext.asyncio import create_async_engine

import costinsights
from tests.servers.charges import Charges, instrumented, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from tests.backends import Server

DRIVERS = ("psycopg", "psycopg2", "asyncpg")

METADATA = sa.MetaData()
ORDERS = sa.Table(
    "orders_sa",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("cents", sa.Integer),
    prefixes=["TEMPORARY"],
)
INSERT_MANY = sa.insert(ORDERS)
MANY = [{"cents": number} for number in range(20)]


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", *DRIVERS) as charges:
        yield charges


def url(postgres: Server, driver: str) -> str:
    return postgres.dsn.replace("postgresql://", f"postgresql+{driver}://")


def about_orders(charges: Charges) -> list[Charge]:
    """Return the charges of the program's own statements, and not those of the layer's start."""
    return [
        charge
        for charge in charges.new()
        if charge.statement is not None and "orders_sa" in text_of(charge)
    ]


def expect(found: list[Charge]) -> None:
    assert [charge.operation.split()[-1] for charge in found] == [
        "TABLE",
        "INSERT",
        "INSERT",
        "SELECT",
        "UPDATE",
        "SELECT",
    ]
    # The count of what a statement returns or changes; a batch may be sent as one.
    assert [charge.rows for charge in found[3:]] == [21, 21, 21]
    assert all(charge.error is None and not charge.partial for charge in found)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_sqlalchemy(driver: str, charges: Charges, postgres: Server) -> None:
    engine = sa.create_engine(url(postgres, driver))
    with engine.begin() as connection:
        METADATA.create_all(connection, checkfirst=False)
        connection.execute(sa.insert(ORDERS).values(cents=1))
        connection.execute(INSERT_MANY, MANY)
        assert len(connection.execute(sa.select(ORDERS)).all()) == 21
        connection.execute(sa.update(ORDERS).values(cents=7))
        streamed = connection.execution_options(stream_results=True, max_row_buffer=5)
        assert len(streamed.execute(sa.select(ORDERS)).all()) == 21
    engine.dispose()
    expect(about_orders(charges))


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_sqlalchemy_asynchronously(driver: str, charges: Charges, postgres: Server) -> None:
    engine = create_async_engine(url(postgres, driver))
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all, checkfirst=False)
        await connection.execute(sa.insert(ORDERS).values(cents=1))
        await connection.execute(INSERT_MANY, MANY)
        assert len((await connection.execute(sa.select(ORDERS))).all()) == 21
        await connection.execute(sa.update(ORDERS).values(cents=7))
        result = await connection.stream(sa.select(ORDERS))
        assert len([row async for row in result]) == 21
    await engine.dispose()
    expect(about_orders(charges))


async def test_a_scope_reaches_through_sqlalchemys_greenlets(
    charges: Charges, postgres: Server
) -> None:
    engine = create_async_engine(url(postgres, "asyncpg"))
    with costinsights.attribute(asset="orders"):
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1 AS orders_sa"))
    await engine.dispose()
    [charge] = about_orders(charges)
    assert charge.attribution["asset"] == "orders"


# --- OpenTelemetry's own instrumentation on the same driver -------------------------------------


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    yield exporter
    if PsycopgInstrumentor().is_instrumented_by_opentelemetry:
        PsycopgInstrumentor().uninstrument()


def switch_on_theirs(exporter: InMemorySpanExporter) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    PsycopgInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)


def hooked() -> list[Any]:
    return [
        psycopg.connect,
        vars(psycopg.Connection)["connect"].__func__,
        vars(psycopg.AsyncConnection)["connect"].__func__,
        *(vars(kind)["execute"] for kind in (psycopg.Cursor, psycopg.AsyncCursor)),
    ]


@pytest.mark.parametrize("first_on", ["ours", "theirs"])
@pytest.mark.parametrize("first_off", ["ours", "theirs"])
def test_opentelemetry_on_the_same_driver_changes_nothing(
    first_on: str,
    first_off: str,
    spans: InMemorySpanExporter,
    postgres: Server,
    tmp_path: Path,
) -> None:
    before = hooked()
    for name in (first_on, *{"ours", "theirs"} - {first_on}):
        if name == "ours":
            costinsights.instrument("psycopg", ledger=tmp_path, exporters=[])
        else:
            switch_on_theirs(spans)
    charges = Charges(tmp_path)
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("SELECT generate_series(1, 3) AS both")
        with connection.cursor() as cursor:
            cursor.executemany("SELECT %s::int AS both", [(1,), (2,)])
    found = charges.new()
    assert [(charge.operation, charge.rows) for charge in found] == [
        ("SELECT", 3),
        ("BATCH SELECT", 2),
    ]
    # Theirs is above ours: each charge is a child of the span that it ran in.
    finished = spans.get_finished_spans()
    assert [charge.parent_span_id for charge in found] == [
        f"{span.context.span_id:016x}" for span in finished if span.context is not None
    ]
    for name in (first_off, *{"ours", "theirs"} - {first_off}):
        if name == "ours":
            costinsights.uninstrument()
        else:
            PsycopgInstrumentor().uninstrument()
    after = hooked()
    assert all(new is old for new, old in zip(after[3:], before[3:], strict=True))
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("SELECT 1")
    assert not charges.new()
    assert len(spans.get_finished_spans()) == len(finished)
