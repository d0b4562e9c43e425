"""What becomes of jobs: which wait for their figures, which go on, which are settled, which lost.

A job is what one call starts and another one, later, tells the end of. The states are read from the
charges themselves, so that they are the same for every program and machine that shares the ledger.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from costinsights.plugins import INSTRUMENTORS, find
from costinsights.report.layout import Column, Line, Piece, lay_out, visible
from costinsights.report.money import UNKNOWN, count, decimals, duration, exact, money
from costinsights.settlement.charging import LOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from costinsights.ledger.store import Store

State = Literal["pending", "running", "settled", "lost"]
STATES: tuple[State, ...] = get_args(State)
OPEN: tuple[State, ...] = ("pending", "running", "lost")
VERSION = 1
"""Counts up when a field of the JSON changes its meaning or goes."""

SYSTEMS = (
    "aws.emr",
    "aws.emr_containers",
    "aws.emr_serverless",
    "aws.glue",
    "azure.data_factory",
    "databricks.jobs",
    "gcp.dataproc",
    "gcp.dataproc_serverless",
    "spark",
)
"""Whatever runs there is a job, also what no instrumented program has started. Of other systems
(Athena, BigQuery) it is what an instrumentor of jobs has recorded."""

_STATE = f"""CASE
    WHEN contains(coalesce(meters, ''), '"{LOST}":') THEN 'lost'
    WHEN NOT partial THEN 'settled'
    WHEN revision > 0 AND error_type IS NULL THEN 'running'
    ELSE 'pending'
END"""
_STYLES = {"pending": "yellow", "running": "cyan", "settled": "", "lost": "red"}
_WHO = ("asset", "job", "team")


class Job(NamedTuple):
    """One job, as its charge stands."""

    state: str
    system: str
    started_at: datetime
    ended_at: datetime
    id: str
    namespace: str | None
    region: str | None
    amount: Decimal | None
    currency: str | None
    basis: str
    error: str | None
    asset: str | None
    job: str | None
    team: str | None
    service: str
    charge_id: str


class Group(NamedTuple):
    """The jobs of a system, or all of them."""

    system: str | None
    counts: Mapping[str, int]
    """By state."""
    amounts: Mapping[str, Decimal]
    """What is known of them, by currency; of running ones, so far."""
    unpriced: int
    """Settled ones without a price."""
    oldest: datetime | None
    """When the oldest that is pending or running was started."""


class Jobs(NamedTuple):
    """What is known of the jobs in a ledger."""

    at: datetime
    groups: Sequence[Group]
    total: Group
    jobs: Sequence[Job]
    """Those that were asked for."""
    listed: tuple[str, ...]
    """The states of these."""


def look(
    store: Store,
    *,
    system: str | None = None,
    states: Sequence[str] = OPEN,
    since: datetime | None = None,
    now: datetime | None = None,
) -> Jobs:
    """Read the jobs of a ledger: groups of all, and the list of those in `states`, oldest first.

    `since` is naive and in UTC, and about the start.
    """
    from costinsights.ledger.live import literal

    at = now or datetime.now(timezone.utc)
    names = ", ".join(literal(name) for name in _instrumentors())
    systems = ", ".join(literal(name) for name in SYSTEMS)
    parts = [f"vendor_id IS NOT NULL AND (instrumentor IN ({names}) OR system IN ({systems}))"]
    if system is not None:
        parts.append(f"system = {literal(system)}")
    if since is not None:
        parts.append(f"started_at >= TIMESTAMP '{since.isoformat(' ')}'")
    relation = store.relation(" AND ".join(parts))
    if relation is None:
        return Jobs(at, (), _group(None, ()), (), tuple(states))
    found = store.connection.execute(
        f"SELECT system, {_STATE} AS state, currency, count(*), sum(amount), count(amount), "
        f"min(started_at) FROM {relation} GROUP BY ALL ORDER BY 1, 2, 3"
    ).fetchall()
    sums = [_Sum(*row) for row in found]
    groups = [
        _group(name, [one for one in sums if one.system == name])
        for name in dict.fromkeys(one.system for one in sums)
    ]
    wanted = ", ".join(literal(state) for state in states)
    rows = store.connection.execute(
        f"SELECT {_STATE} AS state, system, started_at, ended_at, vendor_id, namespace, region, "
        "amount, currency, basis, error_type, asset, job, team, service, charge_id "
        f"FROM {relation} WHERE state IN ({wanted}) ORDER BY started_at, charge_id"
    ).fetchall()
    jobs = [Job(row[0], row[1], _utc(row[2]), _utc(row[3]), *row[4:]) for row in rows]
    return Jobs(at, groups, _group(None, sums), jobs, tuple(states))


def by_amount(found: Jobs) -> Jobs:
    """Return the same with the dearest jobs first, and those without an amount last."""
    jobs = sorted(found.jobs, key=lambda job: (job.currency or "~", -(job.amount or 0)))
    return found._replace(jobs=jobs)


class _Sum(NamedTuple):
    system: str
    state: str
    currency: str | None
    jobs: int
    amount: Decimal | None
    priced: int
    oldest: datetime


def _group(system: str | None, sums: Iterable[_Sum]) -> Group:
    counts: dict[str, int] = dict.fromkeys(STATES, 0)
    amounts: dict[str, Decimal] = {}
    unpriced, oldest = 0, None
    for one in sums:
        counts[one.state] += one.jobs
        if one.amount is not None and one.currency:
            amounts[one.currency] = amounts.get(one.currency, Decimal(0)) + one.amount
        if one.state == "settled":
            unpriced += one.jobs - one.priced
        elif one.state != "lost":
            begun = _utc(one.oldest)
            oldest = begun if oldest is None else min(oldest, begun)
    return Group(system, counts, amounts, unpriced, oldest)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=timezone.utc)


def _instrumentors() -> list[str]:
    """Return the names of those who record jobs, strangers' included."""
    from costinsights.jobs import JobInstrumentor

    found: list[str] = []
    for name, plugin in sorted(find(INSTRUMENTORS).items()):
        try:
            kind = plugin.load()
        except Exception:  # noqa: BLE001, S112  `doctor` says what is wrong with it
            continue
        if isinstance(kind, type) and issubclass(kind, JobInstrumentor):
            found.append(name)
    return found or [""]


# -- for people -----------------------------------------------------------------------------------


def table(found: Jobs, width: int | None, *, limit: int | None = None) -> list[Line]:
    """Return lines of `width` cells; None cuts nothing, for pipes. `limit` jobs are listed."""
    if not found.groups:
        return [[Piece("No jobs in this ledger and this time.")]]
    lines: list[Line] = lay_out(_summary(found), width, rule_before=len(found.groups))
    if found.total.unpriced:
        text = f"{count(found.total.unpriced)} of the settled have no price yet"
        lines += [[], [Piece(text, "yellow")]]
    if found.jobs:
        shown = found.jobs if limit is None else found.jobs[:limit]
        lines += [[], *lay_out(_list(found, shown), width, rule_before=-1)]
        if len(shown) < len(found.jobs):
            more = f"and {count(len(found.jobs) - len(shown))} more: --limit 0"
            lines.append([Piece(more, "dim")])
    advice = list(_advice(found))
    if advice:
        lines += [[], *([Piece(text, "dim")] for text in advice)]
    return lines


def _summary(found: Jobs) -> list[Column]:
    groups = [*found.groups, found.total]
    places = _places(amount for group in groups for amount in group.amounts.items())

    def cells(write: Callable[[Group], str], style: str = "") -> list[Piece]:
        return [
            Piece(
                text := write(group),
                "bold" if group.system is None else style if text != "0" else "dim",
            )
            for group in groups
        ]

    def amounts(group: Group) -> str:
        several = [
            money(amount, currency, places[currency]) for currency, amount in group.amounts.items()
        ]
        return " + ".join(several) or UNKNOWN

    def age(group: Group) -> str:
        return "" if group.oldest is None else _age(found.at, group.oldest)

    def number(state: str) -> Callable[[Group], str]:
        return lambda group: count(group.counts[state])

    return [
        Column("system", cells(lambda group: group.system or "total"), right=False, flexible=True),
        *(Column(state, cells(number(state), _STYLES[state])) for state in STATES),
        Column("jobs", cells(lambda group: count(sum(group.counts.values()))), spare=2),
        Column("oldest open", cells(age), spare=1),
        Column("known cost", cells(amounts)),
    ]


def _list(found: Jobs, shown: Sequence[Job]) -> list[Column]:
    places = _places((job.currency or "", job.amount) for job in shown)

    def cells(write: Callable[[Job], str | None]) -> list[Piece]:
        return [Piece(visible(write(job) or "")) for job in shown]

    def who(job: Job) -> str:
        return "/".join(value for name in _WHO if (value := getattr(job, name)))

    def amount(job: Job) -> str:
        return money(job.amount, job.currency, places.get(job.currency or "", 2))

    return [
        Column("state", [Piece(job.state, _STYLES[job.state]) for job in shown], right=False),
        Column("age", cells(lambda job: _age(found.at, job.started_at))),
        Column("system", cells(lambda job: job.system), right=False, spare=4),
        Column("where", cells(lambda job: job.namespace), right=False, flexible=True),
        Column("run", cells(lambda job: job.id), right=False, spare=1),
        Column("for", cells(who), right=False, spare=2),
        Column("error", cells(lambda job: job.error), right=False, spare=5),
        Column("known cost", cells(amount)),
    ]


def _advice(found: Jobs) -> Iterable[str]:
    waiting = [
        group
        for group in found.groups
        if group.counts["pending"] or group.counts["running"] or group.unpriced
    ]
    for group in waiting:
        yield f"costinsights settle {group.system} --since 7d"
    for group in found.groups:
        if group.counts["lost"]:
            yield f"costinsights settle {group.system} --since 7d --lost  asks for lost ones again"
    if found.total.unpriced:
        yield "costinsights prices missing  says which prices there are not"


def _places(amounts: Iterable[tuple[str, Decimal | None]]) -> dict[str, int]:
    kinds: dict[str, list[Decimal | None]] = {}
    for currency, amount in amounts:
        kinds.setdefault(currency, []).append(amount)
    return {currency: decimals(several) for currency, several in kinds.items()}


def _age(now: datetime, then: datetime) -> str:
    return duration(max(0, round((now - then).total_seconds())) * 10**9)


# -- for programs ---------------------------------------------------------------------------------


def _record(job: Job, now: datetime) -> dict[str, object]:
    """Return a job with its amount as text, every digit of it."""
    found: dict[str, object] = job._asdict()
    found["started_at"], found["ended_at"] = job.started_at.isoformat(), job.ended_at.isoformat()
    found["amount"] = exact(job.amount)
    found["age_seconds"] = max(0, round((now - job.started_at).total_seconds()))
    return found


def as_json(found: Jobs) -> str:
    """Return groups, their total and the jobs that were asked for."""

    def group(one: Group) -> dict[str, object]:
        return {
            "system": one.system,
            **one.counts,
            "unpriced": one.unpriced,
            "amounts": {currency: exact(amount) for currency, amount in one.amounts.items()},
            "oldest_open": None if one.oldest is None else one.oldest.isoformat(),
        }

    content = {
        "version": VERSION,
        "at": found.at.isoformat(),
        "systems": [group(one) for one in found.groups],
        "total": group(found.total),
        "listed": list(found.listed),
        "jobs": [_record(job, found.at) for job in found.jobs],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_csv(found: Jobs) -> str:
    """Return the jobs that were asked for, one a line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*Job._fields, "age_seconds"], lineterminator="\n")
    writer.writeheader()
    for job in found.jobs:
        writer.writerow(_record(job, found.at))
    return text.getvalue()
