"""A plain script: orders come from PostgreSQL and MariaDB, and are summed up in SQLite and DuckDB.

Run by tests/contract/test_apps.py with the servers' addresses in the environment. With
``--instrument`` it switches costinsights on itself; otherwise somebody else has, or nobody.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys

import costinsights

if "--instrument" in sys.argv:
    costinsights.instrument()

import duckdb
import psycopg
import pymysql
from opentelemetry import trace

from tests.apps.tracing import tell, tracer

POSTGRES = os.environ["APP_POSTGRES"]
MARIADB = {
    "host": os.environ["APP_MARIADB_HOST"],
    "port": int(os.environ["APP_MARIADB_PORT"]),
    "user": os.environ["APP_MARIADB_USER"],
    "password": os.environ["APP_MARIADB_PASSWORD"],
    "database": os.environ["APP_MARIADB_DATABASE"],
}


def from_postgres() -> list[tuple[int, int]]:
    with psycopg.connect(POSTGRES) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE script_orders (id integer, cents integer)")
        cursor.executemany("INSERT INTO script_orders VALUES (%s, %s)", [(1, 250), (2, 990)])
        cursor.execute("SELECT id, cents FROM script_orders WHERE cents > 7 ORDER BY id")
        return cursor.fetchall()


def from_mariadb() -> list[tuple[int, int]]:
    connection = pymysql.connect(**MARIADB)  # type: ignore[call-overload]
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE script_orders (id integer, cents integer)")
        cursor.execute("INSERT INTO script_orders VALUES (%s, %s)", (3, 400))
        cursor.execute("SELECT id, cents FROM script_orders")
        return list(cursor.fetchall())


def into_sqlite(orders: list[tuple[int, int]]) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE script_totals (id INTEGER, cents INTEGER)")
        connection.executemany("INSERT INTO script_totals VALUES (?, ?)", orders)
        assert connection.execute("SELECT sum(cents) FROM script_totals").fetchone() == (1640,)
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("SELECT 'a secret' FROM script_missing")


def into_duckdb(orders: list[tuple[int, int]]) -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE script_facts (id INTEGER, cents INTEGER)")
        connection.executemany("INSERT INTO script_facts VALUES (?, ?)", orders)
        found = connection.execute("SELECT count(*) FROM script_facts WHERE cents < 1000")
        assert found.fetchall() == [(3,)]


with tracer("script").start_as_current_span("script"):
    tell("script", trace.get_current_span())
    with costinsights.attribute(team="sales"):
        with costinsights.attribute(asset="orders"):
            rows = from_postgres() + from_mariadb()
        with costinsights.attribute(asset="totals"):
            into_sqlite(rows)
        with costinsights.attribute(asset="facts"):
            into_duckdb(rows)
