"""Operations on S3 by unmodified aiobotocore and s3fs, on moto's server."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights.ledger.reader import read_ledger
from tests.servers.aws_server import AWSServer, Refusal, aws_server

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

BUCKET = "raw"
Sums = dict[str, int]


@pytest.fixture(scope="module")
def running() -> Iterator[AWSServer]:
    """One server for all."""
    with aws_server() as server:
        server.client("s3").create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def server(
    running: AWSServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[AWSServer]:
    """The server, with nothing seen yet, and both instrumentors switched on, as they are by default."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    running.requests.clear()
    names = ("aiobotocore", "botocore")
    costinsights.instrument(*names, ledger=tmp_path / "ledger", exporters=())
    yield running
    costinsights.uninstrument()


def sums(tmp_path: Path, **wanted: object) -> Sums:
    """Add up what was counted for charges with these labels."""
    costinsights.flush()
    found: Sums = {"requests": 0}
    latest = {charge.charge_id: charge for charge in read_ledger(str(tmp_path / "ledger"))}
    for charge in latest.values():
        words = {**charge.attribution, "operation": charge.operation}
        if all(words.get(name) == value for name, value in wanted.items()):
            for name, value in charge.usage.items():
                if isinstance(value, int):
                    found[name] = found.get(name, 0) + value
                    found["requests"] += value if name.endswith("_requests") else 0
    return found


def sent(server: AWSServer) -> int:
    """Return how many requests of S3's came over the wire."""
    return len(server.asked("s3"))


def with_client(server: AWSServer, work: Any) -> None:
    """Run a coroutine function with a client."""

    async def run() -> None:
        session: Any = import_module("aiobotocore.session").get_session()
        async with session.create_client("s3", **server.access) as client:
            await work(client)

    asyncio.run(run())


def test_operations_and_bodies_that_are_read_in_part(server: AWSServer, tmp_path: Path) -> None:
    async def work(client: Any) -> None:
        await client.put_object(Bucket=BUCKET, Key="k", Body=b"x" * 1000)
        answer = await client.get_object(Bucket=BUCKET, Key="k")
        async with answer["Body"] as body:
            await body.read(10)
        answer = await client.get_object(Bucket=BUCKET, Key="k")
        chunks = [len(chunk) async for chunk in answer["Body"].iter_chunks(300)]
        assert sum(chunks) == 1000
        with pytest.raises(client.exceptions.NoSuchKey):
            await client.get_object(Bucket=BUCKET, Key="none")
        async for _ in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            pass

    with costinsights.attribute(asset="orders"):
        with_client(server, work)
    found = sums(tmp_path, asset="orders")
    assert found["requests"] == found["calls"] == sent(server) == 5
    assert (found["sent_bytes"], found["errors"], found["retries"]) == (1000, 1, 0)
    # What was read of the two bodies, and the text of the error.
    assert 1010 < sums(tmp_path, operation="TIER2")["received_bytes"] < 1010 + 1000


def test_retries_and_concurrent_tasks(server: AWSServer, tmp_path: Path) -> None:
    server.refuse("s3", "PUT /raw/again", Refusal("SlowDown", status=503))

    async def one(client: Any, asset: str) -> None:
        with costinsights.attribute(asset=asset):
            await client.put_object(Bucket=BUCKET, Key=asset, Body=b"x" * 10)

    async def work(client: Any) -> None:
        assets = ["again", *(f"asset-{number}" for number in range(20))]
        await asyncio.gather(*(one(client, asset) for asset in assets))

    with_client(server, work)
    again = sums(tmp_path, asset="again")
    assert (again["calls"], again["tier1_requests"], again["retries"]) == (1, 1, 1)
    for number in range(20):
        assert sums(tmp_path, asset=f"asset-{number}")["requests"] == 1
    assert sent(server) == 22


def test_s3fs_in_parts(server: AWSServer, tmp_path: Path) -> None:
    """s3fs does its work in a loop of its own, in a thread of its own."""
    size = 11 * 2**20
    access = server.access
    files: Any = import_module("s3fs").S3FileSystem(
        endpoint_url=server.url,
        key=access["aws_access_key_id"],
        secret=access["aws_secret_access_key"],
        client_kwargs={"region_name": access["region_name"]},
        skip_instance_cache=True,
    )
    content = os.urandom(size)
    with costinsights.attribute(asset="written"), files.open("raw/big", "wb", 5 * 2**20) as file:
        file.write(content)
    with costinsights.attribute(asset="read"):
        assert files.cat("raw/big") == content
    written, read = sums(tmp_path, asset="written"), sums(tmp_path, asset="read")
    assert written["requests"] + read["requests"] == sent(server)
    assert written["sent_bytes"] >= size
    assert size <= read["received_bytes"] < size + 10_000
    assert written["tier1_requests"] >= 3
