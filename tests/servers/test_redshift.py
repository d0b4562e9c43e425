"""redshift_connector, and PostgreSQL's drivers at a Redshift host: one charge a statement.

Emulator: PostgreSQL behind a start-up proxy (`redshift_server`); the drivers are unmodified.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pandas as pd
import psycopg
import psycopg2
import pytest
import redshift_connector
import sqlalchemy as sa
from redshift_connector.error import InterfaceError, ProgrammingError

import costinsights
from costinsights.query_group import query_group
from tests.servers.charges import Charges, instrumented, text_of
from tests.servers.redshift_server import Redshift, redshift

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costinsights.records import Charge
    from tests.backends import Server

DRIVERS = ("redshift_connector", "psycopg", "psycopg2", "asyncpg")
SECRET = "s3cr3t-77ac"


@pytest.fixture(scope="module")
def server(postgres: Server) -> Iterator[Redshift]:
    with redshift(postgres) as server:
        yield server


@pytest.fixture(autouse=True)
def clean(server: Redshift, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    server.clear()


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", *DRIVERS) as charges:
        yield charges


def connect(server: Redshift, **more: Any) -> Any:
    return redshift_connector.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=server.database,
        ssl=False,
        **more,
    )


@pytest.fixture
def connection(charges: Charges, server: Redshift) -> Iterator[Any]:
    with connect(server) as connection:
        yield connection


def test_a_charge_says_what_ran_where(connection: Any, charges: Charges, server: Redshift) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 3) AS a, 'x' AS b WHERE 1 < %s", (10,))
        assert len(cursor.fetchall()) == 3
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("aws.redshift", "redshift_connector")
    assert charge.resource.address == server.host
    assert (charge.resource.port, charge.resource.namespace) == (server.port, server.database)
    assert text_of(charge) == "SELECT generate_series(?, ?) AS a, ? AS b WHERE ? < %s"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 3, False)


def script(connection: Any) -> None:
    """Everything that a program does with the driver."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE t (a INT, b VARCHAR(20))")
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(1, "x"), (2, "y"), (3, "z")])
        cursor.execute("SELECT a FROM t ORDER BY a")
        assert cursor.fetchone() == [1]
        assert cursor.fetchmany(2) == ([2], [3])
        cursor.execute("SELECT a FROM t ORDER BY a")
        assert list(cursor.fetch_dataframe()["a"]) == [1, 2, 3]
        cursor.execute("UPDATE t SET b = 'q' WHERE a > 1")
        assert cursor.rowcount == 2
    connection.commit()
    assert connection.run("SELECT count(*) FROM t") == ([3],)
    connection.rollback()


def test_the_server_sees_what_it_sees_without_us(server: Redshift, tmp_path: Path) -> None:
    def seen() -> list[tuple[str, bytes]]:
        server.messages.clear()
        with connect(server) as connection:
            script(connection)
        # The good-bye may still be under way.
        return [(kind, body) for kind, body in server.messages if kind != "X"]

    bare = seen()
    with instrumented(tmp_path / "ledger", "redshift_connector") as charges:
        ours = seen()
        found = charges.new()
    assert ours == bare  # the start-up and its application_name included
    assert [(charge.operation, charge.rows) for charge in found] == [
        ("CREATE TABLE", None),
        ("BATCH INSERT", 3),
        ("SELECT", 3),
        ("SELECT", 3),
        ("UPDATE", 2),
        ("SELECT", 1),
    ]
    assert found[1].usage["batch_size"] == 3
    assert seen() == bare  # and again without


def test_a_begin_is_part_of_the_statement_behind_it(
    connection: Any, charges: Charges, server: Redshift
) -> None:
    server.messages.clear()
    connection.cursor().execute("SELECT 1")
    assert server.statements() == ["begin transaction", "SELECT 1"]
    charges.one()
    connection.rollback()
    connection.autocommit = True
    server.messages.clear()
    connection.cursor().execute("SELECT 2")
    assert server.statements() == ["SELECT 2"]
    charges.one()


def test_a_procedure(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE p (a INT)")
        cursor.execute(
            "CREATE OR REPLACE PROCEDURE fill(n INT) LANGUAGE sql AS 'INSERT INTO p VALUES (n)'"
        )
        charges.new()
        cursor.callproc("fill", [4])
    charge = charges.one()
    assert (charge.operation, text_of(charge)) == ("CALL", "CALL fill")
    connection.rollback()


def test_a_written_dataframe_is_its_two_statements(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE frames (a INT, b VARCHAR(9))")
        charges.new()
        cursor.write_dataframe(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), "frames")
    assert [(charge.operation, charge.rows) for charge in charges.new()] == [
        ("SELECT", 1),  # its look-up of the table
        ("BATCH INSERT", 2),
    ]
    connection.rollback()


def test_a_bulk_insert_is_what_it_sends(connection: Any, charges: Charges, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,x\n2,y\n3,z\n")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bulk (a VARCHAR(9), b VARCHAR(9))")
        charges.new()
        cursor.insert_data_bulk(str(path), "bulk", [0, 1], ["a", "b"], ",", batch_size=2)
    found = charges.new()
    assert [charge.rows for charge in found if charge.operation == "INSERT"] == [2, 1]
    assert len(found) == 5  # and three look-ups
    connection.rollback()


def test_a_statement_that_fails_costs(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        with pytest.raises(ProgrammingError) as caught:
            cursor.execute(f"SELECT '{SECRET}' FROM nowhere")
        assert caught.value.args[0]["C"] == "42P01"
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "redshift_connector.error.ProgrammingError"
    assert SECRET not in charges.text()
    assert connection.rollback() is None


def test_a_closed_cursor_or_connection_fails_as_always(charges: Charges, server: Redshift) -> None:
    connection = connect(server)
    cursor, other = connection.cursor(), connection.cursor()
    cursor.close()
    with pytest.raises(InterfaceError, match="Cursor closed"):
        cursor.execute("SELECT 1")
    connection.close()
    with pytest.raises(InterfaceError, match="connection is closed"):
        other.execute("SELECT 1")
    found = charges.new()
    assert [charge.error is not None for charge in found] == [True, True]
    assert [charge.resource.address for charge in found] == [None, None]


def test_no_warning_is_ours(connection: Any, charges: Charges) -> None:
    with warnings.catch_warnings(record=True) as caught, connection.cursor() as cursor:
        warnings.simplefilter("always")
        cursor.execute("SELECT 1")
        assert cursor.connection is connection
    assert [str(warning.message) for warning in caught] == [
        "DB-API extension cursor.connection used"
    ]
    charges.one()


def test_nothing_secret_is_written(connection: Any, charges: Charges, server: Redshift) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s", (SECRET,))
    text = charges.text()
    assert SECRET not in text
    assert server.password not in text


def test_a_connection_opened_before_leads_to_its_address(server: Redshift, tmp_path: Path) -> None:
    with connect(server) as connection, instrumented(tmp_path, "redshift_connector") as charges:
        connection.cursor().execute("SELECT 1")
        charge = charges.one()
    assert (charge.resource.address, charge.resource.port) == ("127.0.0.1", server.port)


# --- tags, for those who ask --------------------------------------------------------------------


def groups(server: Redshift) -> list[str]:
    return [text for text in server.statements() if "query_group" in text]


def test_a_query_group_is_set_and_taken_back(
    connection: Any, charges: Charges, server: Redshift
) -> None:
    connection.autocommit = True
    with costinsights.attribute(asset="shop/orders", job="nightly"):
        server.messages.clear()
        with query_group(connection) as label:
            assert label == "ci,asset=shop.orders,job=nightly"
            connection.cursor().execute("SELECT 1")
    assert groups(server) == [
        "SHOW query_group",
        "SET query_group TO 'ci,asset=shop.orders,job=nightly'",
        "RESET query_group",
    ]
    assert text_of(charges.one()) == "SELECT ?"


def test_a_query_group_of_the_programs_own_is_left_alone(
    connection: Any, charges: Charges, server: Redshift
) -> None:
    connection.autocommit = True
    connection.cursor().execute("SET query_group TO 'etl'")
    server.messages.clear()
    with costinsights.attribute(asset="orders"), query_group(connection) as label:
        assert label is None
    assert groups(server) == ["SHOW query_group"]
    cursor = connection.cursor()
    cursor.execute("SHOW query_group")
    assert cursor.fetchone() == ["etl"]


def test_nothing_is_sent_where_there_is_nothing_to_say(
    connection: Any, charges: Charges, server: Redshift
) -> None:
    server.messages.clear()
    with query_group(connection) as label:
        assert label is None
    assert server.messages == []


def test_a_query_group_is_taken_back_after_an_error(
    connection: Any, charges: Charges, server: Redshift
) -> None:
    connection.autocommit = True
    with (
        pytest.raises(ProgrammingError),
        costinsights.attribute(asset="orders"),
        query_group(connection),
    ):
        connection.cursor().execute("SELECT nope")
    assert groups(server)[-1] == "RESET query_group"


def test_a_comment_only_for_those_who_ask(server: Redshift, tmp_path: Path) -> None:
    costinsights.instrument("redshift_connector", ledger=tmp_path, exporters=[], tagging="comment")
    try:
        with connect(server) as connection, costinsights.attribute(asset="orders"):
            connection.autocommit = True
            connection.cursor().execute("SELECT 1")
            connection.cursor().execute("SELECT 2")
    finally:
        costinsights.uninstrument()
    tagged = [text for text in server.statements() if "/*" in text]
    assert tagged == ["SELECT 1 /*ci,asset=orders*/", "SELECT 2 /*ci,asset=orders*/"]


# --- the id of a query, for those who ask -------------------------------------------------------


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Charges]:
    monkeypatch.setenv("COSTINSIGHTS_REDSHIFT_QUERY_ID", "1")
    with instrumented(tmp_path / "ledger", "redshift_connector") as charges:
        yield charges


def test_the_id_of_a_query_where_it_is_asked_for(asking: Charges, server: Redshift) -> None:
    with connect(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT set_config('rs.last_query_id', '4711', false)")
        assert cursor.fetchall() == (["4711"],)
        charge = asking.one()
        assert (charge.vendor_id, charge.rows) == ("4711", 1)
        cursor.execute("SELECT generate_series(1, 3)")
        assert len(cursor.fetchall()) == 3  # what it left is still there
        assert asking.one().vendor_id == "4711"
        cursor.execute("commit")  # no transaction is opened by asking
        assert asking.one().vendor_id is None
        assert not connection.in_transaction


def test_without_an_id_there_is_none(asking: Charges, server: Redshift) -> None:
    with connect(server) as connection:
        connection.cursor().execute("SELECT 1")
        assert asking.one().vendor_id is None


# --- layers above -------------------------------------------------------------------------------


def engine(server: Redshift, driver: str) -> sa.Engine:
    url = sa.URL.create(
        f"redshift+{driver}",
        server.user,
        server.password,
        server.host,
        server.port,
        server.database,
    )
    plain = {"ssl": False} if driver == "redshift_connector" else {"sslmode": "disable"}
    return sa.create_engine(url, connect_args=plain)


def about_shop(charges: Charges) -> list[Charge]:
    """Return the charges of the program's own statements, and not those of the layer's start."""
    return [
        charge
        for charge in charges.new()
        if charge.statement is not None and "shop_sa" in text_of(charge)
    ]


@pytest.mark.parametrize("driver", ["redshift_connector", "psycopg2"])
def test_sqlalchemy(driver: str, charges: Charges, server: Redshift) -> None:
    made = engine(server, driver)
    with made.connect() as connection:
        connection.execute(sa.text("CREATE TEMPORARY TABLE shop_sa (a INT)"))
        connection.execute(
            sa.text("INSERT INTO shop_sa VALUES (:a)"), [{"a": number} for number in range(3)]
        )
        assert len(connection.execute(sa.text("SELECT a FROM shop_sa")).all()) == 3
        connection.execute(sa.text("UPDATE shop_sa SET a = a + :n"), {"n": 1})
        connection.rollback()
    made.dispose()
    found = about_shop(charges)
    assert [charge.operation for charge in found] == [
        "CREATE TABLE",
        "BATCH INSERT",
        "SELECT",
        "UPDATE",
    ]
    assert [charge.rows for charge in found[2:]] == [3, 3]
    assert {charge.instrumentor for charge in found} == {driver}


@pytest.mark.parametrize("driver", ["redshift_connector", "psycopg2"])
def test_pandas_reads_one_statement(driver: str, charges: Charges, server: Redshift) -> None:
    made = engine(server, driver)
    with made.connect() as connection:
        frame = pd.read_sql(sa.text("SELECT generate_series(1, 4) AS shop_sa"), connection)
    made.dispose()
    assert list(frame["shop_sa"]) == [1, 2, 3, 4]
    [charge] = about_shop(charges)
    assert charge.rows == 4


def test_double_instrumentation_counts_once(charges: Charges, server: Redshift) -> None:
    costinsights.instrument("redshift_connector")
    with connect(server) as connection:
        connection.cursor().execute("SELECT 1")
    charges.one()


# --- threads ------------------------------------------------------------------------------------


def test_connections_of_many_threads(charges: Charges, server: Redshift) -> None:
    def work(number: int) -> None:
        with connect(server) as connection, costinsights.attribute(asset=f"a{number}"):
            for _ in range(5):
                connection.cursor().execute("SELECT 1")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    found = charges.new()
    assert len(found) == 40
    assert Counter(charge.attribution["asset"] for charge in found) == {
        f"a{number}": 5 for number in range(8)
    }


# --- a Redshift host, by its name or by the configuration ---------------------------------------

NAME = "dwh.abc123def.us-east-1.redshift.amazonaws.com"


def of_drivers(server: Redshift, **more: Any) -> Iterator[tuple[str, Any]]:
    yield "redshift_connector", connect(server)
    given: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "dbname": server.database,
        **more,
    }
    yield "psycopg", psycopg.connect(**given)
    yield "psycopg2", psycopg2.connect(**given)


@pytest.fixture
def switched_off() -> Iterator[None]:
    yield
    costinsights.uninstrument()


def test_a_declared_host_is_redshift_for_every_driver(
    server: Redshift, tmp_path: Path, switched_off: None
) -> None:
    declared = {
        "port": server.port,
        "system": "aws.redshift",
        "region": "us-east-1",
        "dimensions": {"node_type": "ra3.4xlarge"},
        "hourly": {"nodes": 2},
    }
    config = {"resource": [declared]}
    costinsights.instrument(*DRIVERS, ledger=tmp_path, exporters=[], config=config)
    charges = Charges(tmp_path)
    for driver, connection in of_drivers(server):
        with closing(connection), closing(connection.cursor()) as cursor:
            cursor.execute(r"SELECT 'a\\' AS shop")
        charge = charges.one()
        assert (charge.system, charge.instrumentor) == ("aws.redshift", driver)
        assert charge.resource.region == "us-east-1"
        # Its hour is two nodes by the price book, and the call has its share of it.
        assert (charge.basis, charge.currency) == ("estimated", "USD")
        assert charge.price is not None
        assert charge.price.unit_price == "6.52"


def test_a_redshift_host_is_redshift_for_postgresqls_drivers(
    server: Redshift, charges: Charges
) -> None:
    for driver, connection in of_drivers(server, host=NAME, hostaddr=server.host):
        with closing(connection), closing(connection.cursor()) as cursor:
            cursor.execute("SELECT 1")
        charge = charges.one()
        assert (charge.system, charge.instrumentor) == ("aws.redshift", driver)
        if driver != "redshift_connector":
            assert charge.resource.address == NAME
            assert charge.resource.service == "aws.redshift"
            assert charge.resource.region == "us-east-1"


async def test_asyncpg_at_a_redshift_host(
    server: Redshift, charges: Charges, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def here(host: Any, *args: Any, **kwargs: Any) -> Any:
        return look_up(server.host if host == NAME else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    driver: Any = asyncpg
    connection = await driver.connect(
        host=NAME,
        port=server.port,
        user=server.user,
        password=server.password,
        database=server.database,
    )
    try:
        assert await connection.fetchval("SELECT 1") == 1
    finally:
        await connection.close()
    charge = charges.one()
    assert (charge.system, charge.resource.service) == ("aws.redshift", "aws.redshift")


def certificate(folder: Path) -> Path:
    """Make a certificate of a Redshift host, and its key in one file with it."""
    path = folder / "redshift.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = f"-subj /CN={NAME[:40]} -addext subjectAltName=DNS:{NAME}"
    files = f"-keyout {path} -out {path}.crt"
    subprocess.run(f"{command} {names} {files}".split(), check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def serve_tls(listener: socket.socket, server: Redshift, context: ssl.SSLContext) -> None:
    """Take one client's TLS off, and hand it on."""
    plain, _ = listener.accept()
    plain.settimeout(10)
    with plain:
        assert plain.recv(8)[4:] == (80877103).to_bytes(4, "big")
        plain.sendall(b"S")
        client = context.wrap_socket(plain, server_side=True)
        upstream = socket.create_connection((server.host, server.port), timeout=10)
        with client, upstream:
            back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
            back.start()
            pump(client, upstream)
            back.join(20)


# The driver makes its TLS context in a way that Python has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_name_that_tls_checked_is_known_of_connections_opened_before(
    server: Redshift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def here(host: Any, *args: Any, **kwargs: Any) -> Any:
        return look_up(server.host if host == NAME else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    path = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", f"{path}.crt")  # the driver trusts the system's, too
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with socket.create_server((server.host, 0)) as listener:
        front = threading.Thread(target=serve_tls, args=(listener, server, context), daemon=True)
        listener.settimeout(10)
        front.start()
        port = listener.getsockname()[1]
        with (
            redshift_connector.connect(
                host=NAME,
                port=port,
                user=server.user,
                password=server.password,
                database=server.database,
            ) as connection,
            instrumented(tmp_path / "ledger", "redshift_connector") as charges,
        ):
            cursor: Any = connection.cursor()
            cursor.execute("SELECT 1")
            charge = charges.one()
        front.join(20)
    assert (charge.resource.address, charge.resource.port) == (NAME, port)
    assert (charge.resource.service, charge.resource.region) == ("aws.redshift", "us-east-1")
