"""Calls that are added up: the same sums, who they are for, what they cost, and none lost."""

from __future__ import annotations

import sys
from decimal import Decimal
from operator import add
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights import runtime
from costinsights.ledger.reader import read_ledger
from costinsights.storage import Hook, Kind, StorageCall, StorageInstrumentor

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from costinsights.records import Charge

MODULE = "acme_storage"
WORDS = (("storage_class", "STANDARD"),)
CLASSES = {"put": "tier1", "get": "tier2"}


class Client:
    """A client of a made-up storage, whose prices are Amazon's."""

    def request(self, what: str, bucket: str, size: int) -> int:
        """Ask for something; a bucket that is called so fails."""
        if bucket == "fails":
            raise KeyError(bucket)
        return size

    async def ask(self, what: str, bucket: str, size: int) -> int:
        """The same, to be awaited."""
        return self.request(what, bucket, size)


class AcmeInstrumentor(StorageInstrumentor):
    name = "acme_storage"
    system = "aws.s3"
    driver = MODULE
    supports = ("0", "9")
    hooks = (
        Hook(f"{MODULE}:Client.request", leaf=True),
        Hook(f"{MODULE}:Client.ask", kind="async"),
    )

    def asked(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        return CLASSES.get(args[1])

    def counted(
        self,
        asked: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        error: BaseException | None,
    ) -> StorageCall:
        _, _, bucket, size = args
        kind = Kind(
            self.system, f"{asked}_requests", args[1].upper(), bucket, "us-east-1", words=WORDS
        )
        if asked == "tier1":
            return StorageCall(kind, sent=size, failed=error is not None)
        return StorageCall(kind, received=size, failed=error is not None)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Client]:
    """A client that is recorded, in a ledger in `tmp_path`."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    module: Any = ModuleType(MODULE)
    module.Client = type("Client", (Client,), dict(vars(Client)))
    monkeypatch.setitem(sys.modules, MODULE, module)
    costinsights.instrument(
        ledger=tmp_path / "ledger", exporters=(), config={"disabled_instrumentors": ["*"]}
    )
    active = runtime.active()
    assert active is not None
    instrumentor = AcmeInstrumentor()
    instrumentor.instrument(active.recorder)
    active.instrumentors["acme_storage"] = instrumentor
    yield module.Client()
    costinsights.uninstrument()


Sums = dict[tuple[str, str | None, str | None], tuple[Any, ...]]


def sums(found: Iterable[Charge]) -> Sums:
    """Add up by operation, bucket and asset: calls, requests, bytes in and out, errors, amount."""
    added: Sums = {}
    for each in found:
        key = each.operation, each.resource.namespace, each.attribution.get("asset")
        usage: dict[str, Any] = dict(each.usage)
        requests = usage.get("tier1_requests", 0) + usage.get("tier2_requests", 0)
        figures = (
            usage["calls"],
            requests,
            usage["sent_bytes"],
            usage["received_bytes"],
            usage["errors"],
            Decimal(each.amount or "NaN"),
        )
        added[key] = tuple(map(add, added.get(key, (0, 0, 0, 0, 0, Decimal(0))), figures))
    return added


def test_calls_are_added_up_by_kind_and_attribution(client: Any, tmp_path: Path) -> None:
    with costinsights.attribute(asset="orders"):
        for size in range(100):
            client.request("put", "raw", size)
            client.request("get", "raw", 2 * size)
    with costinsights.attribute(asset="sales"):
        client.request("put", "raw", 7)
    with pytest.raises(KeyError):
        client.request("get", "fails", 7)
    client.request("head", "raw", 7)
    costinsights.flush()
    found = sums(read_ledger(str(tmp_path / "ledger")))
    assert found == {
        ("PUT", "raw", "orders"): (100, 100, sum(range(100)), 0, 0, Decimal("0.0005")),
        ("GET", "raw", "orders"): (100, 100, 0, 2 * sum(range(100)), 0, Decimal("0.00004")),
        ("PUT", "raw", "sales"): (1, 1, 7, 0, 0, Decimal("0.000005")),
        ("GET", "fails", None): (1, 1, 0, 7, 1, Decimal("0.0000004")),
    }
    one = next(read_ledger(str(tmp_path / "ledger")))
    assert (one.system, one.currency, one.basis, one.rows) == ("aws.s3", "USD", "estimated", None)
    assert one.usage["storage_class"] == "STANDARD"
    assert one.usage["transfer"] == "unknown"
    assert one.price is not None
