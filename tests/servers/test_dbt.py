"""dbt above its adapters' drivers: one charge a statement, for the node that dbt's comment names.

Real dbt, with an environment of its own (`dbt_project`). PostgreSQL, DuckDB and Trino are the real
engines, Redshift is PostgreSQL behind a start-up proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.backends import unavailable
from tests.environments import environment
from tests.processes import Unavailable
from tests.servers import pg_recorder, trino_proxy
from tests.servers.dbt_project import ASSETS, JOB, SECRET, Done, build, commented, sent
from tests.servers.redshift_server import redshift

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backends import Server
    from tests.servers.trino_server import Coordinator


@pytest.fixture(scope="module", autouse=True)
def dbt() -> None:
    """Install dbt, once for all."""
    try:
        environment("dbt")
    except Unavailable as reason:
        unavailable("dbt", reason)


def agrees(done: Done, texts: list[str], system: str, job: str | None = JOB) -> None:
    """Hold the ledger against what the server saw: nothing is missing, nothing is there twice."""
    assert done.code == 1, done.output  # one model fails
    assert "PASS=3 WARN=0 ERROR=1" in done.output, done.output
    seen = sent(texts, system)
    named = commented(seen)
    assert done.charged(seen) == seen
    assert {charge.system for charge in done.charges} == {system}
    nodes = [charge for charge in done.charges if "asset" in charge.attribution]
    assert {charge.attribution["asset"] for charge in nodes} == ASSETS
    assert all("dbt.invocation_id" in charge.attribution for charge in done.charges)
    said = [charge for charge in nodes if charge.statement and charge.statement.text in named]
    assert {charge.attribution.get("job") for charge in said} == {job}
    assert {charge.attribution["rule"] for charge in nodes} == {"dbt"}
    failed = [charge for charge in done.charges if charge.error is not None]
    assert [charge.attribution["asset"] for charge in failed] == ["broken"]
    ledger = b"".join(path.read_bytes() for path in done.ledger.rglob("*") if path.is_file())
    assert SECRET.encode() not in ledger


def test_duckdb(tmp_path: Path) -> None:
    done = build(tmp_path, {"type": "duckdb", "path": str(tmp_path / "shop.duckdb")})
    agrees(done, done.said(), "duckdb")


def test_postgresql_with_the_comment_that_dbt_has_by_default(
    postgres: Server, tmp_path: Path
) -> None:
    with pg_recorder.recording(postgres) as recorder:
        done = build(tmp_path, account("postgres", postgres, recorder.port), own_comment=False)
        agrees(done, recorder.statements(), "postgresql", job=None)


def test_redshift(postgres: Server, tmp_path: Path) -> None:
    with redshift(postgres) as server:
        target = account("redshift", postgres, server.port)
        done = build(tmp_path, {**target, "dbname": server.database, "sslmode": "disable"})
        agrees(done, server.statements(), "aws.redshift")


def test_trino(trino_coordinator: Coordinator, tmp_path: Path) -> None:
    target = {"type": "trino", "method": "none", "user": "dbt", "host": "127.0.0.1"}
    place = {"database": "memory", "schema": "dbt", "http_scheme": "http"}
    with trino_proxy.recording(trino_coordinator) as proxy:
        done = build(tmp_path, {**target, **place, "port": proxy.port})
        agrees(done, [post.body.decode() for post in proxy.posts()], "trino")
    ids = [charge.vendor_id for charge in done.charges]
    assert None not in ids
    assert len(set(ids)) == len(ids)


def account(kind: str, server: Server, port: int) -> dict[str, object]:
    """Return what dbt's profile says of an account of PostgreSQL's."""
    return {
        "type": kind,
        "host": "127.0.0.1",
        "port": port,
        "user": server.user,
        "password": server.password,
        "dbname": server.database,
        "schema": "dbt",
    }
