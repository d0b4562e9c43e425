"""`costinsights pull azure` from Cost Management's exports, in a storage account: Azurite."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import asking
from costinsights.billing import Pulled, open_bill, pull
from costinsights.billing.azure_exports import AzureExportsPuller
from tests.backends import unavailable
from tests.processes import Unavailable
from tests.servers.azure_export_files import Container, day, focus
from tests.servers.azurite_server import ACCOUNT, KEY, azurite_server
from tests.servers.storage_proxy import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.storage_proxy import Proxy

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=timezone.utc)
NOVEMBER = datetime(2026, 11, 1, tzinfo=timezone.utc)


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    waits: list[float] = []
    monkeypatch.setattr(asking, "sleep", waits.append)
    return Container(tmp_path / "container")


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def bill(ledger: str, columns: str) -> list[tuple[Any, ...]]:
    with open_bill(ledger) as opened:
        return opened.fetch(f"SELECT {columns} FROM bill ORDER BY ALL")


def total(ledger: str, column: str = "BilledCost") -> Decimal:
    [(found,)] = bill(ledger, f"coalesce(sum({column}), 0)")
    return Decimal(found)


@pytest.fixture(scope="module")
def azurite() -> Iterator[Proxy]:
    try:
        with azurite_server() as proxy:
            yield proxy
    except Unavailable as reason:
        unavailable("azurite", reason)


@pytest.fixture
def account(azurite: Proxy, container: Container) -> Iterator[Any]:
    """An empty container of a storage account."""
    from azure.storage.blob import ContainerClient

    client = ContainerClient(f"{azurite.url}/{ACCOUNT}", "bill", credential=KEY)
    client.create_container()
    azurite.clear()
    yield client
    client.delete_container()
    client.close()


def upload(container: Container, account: Any, proxy: Proxy) -> None:
    for path in sorted(container.root.rglob("*.*")):
        account.upload_blob(
            str(path.relative_to(container.root)), path.read_bytes(), overwrite=True
        )
    proxy.clear()


def stored(proxy: Proxy, ledger: str) -> Pulled:
    url = f"{proxy.url}/{ACCOUNT}/bill/exports"
    puller = AzureExportsPuller({"url": url, "account_key": KEY})
    return pull("azure", NOVEMBER, ledger=ledger, now=NOW, puller=puller)


def test_exports_in_a_storage_account(
    container: Container, account: Any, azurite: Proxy, ledger: str
) -> None:
    parts = [[focus(day(number), "1.5"), focus(day(number), "2")] for number in range(1, 6)]
    container.run("FocusCost", *parts, form="snappy.parquet")
    container.run("FocusCost", [focus(day(1), "1")], scope="/subscriptions/x", export="other")
    upload(container, account, azurite)
    report = stored(azurite, ledger)
    assert (report.failed, report.published, report.rows) == ("", 2, 11)
    assert total(ledger) == Decimal("18.5")
    assert {seen.method for seen in azurite.seen} == {"GET", "HEAD"}
    azurite.seen.clear()
    assert stored(azurite, ledger).unchanged == 2
    assert not [seen for seen in azurite.seen if "part_" in seen.path]


def test_a_storage_account_that_is_busy_and_breaks_off(
    container: Container, account: Any, azurite: Proxy, ledger: str
) -> None:
    container.run("FocusCost", [focus(day(1), "1")], [focus(day(2), "2")])
    upload(container, account, azurite)
    busy = Fault(503, (("x-ms-error-code", "ServerBusy"), ("Retry-After", "1")))
    azurite.fail("GET", "comp=list", busy, Fault(0))
    azurite.fail("GET", "manifest.json", Fault(500), Fault(passed=True))
    azurite.fail("GET", "part_1", Fault(passed=True), Fault(0), busy)
    azurite.fail("HEAD", "part_0", Fault(429, (("Retry-After", "1e9"),)))
    report = stored(azurite, ledger)
    assert report.failed == ""
    assert total(ledger) == 3


def test_a_storage_account_that_does_not_let_in(
    container: Container, account: Any, azurite: Proxy, ledger: str
) -> None:
    container.run("FocusCost", [focus(day(1), "1")])
    upload(container, account, azurite)
    refused = Fault(403, (("x-ms-error-code", "AuthorizationPermissionMismatch"),))
    azurite.fail("GET", "part_0", refused)
    report = stored(azurite, ledger)
    assert "no permission to read" in report.failed
    assert "Storage Blob Data Reader" in report.grant
    assert (report.published, bill(ledger, "*")) == (0, [])
    expired = Fault(403, (("x-ms-error-code", "AuthenticationFailed"),))
    azurite.fail("GET", "part_0", expired)
    assert stored(azurite, ledger).published == 1  # once is what new credentials are for
    assert KEY not in report.failed


def test_a_part_that_is_replaced_while_it_is_read(
    container: Container, account: Any, azurite: Proxy, ledger: str
) -> None:
    container.run("FocusCost", [focus(day(1), "1")], overwrite=True)
    upload(container, account, azurite)
    changed_ = Fault(412, (("x-ms-error-code", "ConditionNotMet"),))
    azurite.fail("GET", "part_0", changed_)
    report = stored(azurite, ledger)
    assert "ConditionNotMet" in report.failed
    assert stored(azurite, ledger).published == 1


def test_a_container_that_is_not_there(azurite: Proxy, container: Container, ledger: str) -> None:
    azurite.clear()
    report = stored(azurite, ledger)
    assert "ContainerNotFound" in report.failed
