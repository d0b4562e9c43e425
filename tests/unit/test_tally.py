"""Calls that are added up: the same sums, who they are for, what they cost, and none lost."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from decimal import Decimal
from operator import add
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costinsights
from costinsights import runtime
from costinsights.ledger import tallies
from costinsights.ledger.reader import read_ledger
from costinsights.ledger.store import open_store
from costinsights.pricing import PriceBook
from costinsights.pricing.adding import Adding, Priced
from costinsights.storage import Counting, Hook, Kind, StorageCall, StorageInstrumentor
from costinsights.tally import Aggregate
from costinsights.testing import capture

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


def test_awaited_calls_and_scopes(client: Any, tmp_path: Path) -> None:
    """What a scope has cost is known at once, to the last digit, also of calls that are awaited."""

    async def ask(count: int) -> None:
        for _ in range(count):
            await client.ask("put", "raw", 1)

    with costinsights.attribute(asset="outer") as outer:
        asyncio.run(ask(3))
        with costinsights.attribute(job="inner") as inner:
            client.request("put", "raw", 1)
            assert inner.cost().amount == Decimal("0.000005")
        assert (outer.cost().amount, outer.cost().calls) == (Decimal("0.00002"), 4)
    costinsights.flush()
    assert sums(read_ledger(str(tmp_path / "ledger")))["PUT", "raw", "outer"][0] == 4


def test_a_second_is_an_entry(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [0]
    monkeypatch.setattr("costinsights.tally.perf_counter_ns", lambda: moment[0])
    ids: set[str] = set()
    for number in range(10):
        moment[0] = number * 250_000_000
        client.request("put", "raw", 1)
        ids |= {charge.charge_id for charge in read_ledger(str(tmp_path / "ledger"))}
    # 0 to 0.75, 1 to 1.75, 2 to 2.25; more where our own thread has looked in between.
    assert len(ids) >= 3
    assert sums(latest(tmp_path))["PUT", "raw", None][:3] == (10, 10, 10)


def test_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of programs: what was added up is there at once."""
    module: Any = ModuleType(MODULE)
    module.Client = type("Client", (Client,), dict(vars(Client)))
    monkeypatch.setitem(sys.modules, MODULE, module)
    with capture(config={"disabled_instrumentors": ["*"]}) as captured:
        active = runtime.active()
        assert active is not None
        instrumentor = AcmeInstrumentor()
        instrumentor.instrument(active.recorder)
        module.Client().request("put", "raw", 3)
        assert sums(captured.charges)["PUT", "raw", None][0] == 1
        module.Client().request("put", "raw", 3)
        instrumentor.uninstrument()
    assert sums(captured.charges)["PUT", "raw", None][:3] == (2, 2, 6)


def test_in_threads(client: Any, tmp_path: Path) -> None:
    def work(asset: str) -> None:
        with costinsights.attribute(asset=asset):
            for size in range(500):
                client.request("put", "raw", size)

    threads = [Thread(target=work, args=(f"asset-{number % 2}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    costinsights.flush()
    found = sums(latest(tmp_path))
    for asset in ("asset-0", "asset-1"):
        assert found["PUT", "raw", asset] == (
            *(1500, 1500, 3 * sum(range(500)), 0, 0),
            1500 * Decimal("0.000005"),
        )


def latest(tmp_path: Path) -> list[Charge]:
    """Return each charge once."""
    found = {charge.charge_id: charge for charge in read_ledger(str(tmp_path / "ledger"))}
    return list(found.values())


def test_while_the_tally_cannot_be_written_calls_go_to_the_ledger_at_once(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "tallies").write_text("no folder")
    for _ in range(3):
        client.request("put", "raw", 1)
    entries = list(read_ledger(str(tmp_path / "ledger")))
    assert sums(entries)["PUT", "raw", None][:3] == (3, 3, 3)
    assert len(entries) == 3


def test_while_the_disk_takes_nothing_sums_grow_in_memory(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.request("get", "raw", 1)
    costinsights.flush()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        patch.setattr(os, "write", full)
        for _ in range(10_000):  # more than the writer would keep
            client.request("put", "raw", 1)
    monkeypatch.setattr("costinsights.ledger.writer.RETRY_NS", 0)
    writer = runtime.active().recorder().writer  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]  it is switched on
    writer._retry_at = 0  # pyright: ignore[reportPrivateUsage]  a second later
    costinsights.uninstrument()
    assert sums(latest(tmp_path))["PUT", "raw", None][:3] == (10_000, 10_000, 10_000)
    assert not writer.dropped


def test_a_write_that_was_cut_off_is_made_again_in_its_place(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot's other half is the last that is whole."""
    client.request("put", "raw", 1)
    places: list[int] = []
    pwrite = os.pwrite

    def cut_off(_: object, fd: int, offset: int, *others: object) -> int:
        places.append(offset)
        pwrite(fd, b'{"k":"e"', offset)
        raise OSError(errno.ENOSPC, "full")

    def noted(fd: int, line: bytes, offset: int) -> int:
        places.append(offset)
        return pwrite(fd, line, offset)

    with monkeypatch.context() as patch:
        patch.setattr(Aggregate, "keep", cut_off)
        patch.setattr(os, "pwrite", noted)
        for _ in range(2):
            client.request("put", "raw", 1)
    first, again, second, once_more = places
    assert first == again
    assert second == once_more
    assert abs(second - first) == tallies.HALF
    client.request("put", "raw", 1)
    assert sums(latest(tmp_path))["PUT", "raw", None][:3] == (4, 4, 4)


def test_a_tally_that_is_deleted_loses_nothing(client: Any, tmp_path: Path) -> None:
    client.request("put", "raw", 1)
    for path in (tmp_path / "ledger" / "tallies").iterdir():
        path.unlink()
    client.request("put", "raw", 1)
    costinsights.flush()
    client.request("put", "raw", 1)
    costinsights.uninstrument()
    assert sums(latest(tmp_path))["PUT", "raw", None][0] == 3


def test_an_entry_that_is_too_long_for_a_slot(client: Any, tmp_path: Path) -> None:
    """It goes to the ledger at once."""
    name = "x" * 2000
    kind = Kind("aws.s3", "tier1_requests", "PUT", "raw", "us-east-1", words=(("word", name),))
    for _ in range(3):
        adder = counting(client).adder(kind)
        assert adder is not None
        adder.add(requests=1, sent=5)
    entries = list(read_ledger(str(tmp_path / "ledger")))
    assert [entry.usage["sent_bytes"] for entry in entries] == [5, 5, 5]
    assert {entry.usage["word"] for entry in entries} == {name}


def counting(client: Any) -> Counting:
    """Return what counts the calls of a client that is recorded."""
    found: object = client.request.__func__.__costinsights__.recorder
    assert isinstance(found, Counting)
    return found


def test_reading_what_is_left_changes_nothing(client: Any, tmp_path: Path) -> None:
    client.request("put", "raw", 1)
    ledger = tmp_path / "ledger"
    (path,) = (ledger / "tallies").iterdir()
    copy = tmp_path / "other" / "tallies"
    copy.mkdir(parents=True)
    (copy / path.name).write_bytes(path.read_bytes() + b'{"k":"e","n":99,"torn')
    before = sorted((each, each.stat().st_mtime_ns) for each in copy.parent.rglob("*"))
    with open_store(str(copy.parent)) as store:
        (charge,) = store.charges()
        assert charge.usage["calls"] == 1
        assert store.torn == 0
    assert sorted((each, each.stat().st_mtime_ns) for each in copy.parent.rglob("*")) == before
    assert tallies.settle(str(copy.parent)) == 1
    assert tallies.settle(str(copy.parent)) == 0
    (again,) = read_ledger(str(copy.parent))
    assert again.charge_id == charge.charge_id


@given(requests=st.integers(0, 10**9), received=st.integers(0, 10**13))
def test_a_sum_costs_what_a_quote_of_it_says(requests: int, received: int) -> None:
    book = PriceBook.load()
    words = {"storage_class": "STANDARD_IA", "colour": "blue"}
    part = Priced("aws.s3", "tier2_requests", "retrieved_bytes", words)
    adding = Adding(book, (part,), "us-east-1", pytest.fail)
    found = adding(requests, received, 20_000)
    usage = {"tier2_requests": requests, **({"retrieved_bytes": received} if received else {})}
    quote = book.quote("aws.s3", usage, "us-east-1", at="2024-10-04", storage_class="STANDARD_IA")
    assert found is not None
    assert quote.amount is not None
    assert Decimal(found[0]).scaleb(-15) == quote.amount
    assert found[1].currency == quote.currency
