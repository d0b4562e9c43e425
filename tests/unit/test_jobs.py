"""Jobs: a pending charge at the start, the same charge completed by the answer that passes by."""

from __future__ import annotations

import os
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from opentelemetry import context, trace

from costinsights import jobs, runtime
from costinsights.guard import busy
from costinsights.instrumentor import Hook, Usage
from costinsights.jobs import (
    Asked,
    JobInstrumentor,
    One,
    Operation,
    Place,
    Run,
    Start,
    State,
    place,
)
from costinsights.ledger.reader import read_ledger
from costinsights.testing import Clock, capture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costinsights.records import Charge
    from costinsights.testing import Captured

US = "us-east-1"


class Client:
    """Answers what it was told to, and remembers what it was asked."""

    def __init__(self, region: str = US) -> None:
        self.region = region
        self.answers: list[Any] = []
        self.requests: list[tuple[str, Any]] = []

    def request(self, operation: str, request: dict[str, Any]) -> Any:
        self.requests.append((operation, request))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _where(client: Any, request: Any) -> Place:
    return place("aws.athena", address="acme", namespace=request.get("group"), region=client.region)


def _runs(request: Any, answer: Any) -> Iterator[Run]:
    for id_ in answer["ids"]:
        yield Run(id_, operation=request.get("operation"), meters=request.get("size"))


def _states(request: Any, answer: Any) -> Iterator[State]:
    for run in answer.get("runs", ()):
        usage = None if "bytes" not in run else Usage(run.get("rows"), _bytes(run["bytes"]))
        yield State(run["id"], "end" in run, usage, run.get("error"), run.get("elapsed"))


def _bytes(count: int) -> Mapping[str, int]:
    return {"data_scanned_bytes": count}


def _text(request: dict[str, Any]) -> str | None:
    return request.get("sql")


def _rewritten(
    args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (*args[:2], {**args[2], "sql": text}), kwargs


OPERATIONS = {
    "start": Operation("aws.athena", Start(_where, _runs, _text, _rewritten)),
    "fixed": Operation("aws.athena", Start(_where, _runs, _text)),
    "one": Operation(
        "aws.athena", Start(_where, One("id", "JOB", lambda request: request["size"]), by="group")
    ),
    "run": Operation("aws.athena", Start(_where, _runs), _states),
    "status": Operation("aws.athena", states=_states),
}


class Instrumentor(JobInstrumentor):
    name = "testjobs"
    system = "aws.athena"
    driver = "testjobs"
    supports = ("1", "2")
    meters = ("data_scanned_bytes",)
    basis = "metered"
    hooks = (Hook("testjobs:Client.request", leaf=True),)
    statement_tags = True
    short = True

    def starts(self, hook: Hook) -> frozenset[str]:
        return frozenset(OPERATIONS) if self.short else frozenset()

    def operation(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        found = OPERATIONS.get(args[1])
        return None if found is None else Asked(found, args[0], args[2])

    def with_labels(
        self, asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (*args[:2], {**args[2], "labels": dict(words)}), kwargs


class Switched(NamedTuple):
    client: Client
    captured: Captured
    instrumentor: Instrumentor

    def charges(self) -> list[Charge]:
        return self.captured.charges

    def one(self) -> Charge:
        (charge,) = self.charges()
        return charge

    def entries(self) -> int:
        """How many lines of charges there are on disk."""
        active = runtime.active()
        assert active is not None
        return len(list(read_ledger(active.config.ledger)))


def _switched(
    monkeypatch: pytest.MonkeyPatch, *, short: bool = True, **settings: Any
) -> Iterator[Switched]:
    module = ModuleType("testjobs")
    vars(module)["Client"] = kind = type("Client", (Client,), dict(vars(Client)))
    monkeypatch.setitem(sys.modules, "testjobs", module)
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    instrumentor = Instrumentor()
    monkeypatch.setattr(Instrumentor, "short", short)
    with capture("sqlite3", clock=Clock(), **settings) as found:
        active = runtime.active()
        assert active is not None
        instrumentor.instrument(active.recorder)
        yield Switched(kind(), found, instrumentor)
        instrumentor.uninstrument()
        assert vars(kind)["request"] is vars(Client)["request"]


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Switched]:
    yield from _switched(monkeypatch)


def _end(id_: str, scanned: int = 2**40, **more: Any) -> dict[str, Any]:
    return {"runs": [{"id": id_, "end": True, "bytes": scanned, **more}]}


def _start(on: Switched, *ids: str, **request: Any) -> None:
    on.client.answers.append({"ids": ids})
    on.client.request("start", {"sql": "SELECT 1", **request})


def _ask(on: Switched, answer: Any) -> None:
    on.client.answers.append(answer)
    on.client.request("status", {})


def test_a_start_is_pending_and_on_disk_when_it_returns(on: Switched) -> None:
    _start(on, "a-1", group="etl")
    charge = on.one()
    assert (charge.vendor_id, charge.partial) == ("a-1", True)
    assert (charge.amount, charge.basis, on.entries()) == (None, "unknown", 1)
    assert (charge.operation, charge.resource.namespace) == ("SELECT", "etl")


def test_its_end_completes_the_same_charge_once(on: Switched) -> None:
    _start(on, "a-1")
    first = on.one()
    _ask(on, {"runs": [{"id": "a-1", "bytes": 5}]})  # still under way
    assert on.one() == first
    _ask(on, _end("a-1", rows=7, elapsed=3 * 10**9))
    done = on.one()
    assert (done.charge_id, done.partial, on.entries()) == (first.charge_id, False, 2)
    assert (done.amount, done.basis, done.rows) == ("5.000000000000000", "metered", 7)
    assert done.duration_ns == first.duration_ns  # of the client's call; the run's is here:
    assert (done.started_at[17:19], done.ended_at[17:19]) == ("00", "03")
    _ask(on, _end("a-1"))
    assert (on.one(), on.entries()) == (done, 2)


def test_what_failed_says_so(on: Switched) -> None:
    _start(on, "a-1")
    _ask(on, _end("a-1", 0, error="FAILED"))
    charge = on.one()
    assert charge.error is not None
    assert (charge.error.type, charge.amount, charge.partial) == (
        "FAILED",
        "0.000000000000000",
        False,
    )


def test_an_end_without_figures_is_left_to_settlement(on: Switched) -> None:
    _start(on, "a-1")
    first = on.one()
    _ask(on, {"runs": [{"id": "a-1", "end": True}]})
    assert on.one() == first
    _ask(on, {"runs": [{"id": "a-1", "end": True, "error": "CANCELLED"}]})
    charge = on.one()
    assert (charge.partial, charge.amount, charge.error is None) == (True, None, False)


def test_an_idempotent_start_that_is_repeated_is_one_run(on: Switched) -> None:
    _start(on, "a-1")
    _start(on, "a-1")
    assert len(on.charges()) == 1
    _ask(on, _end("a-1"))
    _start(on, "a-1")
    assert on.one().amount == "5.000000000000000"


def test_one_call_may_start_several_and_one_answer_end_them(on: Switched) -> None:
    _start(on, "a-1", "a-2", "a-3", operation="STEP", size={"workers": 4})
    assert [charge.vendor_id for charge in on.charges()] == ["a-1", "a-2", "a-3"]
    assert {charge.operation for charge in on.charges()} == {"STEP"}
    assert {charge.usage["workers"] for charge in on.charges()} == {4}
    _ask(on, {"runs": [_end("a-3")["runs"][0], _end("a-1")["runs"][0]]})
    assert [charge.partial for charge in on.charges()] == [False, True, False]


def test_a_start_that_waits_for_the_end_is_one_entry(on: Switched) -> None:
    on.client.answers.append({"ids": ["a-1"], **_end("a-1")})
    on.client.request("run", {})
    charge = on.one()
    assert (on.entries(), charge.amount, charge.partial) == (1, "5.000000000000000", False)


def test_a_run_without_an_id_is_complete(on: Switched) -> None:
    on.client.answers.append({"ids": [None]})
    on.client.request("start", {})
    charge = on.one()
    assert (charge.vendor_id, charge.partial, charge.amount) == (None, False, None)


def test_a_start_that_fails_is_no_run_and_its_error_is_the_programs(on: Switched) -> None:
    error = LookupError("no such group")
    on.client.answers.append(error)
    with pytest.raises(LookupError) as caught:
        on.client.request("start", {"sql": "SELECT 1"})
    assert caught.value is error
    charge = on.one()
    assert charge.error is not None
    assert (charge.error.type, charge.vendor_id, charge.partial) == ("LookupError", None, False)


def test_a_question_that_fails_changes_nothing(on: Switched) -> None:
    _start(on, "a-1")
    first = on.one()
    on.client.answers.append(TimeoutError())
    with pytest.raises(TimeoutError):
        on.client.request("status", {})
    assert on.one() == first


def test_nothing_is_asked_and_nothing_is_changed(on: Switched) -> None:
    request = {"sql": "SELECT 1", "group": "etl"}
    answer = {"ids": ["a-1"]}
    on.client.answers.append(answer)
    assert on.client.request("start", request) is answer
    assert len(on.client.requests) == 1
    assert on.client.requests[0][1] is request
    on.client.answers.append(answer)
    assert on.client.request("other", request) is answer


def test_what_another_instrumentor_runs_is_not_counted_twice(on: Switched) -> None:
    token = busy.set("pyacme")
    try:
        _start(on, "a-1")
    finally:
        busy.reset(token)
    assert on.charges() == []


def test_many_threads_that_see_the_end_write_it_once(on: Switched) -> None:
    _start(on, "a-1")
    on.client.answers += [_end("a-1")] * 8
    threads = [threading.Thread(target=on.client.request, args=("status", {})) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(on.charges()), on.entries()) == (1, 2)


def test_runs_that_nobody_asks_after_are_forgotten_and_stay_pending(
    on: Switched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MOST_RUNS", 10)
    for number in range(30):
        _start(on, f"a-{number}")
    active = runtime.active()
    assert active is not None
    assert jobs.runs_of(active.recorder()).open == 10
    _ask(on, _end("a-3"))
    _ask(on, _end("a-29"))
    assert [charge.vendor_id for charge in on.charges() if not charge.partial] == ["a-29"]


def test_a_forked_child_leaves_its_parents_runs_alone(on: Switched) -> None:
    _start(on, "a-1")
    child = os.fork()
    if not child:
        try:
            _ask(on, _end("a-1"))
            active = runtime.active()
            assert active is not None
            assert jobs.runs_of(active.recorder()).open == 0
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    _ask(on, _end("a-1"))
    assert (len(on.charges()), on.entries()) == (1, 2)


def test_a_capacity_is_shared_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    capacity = {
        "name": "dpus",
        "system": "aws.athena",
        "database": "reserved",
        "price": "3.60",
        "unit": "hour",
        "currency": "USD",
    }
    for on in _switched(monkeypatch, config={"capacity": [capacity]}):
        _start(on, "a-1", group="reserved")
        assert on.one().amount == "0.000001000000000"  # a millisecond so far, at 0.001 a second
        _ask(on, _end("a-1"))
        charge = on.one()
        # The clock goes on by a millisecond each time that it is read.
        assert (charge.amount, charge.basis) == ("0.000002000000000", "estimated")
        assert charge.usage["data_scanned_bytes"] == 2**40


def test_labels_go_into_the_systems_own_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"tagging": "native", "labels": {"job": "nightly"}}
    for on in _switched(monkeypatch, config=config):
        request = {"sql": "SELECT 1"}
        on.client.answers.append({"ids": ["a-1"]})
        on.client.request("start", request)
        assert on.client.requests == [("start", {**request, "labels": {"job": "nightly"}})]
        assert on.one().tag == "ci,job=nightly"
        _ask(on, _end("a-1"))
        assert on.client.requests[1] == ("status", {})


def test_a_comment_goes_into_the_text_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"tagging": "comment", "labels": {"job": "nightly"}}
    for on in _switched(monkeypatch, config=config):
        _start(on, "a-1")
        assert on.client.requests == [("start", {"sql": "SELECT 1 /*ci,job=nightly*/"})]
        assert on.one().tag == "ci,job=nightly"


def test_what_cannot_be_rewritten_has_no_comment_and_no_tag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {"tagging": "comment", "labels": {"job": "nightly"}}
    for on in _switched(monkeypatch, config=config):
        on.client.answers.append({"ids": ["a-1"]})
        on.client.request("fixed", {"sql": "SELECT 1"})
        assert on.client.requests == [("fixed", {"sql": "SELECT 1"})]
        charge = on.one()
        assert charge.tag is None
        assert charge.statement is not None
        assert charge.statement.text == "SELECT ?"


def test_an_answer_that_nobody_can_read_still_leaves_a_charge(
    on: Switched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "0")
    on.client.answers.append({"identifiers": ["a-1"]})
    on.client.request("start", {"sql": "SELECT 1"})
    charge = on.one()
    assert (charge.operation, charge.vendor_id, charge.amount) == ("SELECT", None, None)
    on.client.answers.append({"runs": [{"name": "a-1"}]})
    on.client.request("status", {})
    assert on.one() == charge


# What the requests of starts may look like.
SHAPES: tuple[dict[str, Any], ...] = (
    {"sql": "SELECT 1"},
    {"sql": "SELECT 2", "group": "etl"},
    {"group": "etl"},
    {"group": "etl", "operation": "JOB", "size": {"workers": 4, "class": "FLEX \u00e4"}},
    {"sql": "SELECT 1", "operation": 'of "two" words'},
)


def _lived(monkeypatch: pytest.MonkeyPatch, *, short: bool) -> tuple[list[Charge], list[str]]:
    """Start jobs of each shape, twice, in a span and in none; some fail, some end, some repeat."""
    general: list[str] = []
    end = jobs.Watch.end

    def told(watch: jobs.Watch, call: jobs.Call, answer: Any, error: Any) -> None:
        given: dict[str, list[str]] = answer or {}
        general.append(",".join(given.get("ids", ["ask"])))
        end(watch, call, answer, error)

    monkeypatch.setattr(jobs.Watch, "end", told)
    span = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1))
    inside = trace.set_span_in_context(trace.NonRecordingSpan(span))
    charges: list[Charge] = []
    for on in _switched(monkeypatch, short=short):
        for turn, around in enumerate((None, None, inside)):
            token = None if around is None else context.attach(around)
            for number, shape in enumerate(SHAPES):
                _start(on, f"{turn}-{number}", **{"sql": None, **shape})
            _start(on, "0-0")  # as the first one
            _start(on, f"{turn}-a", f"{turn}-b")
            on.client.answers.append(LookupError("no such group"))
            with pytest.raises(LookupError):
                on.client.request("start", {"sql": "SELECT 1"})
            if token is not None:
                context.detach(token)
        _ask(on, _end("1-1", rows=7, elapsed=3 * 10**9))
        _ask(on, _end("2-3", 0, error="FAILED"))
        _start(on, "1-1")  # which has ended
        charges = on.charges()
    monkeypatch.setattr(jobs.Watch, "end", end)
    return charges, general


def test_the_short_way_writes_what_the_general_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    charges, general = _lived(monkeypatch, short=True)
    assert charges == _lived(monkeypatch, short=False)[0]
    # What is new in some way: a place, a statement, both; and calls that start several runs.
    assert general == ["0-0", "0-1", "0-2", "0-a,0-b", "1-a,1-b", "2-a,2-b", "ask", "ask"]
    assert len(charges) == 3 * (len(SHAPES) + 3)
    assert len({charge.charge_id for charge in charges}) == len(charges)
    assert sum(charge.parent_span_id is not None for charge in charges) == len(SHAPES) + 3
    assert sum(not charge.partial for charge in charges) == 2 + 3


def _routed(monkeypatch: pytest.MonkeyPatch, *, short: bool) -> tuple[list[Charge], list[Any]]:
    """Start runs by two clients in several places, again and again; the last one has no id."""
    general: list[Any] = []
    charges: list[Charge] = []
    end = jobs.Watch.end

    def told(watch: jobs.Watch, call: jobs.Call, answer: Any, error: Any) -> None:
        general.append(answer.get("id"))
        end(watch, call, answer, error)

    monkeypatch.setattr(jobs.Watch, "end", told)
    for on in _switched(monkeypatch, short=short):
        other = type(on.client)("eu-west-1")
        for turn in range(3):
            for client in (on.client, other):
                for group in ("etl", None, "ads"):
                    client.answers.append({"id": f"{turn} {client.region} {group}"})
                    client.request("one", {"group": group, "size": {"workers": turn}})
        on.client.answers.append({})
        on.client.request("one", {"group": "etl", "size": None})
        charges = on.charges()
    monkeypatch.setattr(jobs.Watch, "end", end)
    return charges, general


def test_a_start_goes_where_its_client_and_its_request_say(monkeypatch: pytest.MonkeyPatch) -> None:
    charges, general = _routed(monkeypatch, short=True)
    assert charges == _routed(monkeypatch, short=False)[0]
    # New places, of which the first is a new statement as well; and what has no id.
    assert general == [f"0 {r} {g}" for r in (US, "eu-west-1") for g in ("etl", None, "ads")] + [
        None
    ]
    for charge in charges[:-1]:
        turn, region, group = str(charge.vendor_id).split()
        assert (charge.resource.region, str(charge.resource.namespace)) == (region, group)
        assert (charge.operation, charge.usage["workers"]) == ("JOB", int(turn))
