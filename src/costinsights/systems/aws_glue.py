"""What Glue says of its job runs, sessions, statements, crawls and Data Quality runs.

For those who see the answers pass by, and for who asks.

Fields and worker types: botocore 1.44.5, service model of glue. What is billed: the rules and lines
of `aws.glue` in the price book, which have their sources.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from decimal import Context, Decimal
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard, cast

from costinsights.instrumentor import UNPRICED, Usage
from costinsights.jobs import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SYSTEM = "aws.glue"

# The words for how things are: those that are still under way, and those that have ended.
JOB_RUNS = frozenset(("STARTING", "RUNNING", "STOPPING", "WAITING"))
JOB_ENDS = frozenset(("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED"))
SESSION_RUNS = frozenset(("PROVISIONING", "READY", "STOPPING"))
SESSION_ENDS = frozenset(("STOPPED", "TIMEOUT", "FAILED"))
STATEMENT_RUNS = frozenset(("WAITING", "RUNNING", "CANCELLING"))
STATEMENT_ENDS = frozenset(("AVAILABLE", "CANCELLED", "ERROR"))
QUALITY_RUNS = frozenset(("STARTING", "RUNNING", "STOPPING"))
QUALITY_ENDS = frozenset(("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT"))
CRAWL_RUNS = frozenset(("RUNNING", "STOPPING"))
CRAWL_ENDS = frozenset(("COMPLETED", "FAILED", "STOPPED"))
WELL = frozenset(("SUCCEEDED", "AVAILABLE", "COMPLETED"))
"""Ends that are no error; a session has none of them, and its being stopped is none either."""

MEMORY = frozenset(("Z.2X", "R.1X", "R.2X", "R.4X", "R.8X"))
"""Worker types that are counted in M-DPUs."""
WORKERS = MEMORY | {"G.025X", "G.1X", "G.2X", "G.4X", "G.8X", "G.12X", "G.16X"}
"""Those whose size the price book's rules know."""
OLD = frozenset(("0.9", "1.0"))
"""Versions whose Spark jobs have the longer minimum."""
GENERATIONS = {"6": "gen2"}
"""Versions, by what stands before the point, that have a price of their own."""
SPARK = 2
"""DPUs that a Spark job has at least; Python shell jobs have less."""

# What prices are made of, in the price book's words, and the words that they depend on.
BILLED = frozenset(
    (
        "dpu_seconds",
        "m_dpu_seconds",
        "execution_seconds",
        "old_execution_seconds",
        "session_dpu_seconds",
        "session_m_dpu_seconds",
        "session_seconds",
        "crawl_seconds",
        "quality_seconds",
        "dpus",
        "workers",
        "statements",
    )
)
DEPENDS_ON = ("worker_type", "execution_class", "generation", "ended")
METERS = (
    *sorted(BILLED),
    *DEPENDS_ON,
    "run_seconds",
    "max_workers",
    "crawl_dpu_hours",
    "statement_run_seconds",
    "runs",
)

Meters = dict[str, int | float | str]
_LARGEST = 1e15
_QUOTIENT = Context(prec=30)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECONDS = 10**11  # a time since 1970 above this is in milliseconds


class Told(NamedTuple):
    """What an answer tells of a run."""

    done: bool
    meters: Meters
    """All that it has used, ended or not, as far as the answer says so."""
    problem: str = ""
    """Why nothing can be said of its price: the answer is not as it should be."""
    error: str | None = None
    """Glue's word for an end that is not a good one."""
    started_at: datetime | None = None
    ended_at: datetime | None = None

    def state(self, id_: str, *, vendor_id: str | None = None) -> State:
        """Return it as the state of a run; without figures, it is left to settlement."""
        meters: Meters = {**self.meters, UNPRICED: self.problem} if self.problem else self.meters
        elapsed = None
        if self.started_at is not None and self.ended_at is not None:
            elapsed = (self.ended_at - self.started_at) // timedelta(microseconds=1) * 1000
        usage = Usage(None, meters, vendor_id) if meters else None
        return State(id_, self.done, usage, self.error, elapsed)


# -- each kind --------------------------------------------------------------------------------------


def job_run(run: Mapping[str, Any]) -> Told:
    """Read a `JobRun`.

    `DPUSeconds`, where Glue states it (Flex, auto scaling), is what is billed. Otherwise it is the
    time and the size, with the minimum of the rule. Every attempt is a run of its own.
    """
    ended, problem, error = _end(run, "JobRunState", JOB_RUNS, JOB_ENDS, "CompletedOn")
    reading = _Reading(run)
    used, seconds = reading.number("DPUSeconds"), reading.number("ExecutionTime")
    meters = reading.words()
    if _positive(used):
        meters["m_dpu_seconds" if reading.type in MEMORY else "dpu_seconds"] = used
        meters |= reading.given(
            ("run_seconds", "ExecutionTime"), ("max_workers", "NumberOfWorkers")
        )
    elif isinstance(used, str):
        meters |= reading.given(("run_seconds", "ExecutionTime"), ("dpu_seconds", "DPUSeconds"))
    elif _scales(run) and seconds:
        problem = problem or "auto scaling is on, and DPUSeconds is missing"
        meters |= reading.given(
            ("run_seconds", "ExecutionTime"), ("max_workers", "NumberOfWorkers")
        )
    elif seconds is None:
        problem = problem or ("ExecutionTime is missing" if ended else "")
        meters |= reading.given(("max_workers", "NumberOfWorkers"))
    else:
        old = reading.version in OLD and reading.is_spark
        meters |= reading.size()
        meters["old_execution_seconds" if old else "execution_seconds"] = seconds
        if error is not None:
            meters["ended"] = error
    problem = problem or reading.problem
    if not ended and (problem or not (_positive(used) or _positive(seconds))):
        meters, problem = {}, ""  # nothing is known yet
    return _told(run, "StartedOn", ended, meters, problem, error)


def session(found: Mapping[str, Any]) -> Told:
    """Read a `Session`, which is billed by its time, whatever it does in it.

    `DPUSeconds` is documented to be time by size; where it is less, it is what was used.
    """
    ended, problem, error = _end(found, "Status", SESSION_RUNS, SESSION_ENDS, "CompletedOn")
    reading = _Reading(found)
    used, seconds = reading.number("DPUSeconds"), reading.number("ExecutionTime")
    capacity = reading.number("MaxCapacity")
    meters = reading.words()
    less = seconds is None
    if _positive(used) and _positive(seconds) and _positive(capacity):
        less = used < seconds * capacity
    if _positive(used) and less:
        memory = reading.type in MEMORY
        meters["session_m_dpu_seconds" if memory else "session_dpu_seconds"] = used
        meters |= reading.given(
            ("run_seconds", "ExecutionTime"), ("max_workers", "NumberOfWorkers")
        )
    elif seconds is None:
        problem = problem or ("ExecutionTime is missing" if ended else "")
        meters |= reading.given(("max_workers", "NumberOfWorkers"))
    else:
        meters |= reading.size()
        meters["session_seconds"] = seconds
    problem = problem or reading.problem
    if not ended and (problem or not (_positive(used) or _positive(seconds))):
        meters, problem = {}, ""
    error = None if error == "STOPPED" else error
    return _told(found, "CreatedOn", ended, meters, problem, error)


def statement(found: Mapping[str, Any]) -> Told:
    """Read a `Statement`: it is a part of its session, which is billed; its time tells how much."""
    ended, problem, error = _end(found, "State", STATEMENT_RUNS, STATEMENT_ENDS, "CompletedOn")
    if not ended:
        return Told(False, {})
    meters: Meters = {"statements": 1}
    started, done = (_since_1970(found.get(name)) for name in ("StartedOn", "CompletedOn"))
    if started is not None and done is not None and done >= started:
        meters["statement_run_seconds"] = _whole((done - started).total_seconds())
    return Told(True, meters, problem, error, started, done)


def crawl(found: Mapping[str, Any]) -> Told:
    """Read a `CrawlerHistory`: `DPUHour` over the crawl's time is how many DPUs it had."""
    ended, problem, error = _end(found, "State", CRAWL_RUNS, CRAWL_ENDS, "EndTime")
    if not ended:
        return _told(found, "StartTime", False, {}, "", None)
    reading = _Reading(found)
    hours = reading.number("DPUHour")
    meters: Meters = {} if hours is None else {"crawl_dpu_hours": hours}
    started, done = moment_of(found.get("StartTime")), moment_of(found.get("EndTime"))
    if hours is None:
        problem = problem or "DPUHour is missing"
    elif started is None or done is None or done < started:
        problem = problem or "StartTime and EndTime give no time"
    elif isinstance(hours, (int, float)):
        seconds = max(1, ceil((done - started).total_seconds()))
        used = Decimal(repr(hours)) * 3600
        meters |= {"dpus": _exact(used, seconds), "crawl_seconds": seconds}
    return Told(True, meters, problem or reading.problem, error, started, done)


def quality(found: Mapping[str, Any]) -> Told:
    """Read a run of Data Quality, an evaluation or a recommendation; its workers are G.1X."""
    ended, problem, error = _end(found, "Status", QUALITY_RUNS, QUALITY_ENDS, "CompletedOn")
    reading = _Reading(found)
    seconds, workers = reading.number("ExecutionTime"), reading.number("NumberOfWorkers")
    meters: Meters = {}
    if workers is not None:
        meters |= {"workers": workers, "worker_type": "G.1X"}
    if seconds is not None:
        meters["quality_seconds"] = seconds
    if seconds is None or workers is None:
        problem = (
            problem or f"{'NumberOfWorkers' if workers is None else 'ExecutionTime'} is missing"
        )
    problem = problem or reading.problem
    if not ended and (problem or not _positive(seconds)):
        meters, problem = {}, ""
    return _told(found, "StartedOn", ended, meters, problem, error)


# -- ids of what has none ---------------------------------------------------------------------------

_MADE_UP = re.compile(r"(.*)@(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)", re.DOTALL)


def id_at(name: str, moment: datetime | None) -> str:
    """Return what tells one crawl of a crawler, or one session of a name, from the next.

    Starting a crawler returns no id, and the name of a session may be used again.
    """
    if moment is None:
        return name
    return f"{name}@{moment.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def read_id(id_: str) -> tuple[str, datetime | None]:
    """Return the name and the moment of an id that `id_at` has made."""
    found = _MADE_UP.fullmatch(id_)
    if found is None:
        return id_, None
    return found[1], datetime.strptime(found[2] + "+0000", "%Y-%m-%dT%H:%M:%SZ%z")


def session_id(found: Mapping[str, Any]) -> str:
    """Return the id of a session's charge."""
    return id_at(str(found.get("Id", "")), moment_of(found.get("CreatedOn")))


def crawl_states(crawler: str, crawls: Iterable[Mapping[str, Any]]) -> Iterator[State]:
    """Tell of crawls by every id that their starts may have got, by the clock of the answer to it.

    A crawler does one crawl at a time: of two that fit, the nearer one is meant.
    """
    claimed: dict[str, tuple[Told, str | None]] = {}
    every = [(crawl(found), _word(found.get("CrawlId"))) for found in crawls]
    for seconds in range(NEAR + 1):
        for told, id_ in every:
            for apart in (seconds, -seconds) if told.started_at is not None else ():
                moment = (told.started_at or _EPOCH) + timedelta(seconds=apart)
                claimed.setdefault(id_at(crawler, moment), (told, id_))
    for made_up, (told, id_) in claimed.items():
        if told.done:
            yield told.state(made_up, vendor_id=id_)


NEAR = 5
"""How many seconds the answer to a start and the crawl's own start may be apart."""


# -- reading ----------------------------------------------------------------------------------------


class _Reading:
    """The fields of a run or a session that say how large it is."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._found = found
        self.problem = ""
        self.type = _word(found.get("WorkerType"))
        self.version = _word(found.get("GlueVersion"))

    def number(self, field: str) -> int | float | str | None:
        """Return a quantity; what is none is a problem, and comes as text for the record."""
        value = self._found.get(field)
        if value is None:
            return None
        if _is_quantity(value):
            return value
        shown = repr(value)[:60]
        self.problem = self.problem or f"{field} is {shown}, which is not a quantity"
        return shown

    def given(self, *names: tuple[str, str]) -> Meters:
        """Return those fields that there are, by our names."""
        values = ((ours, self.number(field)) for ours, field in names)
        return {ours: value for ours, value in values if value is not None}

    def size(self) -> Meters:
        """Return the workers where their size is known, else the DPUs that Glue states."""
        workers, capacity = self.number("NumberOfWorkers"), self.number("MaxCapacity")
        if workers and (self.type in WORKERS or (self.type and not capacity)):
            return {"workers": workers}
        if capacity:
            return {"dpus": capacity}
        self.problem = self.problem or "neither MaxCapacity nor NumberOfWorkers and WorkerType"
        return {}

    @property
    def is_spark(self) -> bool:
        """Whether it is not a Python shell job, which has DPUs and no workers."""
        capacity = self._found.get("MaxCapacity")
        return self.type is not None or (_is_quantity(capacity) and capacity >= SPARK)

    def words(self) -> Meters:
        """Return what the price depends on, where it is not the usual."""
        words: Meters = {}
        if self.type is not None:
            words["worker_type"] = self.type
        kind = _word(self._found.get("ExecutionClass"))
        if kind is not None and kind != "STANDARD":
            words["execution_class"] = kind.lower()
        major = (self.version or "1").partition(".")[0]
        if not major.isdecimal():
            self.problem = f"GlueVersion is {self.version!r}"
        elif int(major) >= min(map(int, GENERATIONS)) and self.is_spark and self.type != "Z.2X":
            words["generation"] = GENERATIONS.get(major, f"glue {major}")
        return words


def _told(
    found: Mapping[str, Any],
    start: str,
    ended: bool,
    meters: Meters,
    problem: str,
    error: str | None,
) -> Told:
    done = moment_of(found.get("CompletedOn")) if ended else None
    return Told(ended, meters, problem, error, moment_of(found.get(start)), done)


def _end(
    found: Mapping[str, Any],
    field: str,
    runs: frozenset[str],
    ends: frozenset[str],
    completed: str,
) -> tuple[bool, str, str | None]:
    """Return whether it has ended, what is wrong with the word for it, and what kind of error.

    A word that nobody knows is an end where there is a time of the end.
    """
    word = found.get(field)
    if word in runs:
        return False, "", None
    if word in ends:
        return True, "", None if word in WELL else cast("str", word)
    if found.get(completed) is None:
        return False, "", None
    shown = repr(word)[:60]
    return True, f"{field} is {shown}, which nobody knows", _word(word) or "unknown"


def _scales(run: Mapping[str, Any]) -> bool:
    """Tell whether auto scaling is switched on, as far as the run's arguments say so."""
    arguments = run.get("Arguments")
    known = cast("dict[str, Any]", arguments) if isinstance(arguments, dict) else {}
    return known.get("--enable-auto-scaling") == "true"


def _is_quantity(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= _LARGEST  # which NaN is not


def _positive(value: float | str | None) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and value > 0


def _word(value: object) -> str | None:
    return value[:60] if isinstance(value, str) and value else None


def moment_of(value: object) -> datetime | None:
    """Return a moment as botocore gives it, which is in some zone."""
    return value if isinstance(value, datetime) and value.tzinfo is not None else None


def _since_1970(value: object) -> datetime | None:
    """Return a moment that Glue tells as a number, in seconds or in milliseconds."""
    if not _is_quantity(value):
        return None
    seconds = value / 1000 if value > _MILLISECONDS else value
    return _EPOCH + timedelta(seconds=seconds)


def _whole(seconds: float) -> int | float:
    return int(seconds) if seconds == int(seconds) else seconds


def _exact(quantity: Decimal, by: int) -> int | str:
    """Return a quotient as a whole number or as text, so that no digit is lost by a float's."""
    found = _QUOTIENT.divide(quantity, Decimal(by))
    return int(found) if found == found.to_integral_value() else f"{found.normalize():f}"
