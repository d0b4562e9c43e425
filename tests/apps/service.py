"""An asyncio service with two pools: requests at the same time, one that fails, one given up.

Run by tests/contract/test_apps.py; see script.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Any

import costinsights

if "--instrument" in sys.argv:
    costinsights.instrument()

import asyncpg
import psycopg
from psycopg_pool import AsyncConnectionPool

from tests.apps.tracing import tell, tracer

POSTGRES = os.environ["APP_POSTGRES"]
TRACER = tracer("service")
REQUESTS = 8

Pool = AsyncConnectionPool[psycopg.AsyncConnection[tuple[Any, ...]]]


async def handle(number: int, pool: Pool, other: Any) -> int:
    """Answer one request: a statement through each pool, for the request's own asset."""
    name = f"request-{number}"
    with TRACER.start_as_current_span(name) as span, costinsights.attribute(asset=name):
        tell(name, span)
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT %s::int + 1 AS service_psycopg", (number,))
            row = await cursor.fetchone()
            assert row is not None
        # A driver that gives its connection back asks nothing that is the program's.
        doubled: int = await other.fetchval("SELECT $1::int * 2 AS service_asyncpg", row[0])
        return doubled


async def fail(pool: Pool) -> None:
    with costinsights.attribute(asset="failing"), contextlib.suppress(psycopg.Error):
        async with pool.connection() as connection:
            await connection.execute("SELECT 'secret' FROM service_missing")


async def give_up(other: Any) -> None:
    with costinsights.attribute(asset="slow"), contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(other.fetchval("SELECT pg_sleep(30) AS service_slow"), 0.2)


async def serve() -> None:
    untyped: Any = asyncpg
    with costinsights.attribute(team="web"):
        async with (
            AsyncConnectionPool[Any](POSTGRES, min_size=2, max_size=4, open=False) as pool,
            untyped.create_pool(POSTGRES, min_size=2, max_size=4) as other,
        ):
            answers = await asyncio.gather(*(handle(n, pool, other) for n in range(REQUESTS)))
            assert answers == [(n + 1) * 2 for n in range(REQUESTS)]
            await asyncio.gather(fail(pool), give_up(other))


asyncio.run(serve())
