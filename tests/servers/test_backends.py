"""The servers that the tests run on are what their fixtures say."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pymysql
import pytest

from tests import backends, debian, network, processes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backends import Server


def test_postgres_answers_on_its_dsn(postgres: Server) -> None:
    with psycopg.connect(postgres.dsn) as connection:
        row = connection.execute("SELECT current_user, current_database()").fetchone()
    assert row == (postgres.user, postgres.database)


def test_mariadb_answers_with_its_parts(mariadb: Server) -> None:
    connection = pymysql.connect(
        host=mariadb.host,
        port=mariadb.port,
        user=mariadb.user,
        password=mariadb.password,
        database=mariadb.database,
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT DATABASE()")
        assert cursor.fetchone() == (mariadb.database,)


def test_a_dsn_in_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = "postgresql://me:p%40ss@db.example:5433/app"
    monkeypatch.setattr(backends, "POSTGRES_DSN", dsn)
    with backends.postgres() as server:
        assert (server.host, server.port, server.user) == ("db.example", 5433, "me")
        assert (server.password, server.database, server.dsn) == ("p@ss", "app", dsn)


def _nothing_found(_name: str, path: str | None = None) -> None:
    del path


def test_every_reason_is_given_when_nothing_is_to_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(backends, "MARIADB_DSN", None)
    monkeypatch.setattr(debian, "CACHE", tmp_path)
    monkeypatch.setattr(shutil, "which", _nothing_found)
    with pytest.raises(processes.Unavailable) as caught, backends.mariadb():
        pass
    for reason in ("$COSTINSIGHTS_MYSQL_DSN", "no mariadbd", "no Debian", "no docker"):
        assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("in_ci", "outcome"), [(True, pytest.fail.Exception), (False, pytest.skip.Exception)]
)
def test_what_cannot_be_had_is_skipped_but_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, in_ci: bool, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(backends, "IN_CI", in_ci)
    with pytest.raises(outcome, match="no_such_driver cannot be had here: No module"):
        backends.require("no_such_driver")


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(processes.Unavailable, match="sh did not come up: no disk"),
        processes.running(
            processes.Account(None, None),
            *("sh", "-c", "echo no disk; exit 1"),
            cwd=tmp_path,
            ready=lambda: False,
            stop=signal.SIGTERM,
        ),
    ):
        pass


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0)])
def test_other_machines_are_out_of_reach(address: tuple[object, ...]) -> None:
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    with socket.socket(family) as client:
        for reach in (client.connect, client.connect_ex):
            with pytest.raises(network.ForeignHostError, match=str(address[0])):
                reach(address)
    assert network.refused() == [f"socket.connect {address[0]}"] * 2


def test_names_of_other_machines_are_not_looked_up() -> None:
    with pytest.raises(network.ForeignHostError, match=r"db\.example"):
        socket.create_connection(("db.example", 5432))
    assert network.refused() == ["socket.getaddrinfo db.example"]
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("collector.invalid", 4317)
    assert network.refused() == []


def test_an_attempt_that_was_swallowed_fails_the_test(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    module = tmp_path / "test_swallowed.py"
    module.write_text(
        "import contextlib, socket\n"
        "def test_it():\n"
        "    with contextlib.suppress(Exception):\n"
        "        socket.getaddrinfo('db.example', 80)\n"
    )
    inner = subprocess.run(
        [sys.executable, "-m", "pytest", "-ptests.conftest", f"--rootdir={tmp_path}", str(module)],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    assert inner.returncode == 1
    assert "1 passed, 1 error" in inner.stdout
    assert "reached for another machine: socket.getaddrinfo db.example" in inner.stdout
