"""SQLAlchemy 2 over MySQL's drivers, synchronous and asynchronous: one charge a statement."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from tests.backends import require
from tests.servers.charges import Charges, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.backends import Server

# SQLAlchemy's name of a driver, ours, and the module to import.
DRIVERS = {
    "pymysql": ("pymysql", "pymysql"),
    "mysqldb": ("mysqlclient", "MySQLdb"),
    "mysqlconnector": ("mysql_connector", "mysql.connector"),
}
ORDERS = sa.Table(
    "alchemy_mysql_orders",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("cents", sa.Integer),
)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


def address(server: Server, driver: str) -> sa.URL:
    return sa.URL.create(
        f"mariadb+{driver}",
        username=server.user,
        password=server.password,
        host=server.host,
        port=server.port,
        database=server.database,
    )


def asked(charges: Charges) -> Counter[tuple[str, int | None]]:
    """How often each statement on our table ran, with its rows."""
    return Counter(
        (charge.operation, charge.rows)
        for charge in charges.new()
        if charge.statement is not None and ORDERS.name in charge.statement.text
    )


def work(connection: sa.Connection) -> None:
    connection.execute(ORDERS.insert(), [{"id": n, "cents": n} for n in range(100)])
    connection.execute(sa.update(ORDERS).where(ORDERS.c.id < 10).values(cents=0))
    assert len(connection.execute(sa.select(ORDERS)).all()) == 100
    assert connection.scalar(sa.select(sa.func.sum(ORDERS.c.cents))) == sum(range(10, 100))
    # SQLAlchemy cannot stream over mysql-connector's C cursor, with or without us.
    streams = connection.dialect.driver != "mysqlconnector"
    streamed = connection.execution_options(stream_results=streams).execute(sa.select(ORDERS.c.id))
    assert sum(1 for _ in streamed) == 100


def check(found: Counter[tuple[str, int | None]]) -> None:
    changed = found.pop(("UPDATE", 10), 0) + found.pop(("UPDATE", 9), 0)  # one was 0 already
    assert changed == 1
    assert found == {("BATCH INSERT", 100): 1, ("SELECT", 100): 2, ("SELECT", 1): 1}


@pytest.fixture(params=DRIVERS)
def charges(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Charges]]:
    driver: str = request.param
    ours, module = DRIVERS[driver]
    require(module)
    with instrumented(tmp_path / "ledger", ours) as charges:
        yield driver, charges


def test_one_charge_a_statement(charges: tuple[str, Charges], mariadb: Server) -> None:
    driver, entries = charges
    engine = sa.create_engine(address(mariadb, driver))
    with engine.begin() as connection:
        ORDERS.drop(connection, checkfirst=True)
        ORDERS.create(connection)
        entries.new()
        work(connection)
        check(asked(entries))
        ORDERS.drop(connection)
    engine.dispose()


async def test_one_charge_a_statement_asynchronously(mariadb: Server, tmp_path: Path) -> None:
    with instrumented(tmp_path / "ledger", "aiomysql") as charges:
        engine = create_async_engine(address(mariadb, "aiomysql"))

        def begin(connection: sa.Connection) -> None:
            ORDERS.drop(connection, checkfirst=True)
            ORDERS.create(connection)

        async with engine.begin() as connection:
            await connection.run_sync(begin)
            charges.new()
            await connection.run_sync(work)
            check(asked(charges))
            await connection.run_sync(ORDERS.drop)
        await engine.dispose()


def test_an_orm_flush_is_one_charge_a_statement(
    charges: tuple[str, Charges], mariadb: Server
) -> None:
    from sqlalchemy.orm import Session, registry

    driver, entries = charges
    mapper = registry()

    class Order:
        def __init__(self, **values: Any) -> None:
            for name, value in values.items():
                setattr(self, name, value)

    mapper.map_imperatively(Order, ORDERS)
    engine = sa.create_engine(address(mariadb, driver))
    ORDERS.drop(engine, checkfirst=True)
    ORDERS.create(engine)
    entries.new()
    with Session(engine) as session:
        session.add_all([Order(id=number, cents=number) for number in range(3)])
        session.commit()
        assert session.query(Order).count() == 3
    found = asked(entries)
    assert sum(found.values()) == 2, found
    assert found["BATCH INSERT", 3] == 1
    mapper.dispose()
    ORDERS.drop(engine)
    engine.dispose()
