"""An SQLAlchemy application: one model on four drivers, three of them sync and one async.

Run by tests/contract/test_apps.py; see script.py.
"""

from __future__ import annotations

import asyncio
import os
import sys

import costinsights

if "--instrument" in sys.argv:
    costinsights.instrument()

from sqlalchemy import URL, create_engine, func, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.apps.tracing import tell, tracer

POSTGRES = make_url(os.environ["APP_POSTGRES"])
MARIADB = URL.create(
    "mysql+pymysql",
    os.environ["APP_MARIADB_USER"],
    os.environ["APP_MARIADB_PASSWORD"],
    os.environ["APP_MARIADB_HOST"],
    int(os.environ["APP_MARIADB_PORT"]),
    os.environ["APP_MARIADB_DATABASE"],
)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "alchemy_orders"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cents: Mapped[int]


ORDERS = [{"id": 1, "cents": 250}, {"id": 2, "cents": 990}]
DEAR = select(Order.id).where(Order.cents > 300)
TOTAL = select(func.sum(Order.cents))


def sync(name: str, url: URL) -> None:
    engine = create_engine(url)
    with costinsights.attribute(asset=name), Session(engine) as session:
        Base.metadata.create_all(engine)
        session.add_all(Order(**order) for order in ORDERS)
        session.commit()
        assert session.scalars(DEAR).all() == [2]
        assert session.scalar(TOTAL) == 1240
        session.commit()
        Base.metadata.drop_all(engine)
    engine.dispose()


async def concurrent(name: str, url: URL) -> None:
    engine = create_async_engine(url)
    with costinsights.attribute(asset=name):
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all(Order(**order) for order in ORDERS)
            await session.commit()
            assert (await session.scalars(DEAR)).all() == [2]
            assert await session.scalar(TOTAL) == 1240
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


with tracer("alchemy").start_as_current_span("alchemy") as span:
    tell("alchemy", span)
    with costinsights.attribute(team="backend"):
        sync("psycopg", POSTGRES.set(drivername="postgresql+psycopg"))
        sync("pymysql", MARIADB)
        sync("sqlite3", make_url("sqlite:///alchemy.db"))
        asyncio.run(concurrent("asyncpg", POSTGRES.set(drivername="postgresql+asyncpg")))
