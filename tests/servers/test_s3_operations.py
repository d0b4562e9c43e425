"""Operations on S3 by unmodified boto3, on moto's server: what the server has seen is what counts."""

from __future__ import annotations

import gc
import io
import os
import signal
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError

import costinsights
from costinsights.guard import suppressed
from costinsights.ledger.reader import read_ledger
from costinsights.ledger.store import open_store
from tests.servers.aws_server import AWSServer, Refusal, aws_server, boto3

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from costinsights.records import Charge

BUCKET = "raw"
PART = 5 * 1024 * 1024
SECRET = "s3cr3t-77ac"
NEVER = {"retries": {"total_max_attempts": 1}}


@pytest.fixture(scope="module")
def running() -> Iterator[AWSServer]:
    """One server for all."""
    with aws_server() as server:
        server.client("s3").create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def server(running: AWSServer) -> AWSServer:
    """The server, with nothing seen yet."""
    running.requests.clear()
    return running


@pytest.fixture
def client(server: AWSServer) -> Generator[Any]:
    """A client of boto3's."""
    client = server.client("s3")
    yield client
    client.close()


class Counted:
    """What is in a ledger, added up."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger

    def charges(self) -> list[Charge]:
        """Return every charge of S3's."""
        costinsights.flush()
        latest = {charge.charge_id: charge for charge in read_ledger(str(self.ledger))}
        return [charge for charge in latest.values() if charge.system == "aws.s3"]

    def sums(self, **wanted: object) -> dict[str, int]:
        """Return the sums of the usage of charges that have these words or labels."""
        found: dict[str, int] = {"requests": 0}
        for charge in self.charges():
            words = {**charge.usage, **charge.attribution, "operation": charge.operation}
            if all(words.get(name) == value for name, value in wanted.items()):
                for name, value in charge.usage.items():
                    if isinstance(value, int):
                        found[name] = found.get(name, 0) + value
                        found["requests"] += value if name.endswith("_requests") else 0
        return found

    def amount(self, **wanted: object) -> Decimal | None:
        """Return the amount of these; None where one of them has none."""
        total = Decimal(0)
        for charge in self.charges():
            words = {**charge.usage, **charge.attribution, "operation": charge.operation}
            if all(words.get(name) == value for name, value in wanted.items()):
                if charge.amount is None:
                    return None
                total += Decimal(charge.amount)
        return total


@pytest.fixture
def counted(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Counted]:
    """Switch on; the client is older than that."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    costinsights.instrument("botocore", ledger=tmp_path / "ledger", exporters=())
    yield Counted(tmp_path / "ledger")
    costinsights.uninstrument()


def put(client: Any, key: str, size: int = 10, **more: Any) -> None:
    """Write an object."""
    client.put_object(Bucket=BUCKET, Key=key, Body=b"x" * size, **more)


def seen(server: AWSServer) -> list[tuple[str, int]]:
    """Return the requests of S3's that came over the wire, and how long their bodies were."""
    return [
        (request.operation, len(request.body))
        for request in server.requests
        if request.service == "s3"
    ]


def everything(client: Any) -> None:
    """Use operations of each class."""
    put(client, "a", 1000)
    put(client, "b", 10, StorageClass="STANDARD_IA")
    client.put_object(Bucket=BUCKET, Key="stream", Body=io.BytesIO(b"y" * 77))
    client.copy_object(Bucket=BUCKET, Key="c", CopySource={"Bucket": BUCKET, "Key": "a"})
    client.head_object(Bucket=BUCKET, Key="a")
    assert client.get_object(Bucket=BUCKET, Key="a")["Body"].read() == b"x" * 1000
    assert client.get_object(Bucket=BUCKET, Key="b")["Body"].read() == b"x" * 10
    list(client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, MaxKeys=1))
    client.list_buckets()
    client.get_bucket_location(Bucket=BUCKET)
    client.delete_object(Bucket=BUCKET, Key="c")
    client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]})


def test_every_request_is_counted_in_its_class(
    client: Any, server: AWSServer, counted: Counted
) -> None:
    with costinsights.attribute(asset="orders"):
        everything(client)
    requests = seen(server)
    lists = sum(
        operation.startswith("GET /raw") and "/raw/" not in operation for operation, _ in requests
    )
    assert counted.sums()["requests"] == counted.sums()["calls"] == len(requests)
    assert counted.sums()["sent_bytes"] == sum(size for _, size in requests)
    assert counted.sums(asset="orders") == counted.sums()
    # Three pages, `list_buckets`, three writes and a copy; one write is to another class.
    assert counted.sums(operation="TIER1", storage_class="STANDARD")["requests"] == lists - 1 + 4
    assert counted.sums(operation="TIER1", storage_class="STANDARD_IA")["requests"] == 1
    assert counted.sums(operation="TIER2", storage_class="STANDARD")["requests"] == 3
    infrequent = counted.sums(operation="TIER2", storage_class="STANDARD_IA")
    assert (infrequent["requests"], infrequent["received_bytes"]) == (1, 10)
    assert counted.sums(operation="FREE")["delete_requests"] == 2
    assert counted.amount(operation="FREE") == 0
    assert counted.amount(operation="TIER1", storage_class="STANDARD_IA") == Decimal("0.00001")
    # A request, and ten bytes that were retrieved.
    retrieved = Decimal("0.000001") + Decimal("0.01") * 10 / 2**30
    found = counted.amount(operation="TIER2", storage_class="STANDARD_IA")
    assert found is not None
    assert abs(found - retrieved) < Decimal("1e-15")
    assert {charge.resource.namespace for charge in counted.charges()} == {BUCKET, None}
    assert {charge.resource.region for charge in counted.charges()} == {"us-east-1"}


def test_the_server_sees_what_it_would_see_without_us(
    server: AWSServer, client: Any, tmp_path: Path
) -> None:
    everything(client)
    bare = seen(server)
    server.requests.clear()
    costinsights.instrument("botocore", ledger=tmp_path / "ledger", exporters=())
    everything(client)
    costinsights.uninstrument()
    assert seen(server) == bare


def test_transfers_are_counted_by_their_requests_and_for_who_called(
    client: Any, server: AWSServer, counted: Counted, tmp_path: Path
) -> None:
    from boto3.s3.transfer import TransferConfig

    config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)
    size = 3 * PART + 11
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(size))
    with costinsights.attribute(asset="upload"):
        client.upload_file(str(source), BUCKET, "big", Config=config)
    with costinsights.attribute(asset="copy"):
        client.copy({"Bucket": BUCKET, "Key": "big"}, BUCKET, "copy", Config=config)
    with costinsights.attribute(asset="download"):
        client.download_file(BUCKET, "copy", str(target), Config=config)
    assert target.read_bytes() == source.read_bytes()
    assert counted.sums()["requests"] == len(seen(server))
    upload, download = counted.sums(asset="upload"), counted.sums(asset="download")
    assert upload["tier1_requests"] == upload["requests"] == 1 + 4 + 1
    assert upload["sent_bytes"] - size == len(server.requests[5].body)  # and the list of the parts
    assert download["tier2_requests"] == download["requests"] == 1 + 4
    assert download["received_bytes"] == size
    assert counted.sums(asset="copy")["tier1_requests"] == 1 + 4 + 1
    assert counted.amount(asset="upload") == 6 * Decimal("0.000005")


def test_parts_are_billed_by_the_class_that_the_upload_was_begun_with(
    client: Any, counted: Counted
) -> None:
    for class_ in ("STANDARD_IA", "GLACIER"):
        where = {"Bucket": BUCKET, "Key": class_}
        id_ = client.create_multipart_upload(**where, StorageClass=class_)["UploadId"]
        where["UploadId"] = id_
        tag = client.upload_part(**where, PartNumber=1, Body=b"x" * 10)["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
        client.complete_multipart_upload(**where, MultipartUpload=parts)
    assert counted.sums(storage_class="STANDARD_IA")["tier1_requests"] == 3
    # The parts of an archive are kept in the standard class until they are put together.
    assert counted.sums(storage_class="STANDARD")["tier1_requests"] == 2
    assert counted.sums(storage_class="GLACIER")["tier1_requests"] == 1


def test_parts_of_an_upload_that_somebody_else_began_have_no_price(
    server: AWSServer, client: Any, counted: Counted
) -> None:
    where: dict[str, Any] = {"Bucket": BUCKET, "Key": "k"}
    with suppressed():
        where["UploadId"] = client.create_multipart_upload(**where)["UploadId"]
    client.upload_part(**where, PartNumber=1, Body=b"x" * 10)
    (charge,) = counted.charges()
    assert (charge.amount, charge.basis) == (None, "unknown")
    assert "storage class" in str(charge.usage["unpriced"])
    assert charge.usage["tier1_requests"] == 1


def test_a_body_counts_as_it_is_read(client: Any, counted: Counted) -> None:
    put(client, "k", 10_000)
    with suppressed():
        bare: Any = client.get_object(Bucket=BUCKET, Key="k")["Body"]

    def get(asset: str) -> Any:
        with costinsights.attribute(asset=asset):
            body = client.get_object(Bucket=BUCKET, Key="k")["Body"]
        assert sorted(body.__dict__) == sorted(bare.__dict__)
        assert body.__class__ is bare.__class__
        return body

    def read(asset: str) -> int:
        return counted.sums(asset=asset)["received_bytes"]

    body = get("part")
    assert read("part") == 0
    body.read(100)
    assert read("part") == 100
    body.read(50)
    assert read("part") == 150
    body.close()
    assert sum(map(len, get("chunks").iter_chunks(999))) == read("chunks") == 10_000
    assert len(list(get("lines").iter_lines())) == 1
    assert read("lines") == 10_000
    into = bytearray(300)
    body = get("into")
    if hasattr(body, "readinto"):
        body.readinto(into)
        assert read("into") == 300
    body.close()
    # By other ways than its own methods: known when it goes.
    body = get("within")
    with body as raw:
        raw.read(7000)
    del body, raw
    gc.collect()
    assert read("within") == 7000
    body = get("unread")
    body.close()
    del body
    gc.collect()
    assert read("unread") == 0
    assert counted.sums()["tier2_requests"] == 6
    bare.close()


@pytest.mark.parametrize("mode", ["legacy", "standard"])
def test_a_retry_is_billed_by_the_answer_of_the_try_before(
    server: AWSServer, counted: Counted, mode: str
) -> None:
    """The server's own failures are not billed, however often they are tried again."""
    client = server.client("s3", config=Config(retries={"mode": mode, "total_max_attempts": 4}))
    for code, status in (("SlowDown", 503), ("InternalError", 500)):
        server.refuse("s3", "PUT /raw/again", Refusal(code, status=status))
    put(client, "again", 10)
    client.close()
    assert [operation for operation, _ in seen(server)] == ["PUT /raw/again"] * 3
    sums = counted.sums()
    assert (sums["calls"], sums["tier1_requests"], sums["retries"], sums["errors"]) == (1, 1, 2, 0)
    assert sums["sent_bytes"] == 10
    assert counted.amount() == Decimal("0.000005")


@pytest.mark.parametrize(
    ("code", "status", "billed"),
    [
        ("NoSuchKey", 404, 1),
        ("AccessDenied", 403, 1),
        ("PreconditionFailed", 412, 1),
        ("ExpiredToken", 400, 0),
        ("SlowDown", 503, 0),
        ("InternalError", 500, 0),
    ],
)
def test_an_error_is_billed_if_it_is_the_clients(
    server: AWSServer, counted: Counted, code: str, status: int, billed: int
) -> None:
    client = server.client("s3", config=Config(**NEVER))
    server.refuse("s3", "GET /raw/k", Refusal(code, SECRET, status))
    with pytest.raises(ClientError, match=code):
        client.get_object(Bucket=BUCKET, Key="k")
    client.close()
    sums = counted.sums()
    assert (sums["calls"], sums["tier2_requests"], sums["errors"]) == (1, billed, 1)
    assert sums["received_bytes"] > len(SECRET)
    assert SECRET not in "".join(
        path.read_text("utf-8") for path in counted.ledger.rglob("*") if path.is_file()
    )


def test_what_is_never_sent_is_not_counted(client: Any, counted: Counted) -> None:
    with pytest.raises(ParamValidationError):
        client.put_object(Bucket=BUCKET)
    client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "k"})
    client.generate_presigned_post(BUCKET, "k")
    assert counted.charges() == []


def test_a_request_without_an_answer_is_a_call_and_not_billed(counted: Counted) -> None:
    client = boto3().client(
        "s3",
        endpoint_url="http://127.0.0.1:9",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(**NEVER),
    )
    with pytest.raises(EndpointConnectionError):
        put(client, "k")
    client.close()
    sums = counted.sums()
    assert (sums["calls"], sums["requests"], sums["errors"]) == (1, 0, 1)


def test_our_own_work_is_not_counted_nor_what_it_hands_to_threads(
    client: Any, server: AWSServer, counted: Counted
) -> None:
    with suppressed():
        everything(client)
        client.upload_fileobj(io.BytesIO(b"x" * 10), BUCKET, "ours")
    assert len(seen(server)) > 10
    assert counted.charges() == []


def test_a_resource_of_boto3s(server: AWSServer, client: Any, counted: Counted) -> None:
    resource = boto3().resource("s3", **server.access)
    thing = resource.Object(BUCKET, "thing")
    thing.put(Body=b"x" * 10)
    assert thing.get()["Body"].read() == b"x" * 10
    assert thing.content_length == 10
    assert counted.sums()["calls"] == 3
    resource.meta.client.close()


def test_where_bytes_go_is_said_by_the_configuration(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be seen from inside; where it is said, it has its price."""
    put(client, "k", 2**20)
    config = {
        "resource": [
            {
                "name": "out",
                "system": "aws.s3",
                "database": BUCKET,
                "dimensions": {"transfer": "internet"},
            }
        ]
    }
    costinsights.instrument("botocore", ledger=tmp_path / "ledger", exporters=(), config=config)
    client.get_object(Bucket=BUCKET, Key="k")["Body"].read()
    costinsights.uninstrument()
    counted = Counted(tmp_path / "ledger")
    (charge,) = counted.charges()
    assert charge.usage["transfer"] == "internet"
    out = Decimal("0.09") * 2**20 / 2**30
    assert Decimal(charge.amount or 0) == Decimal("0.0000004") + out.quantize(Decimal("1e-15"))
    assert charge.price is not None
    assert "aws.data_transfer" in charge.price.key


def test_a_region_without_a_price_is_unknown_and_counted(
    server: AWSServer, counted: Counted
) -> None:
    client = server.client("s3", region_name="mars-north-1")
    put(client, "k")
    client.close()
    (charge,) = counted.charges()
    assert (charge.amount, charge.basis, charge.resource.region) == (
        None,
        "unknown",
        "mars-north-1",
    )
    assert charge.usage["tier1_requests"] == 1


PROGRAM = """
import os, sys, threading
import boto3, costinsights

costinsights.instrument("botocore", ledger=sys.argv[1], exporters=())
client = boto3.client(
    "s3", endpoint_url=sys.argv[2], region_name="us-east-1",
    aws_access_key_id="test", aws_secret_access_key="test",
)

def work(asset):
    with costinsights.attribute(asset=asset):
        while True:
            client.put_object(Bucket="raw", Key=asset, Body=b"x" * 10)
            os.write(1, b".")

for number in range(3):
    threading.Thread(target=work, args=(f"asset-{number}",)).start()
"""


def test_killed_under_load(server: AWSServer, tmp_path: Path) -> None:
    """Every request that was acknowledged is counted; at most those under way are more."""
    ledger = tmp_path / "ledger"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(ledger), server.url],
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as program:
        assert program.stdout is not None
        said = b""
        while len(said) < 300:
            said += program.stdout.read(1)
        program.send_signal(signal.SIGKILL)
        rest, _ = program.communicate(timeout=30)
        said += rest
    with open_store(str(ledger)) as store:
        found = list(store.charges())
    requests = sum(int(charge.usage["tier1_requests"]) for charge in found)
    assert len(said) <= requests <= len(said) + 3
    assert sum(int(charge.usage["sent_bytes"]) for charge in found) == requests * 10
    assert sum(Decimal(charge.amount or 0) for charge in found) == requests * Decimal("0.000005")
