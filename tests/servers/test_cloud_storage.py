"""Cloud Storage's clients on fake-gcs-server: what is counted is what the server has seen, by class."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

import costinsights
from costinsights.systems.gcp_storage_requests import called
from tests.backends import unavailable
from tests.processes import Unavailable
from tests.servers.charges import instrumented
from tests.servers.gcs_server import gcs_server
from tests.servers.storage_counts import amounts, counted, requests, total
from tests.servers.storage_proxy import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from tests.servers.storage_proxy import Proxy

PRICES = """
[[resource]]
system = "gcp.storage"
database = "lake"
region = "us-east4"
dimensions = { storage_class = "STANDARD" }
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Proxy]:
    try:
        with gcs_server() as proxy:
            yield proxy
    except Unavailable as reason:
        unavailable("Cloud Storage", reason)


@pytest.fixture
def server(emulator: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """An error of ours fails the test; no credentials are asked for."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    emulator.clear()
    return emulator


@pytest.fixture
def client(server: Proxy) -> Iterator[Any]:
    storage = import_module("google.cloud.storage")
    credentials = import_module("google.auth.credentials").AnonymousCredentials()
    with_endpoint = {"api_endpoint": server.url}
    client = storage.Client(project="shop", credentials=credentials, client_options=with_endpoint)
    yield client
    client.close()


@pytest.fixture
def bucket(client: Any, server: Proxy) -> Iterator[Any]:
    """A bucket that is empty at first, made and cleared away where nobody counts."""
    made = client.create_bucket("lake", location="us-east4")
    server.clear()
    yield client.bucket("lake")
    server.clear()
    for blob in client.list_blobs("lake"):
        blob.delete()
    made.delete()


def agrees(found: list[Charge], server: Proxy) -> None:
    """Hold what was counted against what went over the wire."""
    seen = Counter[str]()
    for one in server.seen:
        what = called(one.method, one.path, one.query)
        if what is not None and what.billed(one.status):
            seen[{"A": "class_a", "B": "class_b", "free": "delete"}[what.letter or ""]] += 1
    assert requests(found) == {f"{name}_operations": count for name, count in seen.items()}
    assert total(found, "sent_bytes") == sum(len(one.body) for one in server.seen)
    assert total(found, "received_bytes") == sum(one.answered for one in server.seen)
    assert total(found, "calls") == len(server.seen)


# --- what requests are ---------------------------------------------------------------------------

REQUESTS = {
    ("GET", "/storage/v1/b", ""): ("buckets.list", "A"),
    ("POST", "/storage/v1/b", ""): ("buckets.insert", "A"),
    ("GET", "/storage/v1/b/lake", ""): ("buckets.get", "B"),
    ("PATCH", "/storage/v1/b/lake", ""): ("buckets.patch", "A"),
    ("DELETE", "/storage/v1/b/lake", ""): ("buckets.delete", "free"),
    ("GET", "/storage/v1/b/lake/iam", ""): ("buckets.getIamPolicy", "B"),
    ("PUT", "/storage/v1/b/lake/iam", ""): ("buckets.setIamPolicy", "A"),
    ("GET", "/storage/v1/b/lake/iam/testPermissions", ""): ("buckets.testIamPermissions", "B"),
    ("POST", "/storage/v1/b/lake/lockRetentionPolicy", ""): ("buckets.lockRetentionPolicy", "A"),
    ("GET", "/storage/v1/b/lake/storageLayout", ""): ("buckets.getStorageLayout", "free"),
    ("GET", "/storage/v1/b/lake/acl", ""): ("bucketAccessControls.list", "B"),
    ("DELETE", "/storage/v1/b/lake/acl/allUsers", ""): ("bucketAccessControls.delete", "A"),
    ("POST", "/storage/v1/b/lake/defaultObjectAcl", ""): (
        "defaultObjectAccessControls.insert",
        "A",
    ),
    ("GET", "/storage/v1/b/lake/notificationConfigs", ""): ("notifications.list", "B"),
    ("DELETE", "/storage/v1/b/lake/notificationConfigs/1", ""): ("notifications.delete", "A"),
    ("GET", "/storage/v1/b/lake/folders", ""): ("folders.list", "A"),
    ("GET", "/storage/v1/b/lake/o", ""): ("objects.list", "A"),
    ("POST", "/storage/v1/b/lake/o/watch", ""): ("objects.watchAll", "A"),
    ("GET", "/storage/v1/b/lake/o/a%2Fb", ""): ("objects.get", "B"),
    ("GET", "/download/storage/v1/b/lake/o/a%2Fb", "alt=media"): ("objects.get", "B"),
    ("PATCH", "/storage/v1/b/lake/o/a", ""): ("objects.patch", "A"),
    ("DELETE", "/storage/v1/b/lake/o/a", ""): ("objects.delete", "free"),
    ("POST", "/storage/v1/b/lake/o/a/compose", ""): ("objects.compose", "A"),
    ("POST", "/storage/v1/b/from/o/a/rewriteTo/b/lake/o/c", ""): ("objects.rewrite", "A"),
    ("POST", "/storage/v1/b/from/o/a/copyTo/b/lake/o/c", ""): ("objects.copy", "A"),
    ("POST", "/storage/v1/b/lake/o/a/moveTo/o/c", ""): ("objects.move", "A"),
    ("GET", "/storage/v1/b/lake/o/a/acl", ""): ("objectAccessControls.list", "B"),
    ("POST", "/upload/storage/v1/b/lake/o", "uploadType=multipart"): ("objects.insert", "A"),
    ("PUT", "/upload/storage/v1/b/lake/o", "uploadType=resumable&upload_id=1"): (
        "objects.insert",
        "A",
    ),
    ("POST", "/storage/v1/channels/stop", ""): ("channels.stop", "free"),
    ("POST", "/storage/v1/projects/shop/hmacKeys", ""): ("hmacKeys.create", "A"),
    ("GET", "/storage/v1/projects/shop/hmacKeys", ""): ("hmacKeys.list", "A"),
    ("DELETE", "/storage/v1/projects/shop/hmacKeys/1", ""): ("hmacKeys.delete", "free"),
    ("POST", "/lake/a", "uploads"): ("xml.post", "A"),
    ("PUT", "/lake/a", "partNumber=1&uploadId=2"): ("xml.put", "A"),
    ("DELETE", "/lake/a", "uploadId=2"): ("xml.delete", "free"),
}


@pytest.mark.parametrize(("request_", "expected"), REQUESTS.items(), ids=str)
def test_requests(request_: tuple[str, str, str], expected: tuple[str, str]) -> None:
    method, path, query = request_
    found = called(method, path, dict(parse_qsl(query, keep_blank_values=True)))
    assert found is not None
    assert (found.name, found.letter) == expected
    assert found.bucket == ("lake" if "lake" in path else None)
    assert found.billed(200)
    assert not any(found.billed(status) for status in (307, 308, 400, 404, 412, 429, 500, 503))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/bigquery/v2/projects/shop/jobs"),
        ("POST", "/batch/storage/v1"),
        ("POST", "/storage/v1/b/lake/o/a/somethingNew"),
        ("TRACE", "/storage/v1/b"),
    ],
)
def test_what_is_no_request_of_cloud_storage(method: str, path: str) -> None:
    assert called(method, path, {}) is None


# --- google-cloud-storage ------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path, server: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Instrumented after the client was made, which is therefore covered as well."""
    (tmp_path / "costinsights.toml").write_text(PRICES, encoding="utf-8")
    monkeypatch.setenv("COSTINSIGHTS_CONFIG", str(tmp_path / "costinsights.toml"))
    with instrumented(tmp_path / "ledger", "cloud_storage", "gcsfs"):
        yield tmp_path / "ledger"


def test_uploads_downloads_lists_and_deletes(bucket: Any, ledger: Path, server: Proxy) -> None:
    bucket.blob("a/b").upload_from_string(b"x" * 1000)
    assert bucket.blob("a/b").download_as_bytes() == b"x" * 1000
    bucket.blob("a/b").reload()
    assert not bucket.blob("nothing").exists()
    assert [blob.name for blob in bucket.client.list_blobs("lake")] == ["a/b"]
    bucket.copy_blob(bucket.blob("a/b"), bucket, "c")
    bucket.blob("d").compose([bucket.blob("a/b"), bucket.blob("c")])
    bucket.blob("c").delete()
    found = counted(ledger)
    agrees(found, server)
    assert {(one.resource.namespace, one.resource.region) for one in found} == {
        ("lake", "us-east4")
    }
    assert amounts(found) == {
        "CLASS_A": Decimal("0.00002"),  # insert, list, copy and compose, at 0.05 USD for 10,000
        "CLASS_B": Decimal("0.0000008"),  # the download and the metadata, at 0.004 USD
        "FREE": 0,  # the delete, and what was not there
    }
    free = next(charge for charge in found if charge.operation == "FREE")
    assert (free.usage["delete_operations"], free.usage["errors"]) == (1, 1)
    assert {charge.system for charge in found} == {"gcp.storage"}
    assert {charge.instrumentor for charge in found} == {"cloud_storage"}
    assert {charge.basis for charge in found} == {"estimated"}


def test_a_resumable_upload_is_one_operation(bucket: Any, ledger: Path, server: Proxy) -> None:
    blob = bucket.blob("big", chunk_size=256 * 1024)
    blob.upload_from_file(io.BytesIO(b"x" * 700_000))
    with bucket.blob("written").open("wb", chunk_size=256 * 1024) as file:
        file.write(b"y" * 600_000)
    found = counted(ledger)
    assert len(server.seen) > 6
    assert total(found, "class_a_operations") == 2
    agrees(found, server)


def test_each_range_of_a_download_is_one(bucket: Any, ledger: Path, server: Proxy) -> None:
    bucket.blob("big").upload_from_string(b"x" * 700_000)
    chunked = bucket.blob("big", chunk_size=256 * 1024)
    assert len(chunked.download_as_bytes()) == 700_000
    assert bucket.blob("big").download_as_bytes(start=10, end=19) == b"x" * 10
    with bucket.blob("big").open("rb") as file:
        file.seek(100)
        file.read(5)
    found = counted(ledger)
    # Three chunks, one range, and of the file its size and one chunk.
    assert total(found, "class_b_operations") == 6
    agrees(found, server)


def test_pages(bucket: Any, ledger: Path, server: Proxy) -> None:
    for name in range(5):
        bucket.blob(str(name)).upload_from_string(b"")
    server.clear()
    assert len(list(bucket.client.list_blobs("lake", page_size=2))) == 5
    assert any(found.name == "lake" for found in bucket.client.list_buckets())
    lists = [one for one in server.seen if one.method == "GET"]
    assert len(lists) == 4
    found = counted(ledger)
    by_bucket = Counter[str | None]()
    for charge in found:
        by_bucket[charge.resource.namespace] += total([charge], "class_a_operations")
    assert by_bucket == {"lake": 5 + 3, None: 1}
    everywhere = next(charge for charge in found if charge.resource.namespace is None)
    assert everywhere.usage["storage_class"] == "STANDARD"


def test_the_class_is_the_objects_and_reading_a_cold_one_costs_by_the_byte(
    bucket: Any, ledger: Path, server: Proxy
) -> None:
    server.edit = lambda seen, sent: (
        [*sent, ("x-goog-storage-class", "COLDLINE")] if seen.query.get("alt") == "media" else sent
    )
    blob = bucket.blob("cold")
    blob.storage_class = "COLDLINE"
    blob.upload_from_string(b"x" * 2**20)
    bucket.blob("cold").download_as_bytes()
    server.edit = None
    found = counted(ledger)
    agrees(found, server)
    words = {(charge.operation, charge.usage.get("storage_class")): charge for charge in found}
    assert words["CLASS_A", "COLDLINE"].amount == "0.000020000000000"  # 0.20 USD for 10,000
    # 0.10 USD for 10,000, and 0.02 USD for a GiB
    assert words["CLASS_B", "COLDLINE"].amount == "0.000029531250000"


def test_a_bucket_says_where_it_is(client: Any, server: Proxy, tmp_path: Path) -> None:
    made = client.create_bucket("elsewhere", location="EU")
    with instrumented(tmp_path, "cloud_storage"):
        client.bucket("elsewhere").blob("a").upload_from_string(b"x")
        client.get_bucket("elsewhere")
        list(client.list_blobs("elsewhere"))
        found = counted(tmp_path)
    client.bucket("elsewhere").blob("a").delete()
    made.delete()
    by_region = [(charge.resource.region, charge.amount) for charge in found]
    assert sorted(by_region, key=str) == [
        ("eu", "0.000000400000000"),  # get
        ("eu", "0.000010000000000"),  # list: 0.10 USD for 10,000 in a multi-region
        (None, None),  # the upload, of which nobody had said yet where it went
    ]


def test_bytes_that_go_to_the_internet_have_their_price(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.blob("a").upload_from_string(b"x" * 2**20)
    there = PRICES.replace("us-east4", "eu").replace(
        '"STANDARD"', '"STANDARD", transfer = "internet"'
    )
    (tmp_path / "costinsights.toml").write_text(there, encoding="utf-8")
    monkeypatch.setenv("COSTINSIGHTS_CONFIG", str(tmp_path / "costinsights.toml"))
    with instrumented(tmp_path / "ledger", "cloud_storage"):
        bucket.blob("a").download_as_bytes()
        (charge,) = counted(tmp_path / "ledger")
    assert charge.usage["transfer"] == "internet"
    # 0.12 USD for a GiB, and the download itself
    assert Decimal(charge.amount or 0) == Decimal("0.12") / 1024 + Decimal("0.0000004")


def test_a_batch_counts_what_is_in_it(bucket: Any, ledger: Path, server: Proxy) -> None:
    for name in "abc":
        bucket.blob(name).upload_from_string(b"x")
    with bucket.client.batch():
        for name in "abc":
            bucket.blob(name).delete()
        bucket.blob("d").metadata = {"x": "y"}
    missing = bucket.client.batch()
    with missing:
        missing._raise_exception = False
        bucket.blob("a").delete()
        bucket.blob("b").delete()
    found = counted(ledger)
    assert total(found, "delete_operations") == 3
    assert total(found, "errors") == 2


def test_parts_that_are_uploaded_side_by_side(
    bucket: Any, ledger: Path, server: Proxy, tmp_path: Path
) -> None:
    """That client uses the XML API for them, which the emulator does not have: the proxy answers."""
    transfers = import_module("google.cloud.storage.transfer_manager")
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    begun = f'<InitiateMultipartUploadResult xmlns="{space}"><UploadId>7</UploadId></InitiateMultipartUploadResult>'
    server.fail("POST", "uploads", Fault(200, body=begun.encode()))
    server.fail("PUT", "uploadId=7", *[Fault(200, (("ETag", '"1"'),))] * 3)
    server.fail("POST", "uploadId=7", Fault(200))
    (tmp_path / "file").write_bytes(b"x" * 3 * 2**20)
    transfers.upload_chunks_concurrently(
        str(tmp_path / "file"),
        bucket.blob("big"),
        chunk_size=2**20,
        worker_type=transfers.THREAD,
        checksum=None,
    )
    found = counted(ledger)
    assert requests(found) == {"class_a_operations": 5}
    assert {one.resource.namespace for one in found} == {"lake"}
    agrees(found, server)


def test_in_many_threads_nothing_is_lost(bucket: Any, ledger: Path, server: Proxy) -> None:
    def work(number: int) -> None:
        blob = bucket.blob(str(number))
        blob.upload_from_string(b"x" * number)
        assert blob.download_as_bytes() == b"x" * number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(100)))
    found = counted(ledger)
    assert requests(found) == {"class_a_operations": 100, "class_b_operations": 100}
    agrees(found, server)


def test_requests_are_what_they_were(bucket: Any, server: Proxy, tmp_path: Path) -> None:
    def sent() -> list[tuple[str, str, set[str]]]:
        server.seen.clear()
        bucket.blob("a").upload_from_string(b"x")
        bucket.blob("a").download_as_bytes()
        list(bucket.client.list_blobs("lake"))
        return [(one.method, one.path, set(one.headers)) for one in server.seen]

    before = sent()
    with instrumented(tmp_path / "ledger", "cloud_storage"):
        assert sent() == before


def test_what_is_tried_again_is_billed_once(bucket: Any, ledger: Path, server: Proxy) -> None:
    server.fail("GET", "/o/a", Fault(503), Fault(429))
    server.fail("POST", "/o", Fault(0))
    retry = import_module("google.cloud.storage.retry").DEFAULT_RETRY.with_delay(initial=0.01)
    bucket.blob("a").upload_from_string(b"xyz", retry=retry)
    bucket.blob("a").reload(retry=retry)
    found = counted(ledger)
    assert total(found, "class_a_operations") == total(found, "class_b_operations") == 1
    assert total(found, "errors") == total(found, "retries") == 3
    assert total(found, "calls") == len(server.seen) == 5


def test_a_download_that_breaks_off_goes_on(bucket: Any, ledger: Path, server: Proxy) -> None:
    bucket.blob("a").upload_from_string(b"x" * 100_000)
    (upload,) = server.seen
    server.clear()
    server.fail("GET", "/o/a", Fault(200, passed=True))
    retry = import_module("google.cloud.storage.retry").DEFAULT_RETRY.with_delay(initial=0.01)
    assert len(bucket.blob("a").download_as_bytes(retry=retry)) == 100_000
    found = counted(ledger)
    assert [one.status for one in server.seen] == [200, 206]
    # The client drops what it has read of a part, and asks for it again: it comes twice.
    assert total(found, "received_bytes") == 50_000 + server.seen[1].answered + upload.answered
    assert server.seen[1].answered > 50_000
    assert total(found, "class_b_operations") == 2


def test_switched_off_nothing_is_counted(bucket: Any, tmp_path: Path) -> None:
    with instrumented(tmp_path, "cloud_storage"):
        costinsights.instrument("cloud_storage", ledger=tmp_path, exporters=[])  # twice is once
        bucket.blob("a").upload_from_string(b"x")
        costinsights.uninstrument()
        bucket.blob("b").upload_from_string(b"x")
    assert total(counted(tmp_path), "class_a_operations") == 1


def test_bigquerys_requests_are_let_pass(bucket: Any, ledger: Path, server: Proxy) -> None:
    session = bucket.client._http
    assert session.get(f"{server.url}/bigquery/v2/projects/shop/jobs").status_code == 404
    assert counted(ledger) == []


# --- gcsfs ---------------------------------------------------------------------------------------


def files(server: Proxy) -> Any:
    core = import_module("gcsfs.core")
    return core.GCSFileSystem(
        project="shop", token="anon", endpoint_url=server.url, skip_instance_cache=True
    )


def test_gcsfs(bucket: Any, ledger: Path, server: Proxy, tmp_path: Path) -> None:
    fs = files(server)
    fs.pipe_file("lake/a", b"x" * 1000)
    assert fs.cat_file("lake/a") == b"x" * 1000
    assert fs.cat_file("lake/a", start=10, end=20) == b"x" * 10
    assert fs.ls("lake") == ["lake/a"]
    with fs.open("lake/b", "wb", block_size=2**18) as file:
        file.write(b"y" * 600_000)
    # What `get_file` does, without its question whether that is a folder, whose two requests race.
    import_module("fsspec.asyn").sync(fs.loop, fs._get_file_request, "lake/b", str(tmp_path / "b"))
    assert (tmp_path / "b").stat().st_size == 600_000
    fs.rm_file("lake/b")
    found = counted(ledger)
    agrees(found, server)
    assert {charge.instrumentor for charge in found} == {"gcsfs"}
    assert all(charge.amount is not None for charge in found)


def test_a_batch_of_gcsfs_counts_what_is_in_it(
    ledger: Path, server: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes none where it knows of an emulator; the proxy answers this one."""
    said = b"".join(
        b"--there\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 %d Said\r\n\r\n\r\n" % status
        for status in (204, 204, 404)
    )
    kind = ("Content-Type", "multipart/mixed; boundary=there")
    server.fail("POST", "/batch/storage/v1", Fault(200, (kind,), said + b"--there--"))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    fs = files(server)
    sync = import_module("fsspec.asyn").sync
    sync(fs.loop, fs._rm_files, ["lake/a", "lake/b c", "lake/d"])
    assert [one.path for one in server.seen] == ["/batch/storage/v1"]
    found = counted(ledger)
    assert requests(found) == {"delete_operations": 2}
    assert (total(found, "errors"), total(found, "sent_bytes")) == (1, len(server.seen[0].body))


def test_gcsfs_tries_again(bucket: Any, ledger: Path, server: Proxy) -> None:
    bucket.blob("a").upload_from_string(b"xyz")
    server.clear()
    server.fail("GET", "/o/a", Fault(503))
    assert files(server).cat_file("lake/a") == b"xyz"
    found = [charge for charge in counted(ledger) if charge.instrumentor == "gcsfs"]
    assert total(found, "class_b_operations") == 1
    assert (total(found, "errors"), total(found, "retries")) == (1, 1)


def test_an_upload_by_gcsfs_that_is_cancelled(bucket: Any, ledger: Path, server: Proxy) -> None:
    core = import_module("gcsfs.core")

    async def main() -> None:
        fs = core.GCSFileSystem(
            project="shop",
            token="anon",
            endpoint_url=server.url,
            asynchronous=True,
            skip_instance_cache=True,
        )
        await fs._set_session()
        server.slow = 0.2
        task = asyncio.create_task(fs._pipe_file("lake/a", b"x" * 10))
        await asyncio.to_thread(server.arrived)  # it is answered when the task has been cancelled
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await fs._pipe_file("lake/b", b"x" * 10)
        await fs.session.close()

    asyncio.run(main())
    found = counted(ledger)
    # Whether Cloud Storage has had the one that was given up nobody knows here: it counts.
    assert (total(found, "class_a_operations"), total(found, "errors")) == (2, 1)
