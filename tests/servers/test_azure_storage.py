"""Azure's clients of storage, on Azurite and on a lake of our own: what is counted is what was asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights.buckets import sizes
from costinsights.config import load
from costinsights.systems.azure_storage import operation
from tests.backends import unavailable
from tests.processes import Unavailable
from tests.servers import azurite_server as azurite
from tests.servers import lake_server as lakes
from tests.servers.charges import instrumented
from tests.servers.monitoring_server import SUBSCRIPTION, Tier, monitoring_server
from tests.servers.storage_counts import amounts, counted, requests, total
from tests.servers.storage_proxy import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.config import Config
    from costinsights.records import Charge
    from tests.servers.storage_proxy import Proxy, Seen

PRICES = """
[[resource]]
system = "azure.storage"
host = "127.0.0.1"
region = "westus"
dimensions = { access_tier = "hot", redundancy = "lrs" }
"""
MIB = 2**20
LISTS = "list_and_create_container_operations"
BLOB, LAKE = "azure_storage_blob", "azure_storage_file_datalake"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Proxy]:
    try:
        with azurite.azurite_server() as proxy:
            yield proxy
    except Unavailable as reason:
        unavailable("Azurite", reason)


@pytest.fixture(scope="module")
def lake_emulator() -> Iterator[Proxy]:
    with lakes.lake_server() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An error of ours fails the test; where accounts are, the configuration says."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    (tmp_path / "costinsights.toml").write_text(PRICES, encoding="utf-8")
    monkeypatch.setenv("COSTINSIGHTS_CONFIG", str(tmp_path / "costinsights.toml"))


@pytest.fixture
def server(emulator: Proxy) -> Proxy:
    emulator.clear()
    return emulator


@pytest.fixture
def lake(lake_emulator: Proxy) -> Proxy:
    lake_emulator.clear()
    return lake_emulator


def service(server: Proxy, **more: Any) -> Any:
    blob = import_module("azure.storage.blob")
    url = f"{server.url}/{azurite.ACCOUNT}"
    return blob.BlobServiceClient(
        url,
        credential=azurite.KEY,
        retry_policy=blob.LinearRetry(backoff=0, random_jitter_range=0),
        **more,
    )


@pytest.fixture
def container(server: Proxy) -> Iterator[Any]:
    """A container that is empty at first, of a client that is older than we."""
    with service(server) as client:
        made = client.create_container("raw")
        server.clear()
        yield made
        server.clear()
        made.delete_container()


@pytest.fixture
def ledger(tmp_path: Path, container: Any) -> Iterator[Path]:
    with instrumented(tmp_path / "ledger", BLOB, LAKE):
        yield tmp_path / "ledger"


METERS = {
    "write": "write_operations",
    "read": "read_operations",
    "list": LISTS,
    "other": "other_operations",
    "free": "delete_operations",
}


def type_of(seen: Seen) -> str:
    found = operation(seen.method, seen.query, seen.headers)
    assert found is not None, seen
    assert found.type is not None, seen
    return found.type


def agrees(found: list[Charge], server: Proxy) -> None:
    """Hold what was counted against what went over the wire."""
    kinds = Counter(METERS[type_of(one)] for one in server.seen)
    assert requests(found) == dict(kinds)
    assert total(found, "calls") == len(server.seen)
    assert total(found, "sent_bytes") == sum(len(one.body) for one in server.seen)
    answered = sum(one.answered for one in server.seen if one.method in ("GET", "POST"))
    assert total(found, "received_bytes") == answered


# --- azure-storage-blob --------------------------------------------------------------------------


def test_every_operation_by_its_type(container: Any, ledger: Path, server: Proxy) -> None:
    container.upload_blob("a/b", b"x" * 1000)
    assert container.download_blob("a/b").readall() == b"x" * 1000
    blob = container.get_blob_client("a/b")
    assert blob.get_blob_properties().size == 1000
    assert not container.get_blob_client("nothing").exists()
    blob.set_blob_metadata({"k": "v"})
    blob.create_snapshot()
    lease = blob.acquire_lease()
    lease.release()
    assert [one.name for one in container.list_blobs()] == ["a/b"]
    container.get_blob_client("c").start_copy_from_url(blob.url)
    container.delete_blob("a/b", delete_snapshots="include")
    found = counted(ledger)
    agrees(found, server)
    assert {one.operation for one in found} == {"WRITE", "READ", "LIST", "OTHER", "FREE"}
    assert {one.resource.namespace for one in found} == {"raw"}
    assert {one.instrumentor for one in found} == {BLOB}
    assert amounts(found) == {
        "WRITE": Decimal("0.000011"),  # the upload and the copy, at 0.055 USD for 10,000
        "LIST": Decimal("0.0000055"),
        "READ": Decimal("0.00000044"),
        "OTHER": Decimal("0.00000264"),  # six at 0.0044 USD: also what was not there
        "FREE": 0,
    }


def test_blocks_and_chunks(container: Any, ledger: Path, server: Proxy) -> None:
    url = f"{server.url}/{azurite.ACCOUNT}"
    blob = import_module("azure.storage.blob")
    small = {
        "max_block_size": MIB,
        "max_single_put_size": MIB,
        "max_single_get_size": MIB,
        "max_chunk_get_size": MIB,
    }
    client = blob.BlobServiceClient(url, credential=azurite.KEY, **small)
    with client, costinsights.attribute(job="nightly"):
        there = client.get_blob_client("raw", "big")
        there.upload_blob(b"x" * (5 * MIB), max_concurrency=2)
        assert len(there.download_blob(max_concurrency=2).readall()) == 5 * MIB
    found = counted(ledger)
    agrees(found, server)
    # What the client does in threads of its own is for whoever has asked for it.
    assert {one.attribution.get("job") for one in found} == {"nightly"}
    # Five blocks and the list of them; five chunks.
    assert requests(found) == {"write_operations": 6, "read_operations": 5}


def test_pages(container: Any, ledger: Path, server: Proxy) -> None:
    for name in range(5):
        container.upload_blob(str(name), b"")
    assert len(list(container.list_blobs(results_per_page=2))) == 5
    found = counted(ledger)
    agrees(found, server)
    assert requests(found) == {"write_operations": 5, LISTS: 3}


def test_a_batch_counts_what_is_in_it(container: Any, ledger: Path, server: Proxy) -> None:
    for name in "abc":
        container.upload_blob(name, b"x")
    container.set_standard_blob_tier_blobs("Cool", "a", "b")
    container.delete_blobs("a", "b", "c")
    found = counted(ledger)
    assert requests(found) == {"write_operations": 3, "other_operations": 2, "delete_operations": 3}


def test_the_tier_that_an_answer_or_a_request_says_counts(
    container: Any, ledger: Path, server: Proxy
) -> None:
    server.edit = lambda seen, sent: [
        *(pair for pair in sent if pair[0].lower() != "x-ms-access-tier"),
        *([("x-ms-access-tier", "Cool")] if seen.method == "GET" else []),
    ]
    container.upload_blob(
        "cold",
        b"x" * MIB,
        standard_blob_tier=import_module("azure.storage.blob").StandardBlobTier.COOL,
    )
    container.download_blob("cold").readall()
    server.edit = None
    found = counted(ledger)
    assert {one.usage["access_tier"] for one in found} == {"cool"}
    assert amounts(found) == {
        "WRITE": Decimal("0.00001"),  # 0.10 USD for 10,000
        # 0.01 USD for 10,000, and 0.01 USD for a GB
        "READ": Decimal("0.000001") + Decimal("0.01") / 1024,
    }


def test_the_account_says_what_it_is(container: Any, tmp_path: Path, server: Proxy) -> None:
    (tmp_path / "costinsights.toml").write_text("", encoding="utf-8")
    with instrumented(tmp_path / "ledger", BLOB):
        container.upload_blob("a", b"x")
        container.get_account_information()
        container.upload_blob("b", b"x")
        found = counted(tmp_path / "ledger")
    said = [one.usage.get("redundancy") for one in found if one.operation == "WRITE"]
    assert sorted(said, key=str) == ["None", "ragrs"] or said == [None, "ragrs"]
    assert all(one.amount is None for one in found)  # nobody has said where it is


def test_failures_are_billed_but_for_authentication(
    container: Any, ledger: Path, server: Proxy
) -> None:
    errors = import_module("azure.core.exceptions")
    with pytest.raises(errors.ResourceNotFoundError):
        container.download_blob("nothing")
    container.upload_blob("a", b"x")
    with pytest.raises(errors.ResourceExistsError):
        container.upload_blob("a", b"x")
    server.fail("PUT", "/raw/b", Fault(403, (("x-ms-error-code", "AuthenticationFailed"),)))
    with pytest.raises(errors.ClientAuthenticationError):
        container.upload_blob("b", b"x")
    found = counted(ledger)
    assert [one.status for one in server.seen] == [404, 201, 409, 403]
    assert requests(found) == {"read_operations": 1, "write_operations": 2}
    assert total(found, "errors") == 3


def test_whoever_is_known_pays_for_what_is_not_allowed(
    container: Any, ledger: Path, server: Proxy
) -> None:
    denied = (("x-ms-error-code", "AuthorizationPermissionMismatch"),)
    server.fail("GET", "/raw/a", Fault(403, denied), Fault(403))
    for _ in range(2):
        with pytest.raises(import_module("azure.core.exceptions").HttpResponseError):
            container.download_blob("a")
    assert requests(counted(ledger)) == {"read_operations": 1}


def test_each_attempt_is_billed(container: Any, ledger: Path, server: Proxy) -> None:
    server.fail("PUT", "/raw/a", Fault(503), Fault(500), Fault(0))
    container.upload_blob("a", b"xyz")
    found = counted(ledger)
    assert len(server.seen) == 4
    # Two that were refused, the last one, and the one in between that nobody answered.
    assert requests(found) == {"write_operations": 4}
    assert (total(found, "errors"), total(found, "retries")) == (3, 3)


def test_what_never_left_is_not_billed(ledger: Path) -> None:
    blob = import_module("azure.storage.blob")
    nowhere = blob.ContainerClient(
        "http://127.0.0.1:9/account", "raw", credential=azurite.KEY, retry_total=0
    )
    with nowhere, pytest.raises(import_module("azure.core.exceptions").ServiceRequestError):
        nowhere.upload_blob("a", b"x")
    found = counted(ledger)
    assert (requests(found), total(found, "errors")) == ({}, 1)


def test_switched_off_nothing_is_counted(container: Any, tmp_path: Path) -> None:
    with instrumented(tmp_path / "ledger", BLOB):
        costinsights.instrument(BLOB, ledger=tmp_path / "ledger", exporters=[])  # twice is once
        container.upload_blob("a", b"x")
        costinsights.uninstrument()
        container.upload_blob("b", b"x")
    assert requests(counted(tmp_path / "ledger")) == {"write_operations": 1}


def test_a_hook_of_the_programs_is_called_as_before(
    container: Any, ledger: Path, server: Proxy
) -> None:
    heard: list[int] = []

    def hook(answer: Any) -> None:
        heard.append(answer.http_response.status_code)

    container.upload_blob("a", b"x", raw_response_hook=hook)
    assert heard == [201]
    agrees(counted(ledger), server)


def test_in_many_threads_nothing_is_lost(container: Any, ledger: Path, server: Proxy) -> None:
    def work(number: int) -> None:
        container.upload_blob(str(number), b"x" * number)
        assert container.download_blob(str(number)).readall() == b"x" * number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(1, 61)))
    found = counted(ledger)
    assert requests(found) == {"write_operations": 60, "read_operations": 60}
    agrees(found, server)


def test_requests_are_what_they_were(container: Any, tmp_path: Path, server: Proxy) -> None:
    def sent() -> list[tuple[str, str, set[str]]]:
        server.seen.clear()
        container.upload_blob("a", b"x", overwrite=True)
        container.download_blob("a").readall()
        list(container.list_blobs())
        return [(one.method, one.path, set(one.headers)) for one in server.seen]

    before = sent()
    with instrumented(tmp_path / "ledger", BLOB, LAKE):
        assert sent() == before


def test_aio_and_cancellation(container: Any, ledger: Path, server: Proxy) -> None:
    aio = import_module("azure.storage.blob.aio")

    async def main() -> None:
        url = f"{server.url}/{azurite.ACCOUNT}"
        async with aio.ContainerClient(url, "raw", credential=azurite.KEY) as there:
            await there.upload_blob("a", b"x" * 10)
            stream = await there.download_blob("a")
            assert await stream.readall() == b"x" * 10
            assert [one.name async for one in there.list_blobs()] == ["a"]
            server.seen.clear()
            server.slow = 0.2
            task = asyncio.create_task(there.upload_blob("b", b"y" * 10))
            await asyncio.to_thread(server.arrived)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    found = counted(ledger)
    # Azure has had the one that was given up: it counts.
    assert requests(found) == {"write_operations": 2, "read_operations": 1, LISTS: 1}
    assert total(found, "errors") == 1


def test_adlfs_is_counted_once(container: Any, ledger: Path, server: Proxy) -> None:
    adlfs: Any = import_module("adlfs")
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={azurite.ACCOUNT};AccountKey={azurite.KEY};"
        f"BlobEndpoint={server.url}/{azurite.ACCOUNT};"
    )
    fs = adlfs.AzureBlobFileSystem(connection_string=connection, skip_instance_cache=True)
    fs.pipe_file("raw/a", b"x" * 1000)
    assert fs.cat_file("raw/a") == b"x" * 1000
    assert fs.ls("raw") == ["raw/a"]
    found = counted(ledger)
    agrees(found, server)
    assert {one.instrumentor for one in found} == {BLOB}


# --- azure-storage-file-datalake -----------------------------------------------------------------


def lake_service(lake: Proxy) -> Any:
    module = import_module("azure.storage.filedatalake")
    url = f"{lake.url}/{lakes.ACCOUNT}"
    at_once = module.LinearRetry(backoff=0, random_jitter_range=0)
    return module.DataLakeServiceClient(url, credential=lakes.KEY, retry_policy=at_once)


def test_a_lake_by_its_operations(lake: Proxy, tmp_path: Path) -> None:
    with instrumented(tmp_path / "ledger", BLOB, LAKE), lake_service(lake) as client:
        system = client.create_file_system("raw")
        file = system.create_file("a/b.txt")
        file.append_data(b"x" * 10, 0, 10)
        file.flush_data(10)
        assert file.download_file().readall() == b"x" * 10
        assert file.get_access_control()["permissions"] == "rw-r-----"
        file.set_access_control(permissions="rwxr-x---")
        assert len(list(system.get_paths(max_results=1))) == 1
        moved = file.rename_file("raw/c")
        moved.set_access_control_recursive("user::rwx")
        moved.delete_file()
        system.delete_file_system()
        found = counted(tmp_path / "ledger")
    assert requests(found) == {
        LISTS: 1,  # the file system, for which the Blob endpoint is asked
        "write_operations": 4,  # create, append, flush, set
        "read_operations": 2,  # the download and the access control
        "iterative_read_operations": 1,
        "iterative_write_operations": 2,  # rename, recursive
        "delete_operations": 2,
    }
    assert total(found, "calls") == len(lake.seen)
    namespaces = {one.operation: one.usage.get("namespace") for one in found}
    assert namespaces["ITERATIVE_WRITE"] == namespaces["READ"] == "hierarchical"
    # The book has no price of a hierarchical namespace in westus.
    assert amounts(found)["ITERATIVE_WRITE"] is None


def test_a_lakes_reads_and_writes_count_by_4_mib(lake: Proxy, tmp_path: Path) -> None:
    with instrumented(tmp_path / "ledger", BLOB, LAKE), lake_service(lake) as client:
        system = client.create_file_system("big")
        file = system.create_file("a")
        file.append_data(b"x" * (9 * MIB), 0, 9 * MIB)
        file.flush_data(9 * MIB)
        assert len(file.download_file().readall()) == 9 * MIB
        system.delete_file_system()
        found = counted(tmp_path / "ledger")
    # Each was one request.
    assert requests(found)["write_operations"] == 1 + 3 + 1
    assert requests(found)["read_operations"] == 3


def test_a_lake_tries_again(lake: Proxy, tmp_path: Path) -> None:
    with instrumented(tmp_path / "ledger", BLOB, LAKE), lake_service(lake) as client:
        system = client.create_file_system("again")
        lake.fail("PUT", "/again/a", Fault(503))
        system.create_file("a")
        system.delete_file_system()
        found = counted(tmp_path / "ledger")
    assert requests(found)["write_operations"] == 2
    assert (total(found, "errors"), total(found, "retries")) == (1, 1)


def test_a_lake_aio(lake: Proxy, tmp_path: Path) -> None:
    module = import_module("azure.storage.filedatalake.aio")

    async def main() -> None:
        url = f"{lake.url}/{lakes.ACCOUNT}"
        async with module.DataLakeServiceClient(url, credential=lakes.KEY) as client:
            system = await client.create_file_system("aio")
            file = await system.create_file("a")
            await file.append_data(b"x", 0, 1)
            await file.flush_data(1)
            await file.delete_file()
            await system.delete_file_system()

    with instrumented(tmp_path / "ledger", BLOB, LAKE):
        asyncio.run(main())
        found = counted(tmp_path / "ledger")
    kinds = {"write_operations": 3, LISTS: 1, "delete_operations": 2}
    assert requests(found) == kinds


# --- costinsights storage size --list --------------------------------------------------------------


def test_a_list_of_blobs(server: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costinsights.buckets.azure_storage.AzureSize.page_size", 2)
    with service(server) as client:
        container = client.create_container("listed")
        for number in range(5):
            container.upload_blob(str(number), b"x" * 100)
        container.set_standard_blob_tier_blobs("Cool", "0")
    with monitoring_server() as there:
        there.account(azurite.ACCOUNT, "westus")
        hour = "2026-11-20T10:00:00Z"
        there.tiers[azurite.ACCOUNT] = [Tier("Hot", "BlockBlob", {hour: 500}, {hour: 5})]
        mine = {
            "subscriptions": [SUBSCRIPTION],
            "endpoint_url": there.url,
            "token": "not-a-secret",
            "blob_url": f"{server.url}/{azurite.ACCOUNT}",
            "key": azurite.KEY,
        }
        config = load(config={"storage": {"azure.storage": mine}})
        for cap, objects, whole in ((2, 4, False), (3, 5, True)):
            server.seen.clear()
            said: list[str] = []
            found = listed(f"az://listed@{azurite.ACCOUNT}", config, cap, said)
            assert (found.error, found.objects, found.whole) == ("", objects, whole)
            assert f"5 objects; a list takes {cap} requests" in said[0]
            assert len(server.seen) == cap
            coldest = found.held[0]
            assert (coldest.name, coldest.bytes, coldest.objects) == ("Cool", 100, 1)
        assert "which container" in listed(f"az://{azurite.ACCOUNT}", config, 1, []).error


def listed(url: str, config: Config, cap: int, said: list[str]) -> Any:
    now = datetime(2026, 11, 20, 12, 30, tzinfo=timezone.utc)
    (found,) = sizes([url], listing=True, cap=cap, config=config, now=now, said=said.append)
    return found
