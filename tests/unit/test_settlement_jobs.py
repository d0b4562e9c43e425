"""Runs that are asked for by their ids: running, lost, expired, half-way, killed, malformed."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from costinsights import asking
from costinsights.asking import ATTEMPTS, NoSuchThing, batches, pages, patiently
from costinsights.ledger.reader import read_ledger
from costinsights.ledger.segment import Segment
from costinsights.ledger.store import open_store
from costinsights.ledger.writer import Writer
from costinsights.records import Resource
from costinsights.settlement import Settled, SettlementError, WouldWake, settle
from costinsights.settlement.history import HistoryError
from costinsights.troubles import trouble_of
from tests.histories import SYSTEM, SeededHistory, at, ns, price_file, query
from tests.ledgers import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.history import Figure

SCAN: dict[str, Any] = {"meters": {"scanned_bytes": 10**12}, "billed": ("scanned_bytes",)}
FIVE = "5.000000000000000"


class JobHistory(SeededHistory):
    """Asks for runs by id, so many at once."""

    by_id = True
    batch: ClassVar[int] = 50

    def __init__(self, *figures: Figure, unknown: tuple[str, ...] = (), **more: Any) -> None:
        super().__init__(figures, **more)
        self.unknown = unknown
        self.batches: list[list[str]] = []
        self.closed = 0

    def close(self) -> None:
        super().close()
        self.closed += 1

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        found = {figure.vendor_id: figure for figure in self.figures}
        for some in batches(self.waiting, self.batch):
            self.batches.append([run.id for run in some])
            for run in some:
                if run.id in found:
                    yield found[run.id]
                elif run.id in self.unknown:
                    self.gone(run.id)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def pending(ledger: Path, *ids: str, minute: float = 0, **more: Any) -> None:
    program = Program(ledger)
    for id_ in ids:
        given: dict[str, Any] = {"at": ns(minute), "amount": None, "statement": None, **more}
        program.call(system=SYSTEM, i=id_, l=True, o="JOB", **given)
    program.close()


def run(ledger: Path, history: JobHistory, **more: Any) -> Settled:
    given: dict[str, Any] = {
        "now": at(180),
        "config": {"price_books": [price_file(ledger.parent)]},
        **more,
    }
    return settle(SYSTEM, ledger=str(ledger), history=history, **given)


def charges(ledger: Path) -> dict[str | None, Charge]:
    with open_store(str(ledger)) as store:
        return {charge.vendor_id: charge for charge in store.charges()}


def test_a_run_that_goes_on_is_settled_so_far_and_again_until_its_end(ledger: Path) -> None:
    pending(ledger, "r1")
    so_far = query("r1", 0, None, so_far=at(60), **SCAN)
    report = run(ledger, JobHistory(so_far))
    assert (report.running, report.settled, report.left) == (1, 0, {})
    charge = charges(ledger)["r1"]
    assert (charge.partial, charge.amount, charge.basis) == (True, FIVE, "metered")
    assert charge.ended_at.startswith("2026-11-22T13:00")
    assert run(ledger, JobHistory(so_far)).unchanged == 1
    more = {**SCAN, "meters": {"scanned_bytes": 3 * 10**12}}
    report = run(ledger, JobHistory(query("r1", 0, 90, **more)), now=at(200))
    assert (report.running, report.settled) == (0, 1)
    charge = charges(ledger)["r1"]
    assert (charge.partial, charge.amount) == (False, "15.000000000000000")
    assert JobHistory().batches == []
    last = JobHistory()
    assert run(ledger, last, now=at(220)).settled == 0
    assert last.batches == []  # what is settled is not asked for


def test_a_run_that_goes_on_without_a_figure_is_left(ledger: Path) -> None:
    pending(ledger, "r1")
    report = run(ledger, JobHistory(query("r1", 0, None)))
    assert report.left == {"still runs": 1}
    assert charges(ledger)["r1"].amount is None


def test_what_the_system_no_longer_knows_is_lost_and_not_dropped(ledger: Path) -> None:
    pending(ledger, "r1", "r2")
    assert run(ledger, JobHistory(query("r2", 0, 1, **SCAN), unknown=("r1",))).lost == 1
    found = charges(ledger)
    assert found["r1"].usage["lost"] == "acme no longer knows it"
    assert (found["r1"].partial, found["r1"].amount) == (True, None)
    asked = JobHistory(query("r1", 0, 1, **SCAN))
    assert run(ledger, asked, now=at(240)).settled == 0
    assert asked.batches == []
    assert run(ledger, asked, now=at(240), lost=True).settled == 1  # the account was the wrong one
    charge = charges(ledger)["r1"]
    assert (charge.amount, charge.partial, "lost" in charge.usage) == (FIVE, False, False)


def test_lost_ones_that_are_asked_for_again_in_vain_stay_as_they_are(ledger: Path) -> None:
    pending(ledger, "r1")
    run(ledger, JobHistory(unknown=("r1",)))
    before = list(read_ledger(str(ledger)))
    run(ledger, JobHistory(unknown=("r1",)), lost=True)
    assert list(read_ledger(str(ledger))) == before


def test_a_young_run_is_not_taken_for_lost(ledger: Path) -> None:
    pending(ledger, "r1", minute=150)
    report = run(ledger, JobHistory(unknown=("r1",)))
    assert (report.lost, report.left) == (0, {"the system does not know it yet": 1})
    assert "lost" not in charges(ledger)["r1"].usage


def test_what_was_not_answered_is_not_lost(ledger: Path) -> None:
    pending(ledger, "r1")
    report = run(ledger, JobHistory())
    assert (report.lost, report.without) == (0, 1)
    assert "lost" not in charges(ledger)["r1"].usage


def test_a_run_that_is_older_than_the_history_is_lost(ledger: Path) -> None:
    pending(ledger, "old", minute=-60 * 24 * 50)
    pending(ledger, "kept", minute=-60 * 24 * 40)
    history = JobHistory(retention=timedelta(days=45))
    report = run(ledger, history)
    assert history.batches == [["kept"]]
    assert report.lost == 1
    assert charges(ledger)["old"].usage["lost"] == "older than what the system keeps, 45 days"


def test_runs_of_long_ago_are_settled_whatever_since_says(ledger: Path) -> None:
    days = 60 * 24
    pending(ledger, "r1", minute=-20 * days)
    figure = query("r1", -20 * days, -20 * days + 30, **SCAN)
    assert run(ledger, JobHistory(figure), since=at(0)).settled == 1
    assert charges(ledger)["r1"].amount == FIVE


def test_without_any_since_what_waits_is_asked_for(ledger: Path) -> None:
    pending(ledger, "r1", minute=-300)
    assert run(ledger, JobHistory(query("r1", -300, -290, **SCAN))).settled == 1


def test_the_same_id_in_two_places_is_two_runs(ledger: Path) -> None:
    for place in ("one", "two"):
        pending(ledger, "17", resource=Resource("acme.example", namespace=place))
    figure = query("17", 0, 1, resource=Resource(namespace="two"), **SCAN)
    history = JobHistory(figure)
    run(ledger, history)
    assert [(run_.id, run_.namespace) for run_ in history.waiting] == [("17", "one"), ("17", "two")]
    with open_store(str(ledger)) as store:
        found = {charge.resource.namespace: charge.amount for charge in store.charges()}
    assert found == {"one": None, "two": FIVE}


def test_an_answer_that_makes_no_sense_keeps_its_meters_and_says_why(ledger: Path) -> None:
    pending(ledger, "r1")
    figure = query("r1", 0, 1, meters={"worker_type": "Z.9X"}, problem="nobody knows worker Z.9X")
    report = run(ledger, JobHistory(figure))
    assert report.unpriced == {"nobody knows worker Z.9X": 1}
    charge = charges(ledger)["r1"]
    assert (charge.amount, charge.basis) == (None, "unknown")
    assert charge.usage["unpriced"] == "nobody knows worker Z.9X"
    assert charge.usage["worker_type"] == "Z.9X"
    assert run(ledger, JobHistory(query("r1", 0, 1, **SCAN)), now=at(200)).settled == 1
    assert "unpriced" not in charges(ledger)["r1"].usage


def test_a_reader_is_closed_when_nothing_was_asked_of_a_system_that_sleeps(ledger: Path) -> None:
    pending(ledger, "r1")
    history = JobHistory(wakes="It sleeps.")
    with pytest.raises(WouldWake):
        run(ledger, history)
    assert history.closed == 1


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_any_write_the_next_run_leaves_no_gap_and_no_duplicate(tmp_path: Path) -> None:
    """SIGKILL, between any two writes to the disk, in a process of its own."""
    ids = [f"r{number}" for number in range(6)]
    figures = [query(id_, 0, 1, **SCAN) for id_ in ids]
    killed = 0
    for after in range(40):
        ledger = tmp_path / str(after) / "ledger"
        ledger.parent.mkdir()
        pending(ledger, *ids)
        child = os.fork()
        if not child:
            try:
                _die_after(after)
                run(ledger, JobHistory(*figures))
            finally:
                os._exit(0)
        died = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        killed += died
        run(ledger, JobHistory(*figures))
        found = charges(ledger)
        assert set(found) == set(ids)
        assert {charge.amount for charge in found.values()} == {FIVE}
        assert len(list(read_ledger(str(ledger)))) == 2 * len(ids)  # a start and an end of each
        if not died:
            break
    assert killed > len(ids)


def _die_after(count: int) -> None:
    """Die at the write after so many of them."""
    write = os.write
    left = [count]

    def dying(fd: int, data: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(fd, data)

    os.write = dying
    Writer.append = Segment.append  # type: ignore[method-assign]  # this process has no other use for it


class Refused(Exception):
    """An error as client libraries raise them."""

    def __init__(self, code: str, after: float | None = None) -> None:
        super().__init__("a secret message")
        self.error_code = code
        self.retry_after_secs = after


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(asking, "sleep", found.append)
    return found


def answers(*given: object) -> Any:
    left = list(given)

    def call(*_: object) -> object:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return call


def test_throttling_5xx_and_time_limits_are_waited_for(slept: list[float]) -> None:
    history = JobHistory()
    call = answers(
        Refused("ThrottlingException", 7.0), Refused("InternalServerError"), TimeoutError(), 5
    )
    assert patiently(history, "GetRuns", call) == 5
    assert history.requests == 4
    assert slept[0] >= 0.8 * 7
    assert len(slept) == 3


def test_patience_ends(slept: list[float]) -> None:
    with pytest.raises(HistoryError, match=r"Throttling, 8 times. What was read is kept") as error:
        patiently(JobHistory(), "GetRuns", answers(*[Refused("Throttling")] * ATTEMPTS))
    assert "secret" not in str(error.value)
    assert len(slept) == ATTEMPTS - 1


def test_credentials_that_expire_are_renewed_once(slept: list[float]) -> None:
    history = JobHistory()
    history.open()
    assert patiently(history, "GetRuns", answers(Refused("ExpiredTokenException"), 5)) == 5
    assert (history.closed, history.is_open) == (1, True)
    twice = answers(Refused("ExpiredTokenException"), Refused("ExpiredTokenException"))
    with pytest.raises(HistoryError, match="not valid"):
        patiently(history, "GetRuns", twice)
    assert slept == []


def test_what_is_not_known_and_what_is_not_allowed(slept: list[float]) -> None:
    history = JobHistory()
    with pytest.raises(NoSuchThing):
        patiently(history, "GetRun", answers(Refused("EntityNotFoundException")))
    with pytest.raises(NoSuchThing):
        patiently(history, "GetRun", answers(Refused("Odd")), unknown=("Odd",))
    with pytest.raises(HistoryError, match="Odd"):
        patiently(history, "GetRun", answers(Refused("Odd")))
    with pytest.raises(HistoryError, match="no permission to read GetRun") as denied:
        patiently(history, "GetRun", answers(Refused("AccessDenied")), grant="GRANT it")
    assert denied.value.grant == "GRANT it"
    assert slept == []


def test_a_page_that_comes_again_ends_the_list_and_is_said(slept: list[float]) -> None:
    history = JobHistory()
    call = answers(("a", "1"), ("b", "2"), ("c", "1"))
    found = [page[0] for page in pages(history, "ListRuns", call, lambda page: page[1])]
    assert found == ["a", "b", "c"]
    assert "second time" in history.incomplete[0]


def test_half_of_it_is_settled_when_the_rest_cannot_be_read(ledger: Path) -> None:
    ids = [f"r{number:03}" for number in range(100)]
    pending(ledger, *ids)

    class Breaking(JobHistory):
        def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
            for number, figure in enumerate(super().read(since, until)):
                if number == 50:
                    raise HistoryError("the credentials are not valid")
                yield figure

    figures = [query(id_, 0, 1, **SCAN) for id_ in ids]
    report = run(ledger, Breaking(*figures))
    assert (report.settled, report.failed) == (50, "the credentials are not valid")
    rest = JobHistory(*figures)
    assert run(ledger, rest).settled == 50
    assert [len(some) for some in rest.batches] == [50]


def test_when_nothing_could_be_read_it_fails(ledger: Path) -> None:
    pending(ledger, "r1")

    class Broken(JobHistory):
        def open(self) -> None:
            raise self.denied("runs")

    with pytest.raises(SettlementError, match="no permission"):
        run(ledger, Broken())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Refused("TooManyRequestsException"), "throttled"),
        (Refused("RESOURCE_EXHAUSTED"), "throttled"),
        (Refused("ExpiredToken"), "expired"),
        (Refused("PERMISSION_DENIED"), "denied"),
        (Refused("RESOURCE_DOES_NOT_EXIST"), "unknown"),
        (Refused("ServiceUnavailable"), "passing"),
        (Refused("ValidationException"), "refused"),
        (ConnectionResetError(), "passing"),
        (TimeoutError(), "passing"),
        (ValueError(), "refused"),
    ],
)
def test_what_errors_mean(error: Exception, kind: str) -> None:
    assert trouble_of(error).kind == kind
