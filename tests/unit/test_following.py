"""Runs that their program does not ask for: asked for in the background, bounded and counted."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from costinsights import background, followed, following, runtime
from costinsights.guard import SUPPRESSED, busy
from costinsights.instrumentor import Hook, Usage
from costinsights.jobs import (
    Asked,
    Follow,
    JobInstrumentor,
    Operation,
    Place,
    Run,
    Start,
    State,
    Waiting,
    place,
)
from costinsights.ledger.reader import read_ledger
from costinsights.testing import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from costinsights.records import Charge
    from costinsights.testing import Captured

TB = 2**40
FIVE = "5.000000000000000"
QUIET = 0.1


class Throttled(Exception):
    error_code = "ThrottlingException"
    retry_after_secs = 0.2


class Denied(Exception):
    error_code = "AccessDeniedException"


class NotFound(Exception):
    error_code = "EntityNotFoundException"


class Expired(Exception):
    error_code = "ExpiredTokenException"


class Vendor:
    """What runs there, and who has asked for what, on which thread."""

    def __init__(self) -> None:
        self.runs: dict[str, State] = {}
        self.asked: list[tuple[str, ...]] = []
        self.threads: set[str] = set()
        self.busy: set[str | None] = set()
        self.errors: list[Exception] = []
        self.opened = self.closed = 0
        self.waiting: list[Waiting] = []

    def client(self, programs: Any) -> Vendor:
        self.opened += 1
        return self

    def ask(self, client: Any, waiting: Sequence[Waiting]) -> Iterator[State]:
        self.asked.append(tuple(run.id for run in waiting))
        self.waiting += waiting
        self.threads.add(threading.current_thread().name)
        self.busy.add(busy.get())
        if self.errors:
            raise self.errors.pop(0)
        yield from (self.runs[run.id] for run in waiting if run.id in self.runs)

    def close(self, client: Any) -> None:
        self.closed += 1

    def end(self, *ids: str, scanned: int = TB, error: str | None = None) -> None:
        for id_ in ids:
            self.runs[id_] = State(id_, True, Usage(None, {"data_scanned_bytes": scanned}), error)


class Client:
    """The program's."""

    def request(self, operation: str, request: dict[str, Any]) -> Any:
        return request


def _same(client: Any) -> str:
    return "one"


def _broken(client: Any) -> Any:
    raise ZeroDivisionError


def _where(client: Any, request: Any) -> Place:
    return place("aws.athena", address="acme", namespace="etl", region="us-east-1")


def _runs(request: Any, answer: Any) -> Iterator[Run]:
    for id_ in request["ids"]:
        yield Run(id_, meters={"workers": 4})


def _states(request: Any, answer: Any) -> Iterator[State]:
    yield from request["states"]


class Instrumentor(JobInstrumentor):
    name = "testfollowing"
    system = "aws.athena"
    driver = "testfollowing"
    supports = ("1", "2")
    meters = ("data_scanned_bytes",)
    basis = "metered"
    hooks = (Hook("testfollowing:Client.request", leaf=True),)

    def __init__(self, vendor: Vendor, batch: int) -> None:
        super().__init__()
        follow = Follow(vendor.client, vendor.ask, batch, vendor.close, same=_same)
        self.operations = {
            "start": Operation("aws.athena", Start(_where, _runs), follow=follow),
            "status": Operation("aws.athena", states=_states),
        }

    def operation(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        return Asked(self.operations[args[1]], args[0], args[2])


class On(NamedTuple):
    client: Client
    vendor: Vendor
    captured: Captured
    instrumentor: Instrumentor

    def follow(self, follow: Follow) -> None:
        """Have runs followed in another way from now on."""
        start = self.instrumentor.operations["start"]
        self.instrumentor.operations["start"] = start._replace(follow=follow)

    def start(self, *ids: str) -> None:
        self.client.request("start", {"ids": ids})

    def status(self, *states: State) -> None:
        self.client.request("status", {"states": states})

    def charge(self, id_: str) -> Charge:
        (found,) = [charge for charge in self.captured.charges if charge.vendor_id == id_]
        return found

    @property
    def ledger(self) -> str:
        active = runtime.active()
        assert active is not None
        return active.config.ledger


def switched(monkeypatch: pytest.MonkeyPatch, batch: int = 50, **settings: Any) -> Iterator[On]:
    monkeypatch.setattr(following, "PACE", following.Pace(quiet=QUIET, apart=0.001))
    monkeypatch.setattr(background, "TICK_SECONDS", 0.02)
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    module = ModuleType("testfollowing")
    vars(module)["Client"] = kind = type("Client", (Client,), dict(vars(Client)))
    monkeypatch.setitem(sys.modules, "testfollowing", module)
    vendor = Vendor()
    instrumentor = Instrumentor(vendor, batch)
    with capture("sqlite3", **settings) as captured:
        active = runtime.active()
        assert active is not None
        instrumentor.instrument(active.recorder)
        yield On(kind(), vendor, captured, instrumentor)
        instrumentor.uninstrument()
    assert vendor.opened == vendor.closed


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[On]:
    yield from switched(monkeypatch)


def until(done: Callable[[], bool]) -> None:
    """Wait for what happens in the background."""
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_run_that_nobody_asks_for_gets_its_end(on: On) -> None:
    on.vendor.end("a-1")
    on.start("a-1")
    assert on.vendor.asked == []  # nothing on the caller's thread
    assert on.charge("a-1").partial
    until(lambda: not on.charge("a-1").partial)
    charge = on.charge("a-1")
    assert (charge.amount, charge.basis, charge.usage["workers"]) == (FIVE, "metered", 4)
    assert on.vendor.asked == [("a-1",)]
    assert on.vendor.threads == {"costinsights-jobs"}
    assert on.vendor.busy == {SUPPRESSED}
    until(lambda: on.vendor.closed == 1)  # nothing is held while nothing is open
    assert "costinsights-jobs" not in {thread.name for thread in threading.enumerate()}


def test_the_question_knows_what_the_charge_knows(on: On) -> None:
    on.vendor.end("a-1")
    on.start("a-1")
    until(lambda: not on.charge("a-1").partial)
    (run,) = on.vendor.waiting
    assert (run.namespace, run.region, run.address) == ("etl", "us-east-1", "acme")
    assert (run.started_at is not None, run.meters) == (True, {"workers": 4})


def test_what_goes_on_is_asked_for_less_and_less_often(on: On) -> None:
    on.vendor.runs["a-1"] = State("a-1", False)
    on.start("a-1")
    until(lambda: len(on.vendor.asked) == 5)
    on.vendor.end("a-1")
    until(lambda: not on.charge("a-1").partial)
    assert len(list(read_ledger(on.ledger))) == 2


def test_a_run_that_goes_on_gets_what_it_has_used_so_far(on: On) -> None:
    on.vendor.runs["a-1"] = State("a-1", False, Usage(None, {"data_scanned_bytes": TB}))
    on.start("a-1")
    until(lambda: on.charge("a-1").amount == FIVE)
    assert on.charge("a-1").partial
    on.vendor.end("a-1", scanned=3 * TB)
    until(lambda: not on.charge("a-1").partial)
    assert on.charge("a-1").amount == "15.000000000000000"
    assert on.charge("a-1").usage["data_scanned_bytes"] == 3 * TB


def test_many_are_asked_for_at_once(on: On) -> None:
    ids = [f"a-{number}" for number in range(120)]
    on.vendor.end(*ids)
    on.start(*ids)
    until(lambda: not any(charge.partial for charge in on.captured.charges))
    assert sorted(len(some) for some in on.vendor.asked) == [20, 50, 50]
    assert sorted(id_ for some in on.vendor.asked for id_ in some) == sorted(ids)


def test_a_run_that_its_program_asks_for_is_the_programs(
    on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PACE", following.Pace(quiet=1.0, apart=0.001))
    on.vendor.end("a-1", "b-1")
    on.start("a-1", "b-1")
    while on.charge("b-1").partial:  # for longer than it would take
        on.status(State("a-1", False))
        time.sleep(QUIET / 2)
    assert all("a-1" not in some for some in on.vendor.asked)
    on.status(on.vendor.runs["a-1"])
    assert on.charge("a-1").amount == FIVE
    time.sleep(1.5)
    assert all("a-1" not in some for some in on.vendor.asked)


def test_throttling_is_heeded(on: On) -> None:
    on.vendor.errors += [Throttled(), Throttled()]
    on.vendor.end("a-1")
    on.start("a-1")
    until(lambda: not on.charge("a-1").partial)
    (sums,) = followed.asked(on.ledger)
    assert (sums.system, sums.requests) == ("aws.athena", 3)
    assert sums.failed == {"ThrottlingException": 2}


def test_without_permission_it_stops_and_says_so_once(
    on: On, caplog: pytest.LogCaptureFixture
) -> None:
    on.vendor.errors += [Denied()]
    on.start("a-1", "a-2")
    until(lambda: on.vendor.closed == 1)
    on.start("a-3")
    time.sleep(3 * QUIET)
    assert len(on.vendor.asked) == 1
    assert all(charge.partial for charge in on.captured.charges)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "AccessDeniedException" in said
    assert "costinsights settle aws.athena" in said


def test_credentials_that_expire_are_asked_for_anew(on: On) -> None:
    on.vendor.errors += [Expired()]
    on.vendor.end("a-1")
    on.start("a-1")
    until(lambda: not on.charge("a-1").partial)
    assert on.vendor.opened == 2


def test_what_the_vendor_does_not_know_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for on in switched(monkeypatch, batch=1):
        on.vendor.errors += [NotFound(), NotFound(), NotFound()]
        on.start("a-1")
        until(lambda on=on: on.vendor.closed == 1)  # type: ignore[misc]  # mypy cannot infer it
        assert len(on.vendor.asked) == 3
        assert on.charge("a-1").partial  # whether it is lost, settlement finds out


def test_a_client_that_cannot_be_made_is_said_and_costs_nothing(
    on: On, caplog: pytest.LogCaptureFixture
) -> None:
    on.follow(Follow(_broken, on.vendor.ask))
    on.start("a-1")
    until(lambda: bool(caplog.records))
    assert "ZeroDivisionError" in caplog.records[0].getMessage()
    assert on.vendor.asked == []
    assert on.charge("a-1").partial


@pytest.mark.parametrize("how", ["file", "environment"])
def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    settings: dict[str, Any] = {"config": {"follow_jobs": False}}
    if how == "environment":
        monkeypatch.setenv("COSTINSIGHTS_FOLLOW_JOBS", "false")
        settings = {"config": {"follow_jobs": True}}
    for on in switched(monkeypatch, **settings):
        on.start("a-1")
        time.sleep(3 * QUIET)
        assert (on.vendor.asked, on.vendor.opened) == ([], 0)
        assert followed.asked(on.ledger) == []


def test_a_forked_child_does_not_follow_its_parents_runs(on: On) -> None:
    on.vendor.runs["a-1"] = State("a-1", False)
    on.start("a-1")
    until(lambda: len(on.vendor.asked) == 1)
    child = os.fork()
    if not child:
        try:
            on.vendor.asked.clear()
            on.vendor.end("c-1")
            on.start("c-1")
            until(lambda: any("c-1" in some for some in on.vendor.asked))
            os._exit(0 if on.vendor.asked == [("c-1",)] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    on.vendor.end("a-1")
    until(lambda: not on.charge("a-1").partial)


def test_the_end_does_not_wait_for_a_vendor_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    for on in switched(monkeypatch):
        asking = threading.Event()

        def hang(client: Any, waiting: Any, asking: threading.Event = asking) -> Iterator[State]:
            asking.set()
            release.wait(60)
            yield from ()

        on.follow(Follow(on.vendor.client, hang))
        on.start("a-1")
        assert asking.wait(30)
        active = runtime.active()
        assert active is not None
        begun = time.monotonic()
        active.close()
        assert time.monotonic() - begun < 5  # and not sixty
        release.set()
        on.vendor.closed = on.vendor.opened
        until(lambda: "costinsights-jobs" not in {thread.name for thread in threading.enumerate()})


def test_the_end_may_come_while_a_client_is_hung_up(on: On) -> None:
    active = runtime.active()
    assert active is not None
    both = threading.Event()

    def close(client: Any) -> None:
        other = threading.Thread(target=active.close)
        other.start()
        other.join(following.EXIT_SECONDS / 3)  # it has come to the places, if nothing holds it
        both.set()
        on.vendor.close(client)

    on.follow(Follow(on.vendor.client, on.vendor.ask, 1, close, same=_same))
    on.vendor.runs["a-1"] = State("a-1", False)
    on.start("a-1")
    until(lambda: bool(on.vendor.asked))
    on.status(State("a-1", True, Usage(None, {"data_scanned_bytes": TB})))
    assert both.wait(30)
    until(lambda: on.vendor.closed == 1)


def test_the_counts_of_days_long_gone_are_forgotten(tmp_path: Any) -> None:
    old = tmp_path / followed.FOLDER / "2020-01-01.jsonl"
    old.parent.mkdir()
    old.write_text('{"system":"aws.glue","requests":7}\n')
    followed.note(str(tmp_path), "aws.glue", "us-east-1", requests=1)
    followed.note(str(tmp_path), "aws.glue", "us-east-1", requests=2, failed="Throttling")
    (tmp_path / followed.FOLDER / "2999-01-01.jsonl").write_text('{"syst')
    (sums,) = followed.asked(str(tmp_path))
    assert (sums.requests, sums.failed, sums.region) == (3, {"Throttling": 1}, "us-east-1")
    assert not old.exists()
