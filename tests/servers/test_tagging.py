"""What real servers see of tags, and what tags do not do to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import scalar_row

import costinsights
from costinsights.ledger.reader import read_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from tests.backends import Server

NAME = "SELECT current_setting('application_name')"
SEEN = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"
TAG = "ci,asset=orders,job=nightly"


@pytest.fixture
def native(tmp_path: Path) -> Iterator[Path]:
    costinsights.instrument(
        "psycopg",
        "pymysql",
        ledger=tmp_path,
        exporters=[],
        tagging="native",
        config={"service": "etl"},
    )
    yield tmp_path
    costinsights.uninstrument()


@pytest.fixture
def comment(tmp_path: Path) -> Iterator[Path]:
    costinsights.instrument("psycopg", "pymysql", ledger=tmp_path, exporters=[], tagging="comment")
    yield tmp_path
    costinsights.uninstrument()


def first_entries(ledger: Path) -> list[Charge]:
    return [charge for charge in read_ledger(str(ledger)) if charge.revision == 0]


def tags(ledger: Path) -> list[str | None]:
    return [charge.tag for charge in first_entries(ledger)]


def ask(connection: psycopg.Connection[Any], query: str) -> object:
    return connection.cursor(row_factory=scalar_row).execute(query.encode()).fetchone()


# --- PostgreSQL's application_name --------------------------------------------------------------


@pytest.mark.parametrize(
    ("in_dsn", "arguments", "environment", "name"),
    [
        ("", {}, None, "ci,job=nightly"),
        ("my app", {}, None, "my app,ci,job=nightly"),
        ("", {"application_name": "app"}, None, "app,ci,job=nightly"),
        ("x", {"application_name": "app"}, None, "app,ci,job=nightly"),
        ("", {}, "env", "env,ci,job=nightly"),
        ("x" * 63, {}, None, "x" * 63),
    ],
)
def test_a_connection_is_named_behind_the_programs_own_name(
    native: Path,
    postgres: Server,
    in_dsn: str,
    arguments: dict[str, str],
    environment: str | None,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if environment is not None:
        monkeypatch.setenv("PGAPPNAME", environment)
    dsn = make_conninfo(postgres.dsn, application_name=in_dsn) if in_dsn else postgres.dsn
    for connect in (psycopg.connect, psycopg.Connection.connect):
        with costinsights.attribute(job="nightly", asset="orders"):
            connection = connect(dsn, **arguments)  # type: ignore[arg-type]
        with connection:
            assert ask(connection, NAME) == name
    tag = None if name == "x" * 63 else "ci,job=nightly"
    assert tags(native) == [tag, tag]


def test_outside_of_any_job_the_service_names_the_connection(
    native: Path, postgres: Server
) -> None:
    with psycopg.connect(postgres.dsn) as connection:
        assert ask(connection, NAME) == "ci,service=etl"
    assert tags(native) == ["ci,service=etl"]


async def test_an_asynchronous_connection_is_named_too(native: Path, postgres: Server) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        row = await (await connection.execute(NAME)).fetchone()
    assert row == ("ci,service=etl",)
    assert tags(native) == ["ci,service=etl"]


def test_the_connections_of_a_pool_are_named(native: Path, postgres: Server) -> None:
    from psycopg_pool import ConnectionPool

    with (
        ConnectionPool(postgres.dsn, min_size=1, open=True) as pool,
        pool.connection() as connection,
    ):
        assert ask(connection, NAME) == "ci,service=etl"


def test_a_connection_made_before_has_no_tag_and_none_is_claimed(
    postgres: Server, tmp_path: Path
) -> None:
    with psycopg.connect(postgres.dsn) as connection:
        costinsights.instrument("psycopg", ledger=tmp_path, exporters=[], tagging="native")
        try:
            assert ask(connection, NAME) == ""
        finally:
            costinsights.uninstrument()
    assert tags(tmp_path) == [None]


def test_the_text_is_the_programs_own(native: Path, postgres: Server) -> None:
    with costinsights.attribute(job="nightly"), psycopg.connect(postgres.dsn) as connection:
        assert ask(connection, SEEN) == SEEN


def test_a_connection_string_that_is_wrong_fails_as_ever(native: Path) -> None:
    with pytest.raises(psycopg.ProgrammingError):
        psycopg.connect("not a connection string")


def test_by_default_no_connection_is_hooked(postgres: Server, tmp_path: Path) -> None:
    before = psycopg.connect, vars(psycopg.Connection)["connect"]
    costinsights.instrument("psycopg", ledger=tmp_path, exporters=[])
    try:
        assert (psycopg.connect, vars(psycopg.Connection)["connect"]) == before
        with psycopg.connect(postgres.dsn) as connection:
            assert ask(connection, NAME) == ""
    finally:
        costinsights.uninstrument()


def test_switched_off_everything_is_what_it_was(tmp_path: Path) -> None:
    before = [vars(psycopg)["connect"], vars(psycopg.AsyncConnection)["connect"]]
    costinsights.instrument("psycopg", ledger=tmp_path, exporters=[], tagging="native")
    during = [vars(psycopg)["connect"], vars(psycopg.AsyncConnection)["connect"]]
    costinsights.uninstrument()
    after = [vars(psycopg)["connect"], vars(psycopg.AsyncConnection)["connect"]]
    assert all(one is not other for one, other in zip(before, during, strict=True))
    assert all(one is other for one, other in zip(before, after, strict=True))


# --- MySQL's program_name -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({}, "ci,job=nightly"), ({"program_name": "app"}, "app,ci,job=nightly")],
)
def test_a_mysql_connection_is_named(
    native: Path, mariadb: Server, arguments: dict[str, str], name: str
) -> None:
    connect: Any = pymysql.connect
    with costinsights.attribute(job="nightly"):
        connection = connect(
            host=mariadb.host,
            port=mariadb.port,
            user=mariadb.user,
            password=mariadb.password,
            database=mariadb.database,
            **arguments,
        )
    with connection, connection.cursor() as cursor:
        assert connection._connect_attrs["program_name"] == name
        cursor.execute("SELECT @@performance_schema")
        if cursor.fetchone() == (1,):  # the server only keeps what it is told when this is on
            cursor.execute(
                "SELECT ATTR_VALUE FROM performance_schema.session_account_connect_attrs"
                " WHERE ATTR_NAME = 'program_name' AND PROCESSLIST_ID = CONNECTION_ID()"
            )
            assert cursor.fetchone() == (name,)
    assert set(tags(native)) == {"ci,job=nightly"}


# --- comments -----------------------------------------------------------------------------------


def test_a_comment_keeps_prepared_statements_alive(comment: Path, postgres: Server) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for number in range(10):
            run = str(number)
            with costinsights.attribute(asset="orders", job="nightly", run=run, partition=run):
                connection.execute("SELECT %s::int", (number,))
        prepared = ask(connection, "SELECT count(*) FROM pg_prepared_statements")
        statements = ask(
            connection, "SELECT string_agg(statement, '|') FROM pg_prepared_statements"
        )
    assert prepared == 1
    assert statements == f"SELECT $1::int /*{TAG}*/"
    assert tags(comment)[:10] == [TAG] * 10


def test_the_server_sees_the_comment(comment: Path, postgres: Server) -> None:
    with psycopg.connect(postgres.dsn) as connection, costinsights.attribute(asset="orders"):
        assert ask(connection, SEEN) == f"{SEEN} /*ci,asset=orders*/"
        with connection.cursor(name="server_side") as cursor:
            rows = list(cursor.execute("SELECT generate_series(1, 3)"))
        streamed = list(connection.cursor().stream("SELECT generate_series(1, 3)"))
    assert rows == streamed == [(1,), (2,), (3,)]
    assert set(tags(comment)) == {"ci,asset=orders"}


async def test_an_asynchronous_stream_is_tagged(comment: Path, postgres: Server) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        with costinsights.attribute(asset="orders"):
            rows = [row async for row in connection.cursor().stream("SELECT generate_series(1, 3)")]
    assert rows == [(1,), (2,), (3,)]
    assert tags(comment) == ["ci,asset=orders"]


def test_copy_several_statements_and_bulk_inserts_are_left_alone(
    comment: Path, postgres: Server
) -> None:
    with psycopg.connect(postgres.dsn) as connection, costinsights.attribute(asset="orders"):
        cursor = connection.cursor()
        cursor.execute("CREATE TEMPORARY TABLE tagged (a int)")
        with cursor.copy("COPY tagged FROM STDIN") as copy:
            copy.write_row((1,))
        cursor.executemany("INSERT INTO tagged VALUES (%s)", [(2,), (3,)])
        cursor.execute("INSERT INTO tagged VALUES (4); INSERT INTO tagged VALUES (5)")
        assert ask(connection, "SELECT sum(a) FROM tagged;") == 15
    assert set(tags(comment)) == {None}


def test_a_bulk_insert_of_pymysql_stays_one_statement(comment: Path, mariadb: Server) -> None:
    connection = pymysql.connect(
        host=mariadb.host,
        port=mariadb.port,
        user=mariadb.user,
        password=mariadb.password,
        database=mariadb.database,
    )
    with connection, connection.cursor() as cursor, costinsights.attribute(asset="orders"):
        cursor.execute("CREATE TEMPORARY TABLE tagged (a int)")
        cursor.execute("SHOW SESSION STATUS LIKE 'Com_insert'")
        before = cursor.fetchone()
        cursor.executemany("INSERT INTO tagged VALUES (%s)", [(number,) for number in range(100)])
        cursor.execute("SHOW SESSION STATUS LIKE 'Com_insert'")
        after = cursor.fetchone()
        cursor.execute("SELECT INFO FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()")
        seen = cursor.fetchone()
    assert before is not None
    assert after is not None
    assert int(after[1]) - int(before[1]) == 1
    assert seen is not None
    assert seen[0].endswith(" /*ci,asset=orders*/")
