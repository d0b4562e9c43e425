"""Glue's history: what job runs, workflow runs, crawls and interactive sessions have used.

The ledger says what waits. Runs of a job come page by page, 200 to a call, newest first, as long as
that takes no more calls than asking for each; a single one is asked for by its id. A workflow run
is the sum of its jobs and crawls: they are in its graph, and are charges of their own in no other
place. The crawl of a start is the one that began then, for starting a crawler tells no id.

With ``--all``, the runs of every job, crawler and workflow and all sessions are read: those that
triggers and schedules have started, and further attempts, each of which is a run of its own.
Asking is free. Glue keeps runs for 90 days, crawls for a year, and nothing of a job or a session
that was deleted.

Calls and fields: docs.aws.amazon.com/glue/latest/webapi; botocore 1.44.5, service model of glue.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.asking import NoSuchThing, batches
from costinsights.records import Resource
from costinsights.settlement.aws import AWSHistory, AWSOptions
from costinsights.settlement.history import Figure, Plan, utc
from costinsights.systems import aws_glue as glue
from costinsights.systems.aws_athena import part
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from costinsights.jobs import Waiting

    Table = Mapping[str, Any]

PAGE = 200
"""Runs that GetJobRuns gives at most."""
LIST_PAGE = 1000
CRAWL_PAGE = 100
QUALITY_BATCH = 100
"""Ids that BatchGetDataQualityRulesetEvaluationRun takes at most."""
APART = timedelta(minutes=1)
"""How far the start of a crawler and its crawl may be apart at most; the nearest is taken."""
NO_RUN = "Glue no longer has a run of this id"
NO_CRAWL = "Glue has no crawl that began then"
NO_CRAWLER = "Glue no longer has this crawler"
NO_JOB = "Glue no longer has this job, and so none of its runs"
NO_SESSION = "Glue no longer has this session, or another one has its name"
WORKFLOW_RUNS = frozenset(("RUNNING", "STOPPING"))
NOT_NOW = "IllegalSessionState"
"""What asking a session that has ended for its statements may come to."""


class GlueOptions(AWSOptions, frozen=True, forbid_unknown_fields=True):
    """``[settle."aws.glue"]``. Credentials are boto3's own."""

    jobs: tuple[str, ...] = ()
    """Those that ``--all`` reads; by default all of a region."""
    longest_hours: int = 48
    """So long before the time asked for a run may have begun that ``--all`` still looks for."""


class _Waits(NamedTuple):
    """What waits in one region."""

    jobs: dict[str, list[Waiting]]
    workflows: list[Waiting]
    crawlers: dict[str, list[Waiting]]
    sessions: list[Waiting]
    statements: dict[str, list[Waiting]]
    evaluations: list[Waiting]
    recommendations: list[Waiting]


class GlueHistory(AWSHistory):
    """Reads one account, in one region or several."""

    system = glue.SYSTEM
    client_name = "glue"
    by_id = True
    retention = timedelta(days=90)
    grants = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": ['
        '"glue:GetJobRun", "glue:GetJobRuns", "glue:ListJobs", "glue:GetWorkflowRun", '
        '"glue:GetWorkflowRuns", "glue:ListWorkflows", "glue:ListCrawls", "glue:ListCrawlers", '
        '"glue:GetSession", "glue:ListSessions", "glue:ListStatements", '
        '"glue:BatchGetDataQualityRulesetEvaluationRun", '
        '"glue:GetDataQualityRulesetEvaluationRun", "glue:ListDataQualityRulesetEvaluationRuns", '
        '"glue:GetDataQualityRuleRecommendationRun"]}]}'
    )
    meters = glue.METERS
    Options = GlueOptions
    options: GlueOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._told: set[str] = set()
        """Runs and crawls that have been told of: as their own, or as a workflow's."""

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what will be asked for; all of it is free."""
        where = ", ".join(self.options.regions) or "the default region"
        waits = _sorted(self.waiting)
        kinds = (
            (sum(map(len, waits.jobs.values())), f"runs of {len(waits.jobs)} jobs"),
            (len(waits.workflows), "workflow runs"),
            (sum(map(len, waits.crawlers.values())), f"crawls of {len(waits.crawlers)} crawlers"),
            (len(waits.sessions), "sessions"),
            (sum(map(len, waits.statements.values())), "statements"),
            (len(waits.evaluations) + len(waits.recommendations), "runs of Data Quality"),
        )
        waiting = ", ".join(f"{count} {kind}" for count, kind in kinds if count) or "nothing waits"
        if self.everything:
            jobs = ", ".join(self.options.jobs) or "every job"
            more = (
                f"runs of {jobs}, crawls, workflows and sessions back to {since:%Y-%m-%d %H:%M} UTC"
            )
            return Plan((f"{waiting}; {more}, in {where}",))
        return Plan((f"{waiting}, in {where}",))

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield what charges wait for and, with ``--all``, everything else of the time."""
        for region, waiting in self.by_region(self.waiting).items():
            waits = _sorted(waiting)
            # The children of workflows first: whatever else is listed leaves them out.
            yield from self._workflows(region, waits.workflows, since, until)
            yield from self._jobs(region, waits.jobs, since)
            yield from self._crawlers(region, waits.crawlers, since)
            yield from self._sessions(region, waits.sessions)
            yield from self._statements(region, waits.statements)
            yield from self._evaluations(region, waits.evaluations)
            yield from self._recommendations(region, waits.recommendations)

    def _names(self, region: str, operation: str, field: str) -> Iterator[str]:
        for page in self.pages(region, operation, MaxResults=LIST_PAGE):
            yield from page.get(field) or ()

    # -- job runs -------------------------------------------------------------------------------

    def _jobs(
        self, region: str, waiting: Mapping[str, list[Waiting]], since: datetime
    ) -> Iterator[Figure]:
        for name, runs in waiting.items():
            yield from self._job(region, name, runs, since if self.everything else None)
        if self.everything:
            for name in self.options.jobs or self._names(region, "list_jobs", "JobNames"):
                if name not in waiting:
                    yield from self._job(region, name, (), since)

    def _job(
        self, region: str, name: str, waiting: Sequence[Waiting], since: datetime | None
    ) -> Iterator[Figure]:
        """Yield the runs of a job that wait; all of them back to `since`, where that is said."""
        left = {run.id: run for run in waiting}
        whole = False
        if since is not None or len(left) > 1:
            try:
                whole = yield from self._listed(region, name, left, since)
            except NoSuchThing:
                self._gone(left.values(), NO_JOB)
                return
        for run in left.values():
            if whole:
                self.gone(run.id, NO_RUN)
            else:
                yield from self._asked(region, name, run)

    def _listed(
        self, region: str, name: str, left: dict[str, Waiting], since: datetime | None
    ) -> Generator[Figure, None, bool]:
        """Yield what the pages of a job's runs have, and take out of `left` what is found.

        Returns whether that were all of its runs.
        """
        most = len(left)
        first = min((run.started_at for run in left.values() if run.started_at), default=None)
        bounds = [moment for moment in (first, self._back(since)) if moment is not None]
        bound = min(bounds, default=None)
        pages = self.pages(region, "get_job_runs", JobName=name, MaxResults=PAGE)
        for number, page in enumerate(pages, 1):
            oldest: datetime | None = None
            for found in _each(page, "JobRuns"):
                told = glue.job_run(found)
                oldest = told.started_at or oldest
                id_ = str(found.get("Id"))
                run = left.pop(id_, None)
                if run is not None or (since is not None and id_ not in self._told):
                    yield self._of_run(region, name, id_, found, told, run)
            if bound is not None and oldest is not None and oldest < bound - APART:
                return False
            if since is None and (not left or number >= most):
                return False
        return True

    def _back(self, since: datetime | None) -> datetime | None:
        return None if since is None else since - timedelta(hours=self.options.longest_hours)

    def _asked(self, region: str, name: str, run: Waiting) -> Iterator[Figure]:
        try:
            answer = self.ask(region, "get_job_run", JobName=name, RunId=run.id)
        except NoSuchThing:
            self.gone(run.id, NO_RUN)
            return
        found = part(answer, "JobRun")
        yield self._of_run(region, name, run.id, found, glue.job_run(found), run)

    def _of_run(
        self,
        region: str,
        name: str,
        id_: str,
        found: Table,
        told: glue.Told,
        run: Waiting | None,
    ) -> Figure:
        self._told.add(id_)
        labels = {"job": name, "trigger": found.get("TriggerName")}
        return _figure(region, name, id_, "JOB", told, run, labels)

    # -- workflows ------------------------------------------------------------------------------

    def _workflows(
        self, region: str, waiting: Sequence[Waiting], since: datetime, until: datetime
    ) -> Iterator[Figure]:
        known: set[str] = set()
        for run in waiting:
            name = (run.namespace or "").partition("/")[2]
            known.add(run.id)
            try:
                yield self._workflow(region, name, run.id, run)
            except NoSuchThing:
                self.gone(run.id, NO_RUN)
        if not self.everything:
            return
        for name in self._names(region, "list_workflows", "Workflows"):
            for page in self.pages(region, "get_workflow_runs", Name=name, MaxResults=LIST_PAGE):
                for found in _each(page, "Runs"):
                    id_, begun = str(found.get("WorkflowRunId")), found.get("StartedOn")
                    done = found.get("CompletedOn") or until
                    inside = isinstance(begun, datetime) and begun < until and done >= since
                    if inside and id_ not in known:
                        yield self._workflow(region, name, id_, None)

    def _workflow(self, region: str, name: str, id_: str, waiting: Waiting | None) -> Figure:
        """Return a workflow run as the sum of what it started."""
        answer = self.ask(region, "get_workflow_run", Name=name, RunId=id_, IncludeGraph=True)
        run = part(answer, "Run")
        begun = glue.moment_of(run.get("StartedOn"))
        parts: list[Figure] = []
        for node in _each(part(run, "Graph"), "Nodes"):
            parts += self._children(region, str(node.get("Name")), node, begun)
        ended = run.get("Status") not in WORKFLOW_RUNS
        ended = ended and all(child.ended_at is not None for child in parts)
        meters: glue.Meters = {"runs": len(parts)}
        if ended and not parts:
            meters["dpu_seconds"] = 0  # nothing was started
        for child in parts:
            for ours in ("execution_seconds", "old_execution_seconds", "run_seconds"):
                _add(meters, "run_seconds", child.meters.get(ours))
            _add(meters, "crawl_dpu_hours", child.meters.get("crawl_dpu_hours"))
        word = str(run.get("Status"))
        told = glue.Told(
            ended,
            meters if ended or parts else {},
            next((child.problem for child in parts if child.problem), ""),
            word if ended and word != "COMPLETED" else None,
            begun,
            glue.moment_of(run.get("CompletedOn")),
        )
        labels = {"workflow": name}
        place = f"workflow/{name}"
        return _figure(region, place, id_, "WORKFLOW", told, waiting, labels, tuple(parts))

    def _children(
        self, region: str, name: str, node: Table, begun: datetime | None
    ) -> Iterator[Figure]:
        """Yield the runs of a node; a resumed run's graph has those of the run before it, too."""
        first = None if begun is None else begun - timedelta(seconds=glue.NEAR)
        for found in _each(part(node, "JobDetails"), "JobRuns"):
            told = glue.job_run(found)
            if first is None or told.started_at is None or told.started_at >= first:
                id_ = str(found.get("Id"))
                yield self._of_run(region, name, id_, found, told, None)
        crawls = _each(part(node, "CrawlerDetails"), "Crawls")
        starts = [glue.moment_of(found.get("StartedOn")) for found in crawls]
        wanted = [start for start in starts if start and (first is None or start >= first)]
        if wanted:
            every = list(self._crawls(region, name, min(wanted)))
            for start in wanted:
                near = _nearest(every, start)
                if near is not None:
                    yield self._of_crawl(region, name, near, None)

    # -- crawls ---------------------------------------------------------------------------------

    def _crawlers(
        self, region: str, waiting: Mapping[str, list[Waiting]], since: datetime
    ) -> Iterator[Figure]:
        back = self._back(since) if self.everything else None
        for name, runs in waiting.items():
            starts = [glue.read_id(run.id)[1] or run.started_at or since for run in runs]
            bounds = [*starts, back] if back is not None else starts
            try:
                every = list(self._crawls(region, name, min(bounds)))
            except NoSuchThing:
                self._gone(runs, NO_CRAWLER)
                continue
            for run, start in sorted(zip(runs, starts, strict=True), key=lambda one: one[1]):
                found = _nearest(every, start)
                if found is None:
                    self.gone(run.id, NO_CRAWL)
                else:
                    yield self._of_crawl(region, name, found, run)
            if back is not None:
                yield from self._other_crawls(region, name, every)
        if back is not None:
            for name in self._names(region, "list_crawlers", "CrawlerNames"):
                if name not in waiting:
                    yield from self._other_crawls(region, name, self._crawls(region, name, back))

    def _other_crawls(self, region: str, name: str, every: Iterable[Table]) -> Iterator[Figure]:
        for found in every:
            if str(found.get("CrawlId")) not in self._told:
                yield self._of_crawl(region, name, found, None)

    def _crawls(self, region: str, name: str, since: datetime) -> Iterator[Table]:
        earliest = int((since - APART).timestamp() * 1000)
        since_then = {"FieldName": "START_TIME", "FilterOperator": "GE"}
        for page in self.pages(
            region,
            "list_crawls",
            CrawlerName=name,
            MaxResults=CRAWL_PAGE,
            Filters=[{**since_then, "FieldValue": str(earliest)}],
        ):
            yield from _each(page, "Crawls")

    def _of_crawl(self, region: str, name: str, found: Table, run: Waiting | None) -> Figure:
        id_ = str(found.get("CrawlId"))
        self._told.add(id_)
        return _figure(
            region,
            f"crawler/{name}",
            id_ if run is None else run.id,
            "CRAWL",
            glue.crawl(found),
            run,
            {"crawler": name},
            becomes=None if run is None else id_,
        )

    # -- sessions -------------------------------------------------------------------------------

    def _sessions(self, region: str, waiting: Sequence[Waiting]) -> Iterator[Figure]:
        left = {run.id: run for run in waiting}
        for found in self._found_sessions(region, waiting):
            id_, name = glue.session_id(found), str(found.get("Id"))
            run = left.pop(id_, None) or left.pop(name, None)
            if run is not None or self.everything:
                told, place = glue.session(found), f"session/{name}"
                known = id_ if run is None else run.id
                yield _figure(region, place, known, "SESSION", told, run, {"session": name})
        self._gone(left.values(), NO_SESSION)

    def _found_sessions(self, region: str, waiting: Sequence[Waiting]) -> Iterator[Table]:
        if self.everything or len(waiting) > 1:
            for page in self.pages(region, "list_sessions", MaxResults=LIST_PAGE):
                yield from _each(page, "Sessions")
        for run in waiting if not self.everything and len(waiting) == 1 else ():
            try:
                answer = self.ask(region, "get_session", Id=glue.read_id(run.id)[0])
            except NoSuchThing:
                continue
            yield part(answer, "Session")

    def _statements(self, region: str, waiting: Mapping[str, list[Waiting]]) -> Iterator[Figure]:
        """Complete statements: they cost nothing beside their session, whatever became of it."""
        for name, runs in waiting.items():
            known: dict[str, Table] = {}
            try:
                for page in self.pages(region, "list_statements", SessionId=name):
                    for one in _each(page, "Statements"):
                        known[f"{name}:{one.get('Id')}"] = one
            except VendorError as error:
                if not isinstance(error, NoSuchThing) and NOT_NOW not in str(error):
                    raise
            for run in runs:
                found = known.get(run.id)
                told = glue.Told(True, {"statements": 1})
                if found is not None:
                    told = glue.statement(found)
                yield _figure(region, f"session/{name}", run.id, "STATEMENT", told, run, {})

    # -- Data Quality ---------------------------------------------------------------------------

    def _evaluations(self, region: str, waiting: Sequence[Waiting]) -> Iterator[Figure]:
        left = {run.id: run for run in waiting}
        ids = list(left)
        if self.everything:
            listed = self.pages(
                region, "list_data_quality_ruleset_evaluation_runs", MaxResults=LIST_PAGE
            )
            ids += [str(found.get("RunId")) for page in listed for found in _each(page, "Runs")]
        for some in batches(list(dict.fromkeys(ids)), QUALITY_BATCH):
            answer = self.ask(
                region, "batch_get_data_quality_ruleset_evaluation_run", RunIds=list(some)
            )
            for found in _each(answer, "Runs"):
                id_ = str(found.get("RunId"))
                rulesets: Sequence[str] = found.get("RulesetNames") or ("",)
                place = f"dataQualityRuleset/{rulesets[0]}"
                told, labels = glue.quality(found), {"ruleset": rulesets[0]}
                yield _figure(region, place, id_, "DATA QUALITY", told, left.get(id_), labels)
            for id_ in answer.get("RunsNotFound") or ():
                self.gone(id_, NO_RUN)

    def _recommendations(self, region: str, waiting: Sequence[Waiting]) -> Iterator[Figure]:
        for run in waiting:
            try:
                found = self.ask(region, "get_data_quality_rule_recommendation_run", RunId=run.id)
            except NoSuchThing:
                self.gone(run.id, NO_RUN)
                continue
            place = run.namespace or "dataQualityRecommendation/"
            yield _figure(region, place, run.id, "DATA QUALITY", glue.quality(found), run, {})

    def _gone(self, runs: Iterable[Waiting], why: str) -> None:
        for run in runs:
            self.gone(run.id, why)


def _sorted(waiting: Sequence[Waiting]) -> _Waits:
    """Tell runs apart by their ids and by what they are runs of."""
    waits = _Waits({}, [], {}, [], {}, [], [])
    for run in waiting:
        kind, _, name = (run.namespace or "").partition("/")
        if run.id.startswith("wr_"):
            waits.workflows.append(run)
        elif kind == "dataQualityRuleset" and not run.id.startswith("jr_"):
            waits.evaluations.append(run)
        elif kind == "dataQualityRecommendation" and not run.id.startswith("jr_"):
            waits.recommendations.append(run)
        elif kind == "crawler" and name and not run.id.startswith("jr_"):
            waits.crawlers.setdefault(name, []).append(run)
        elif kind == "session" and name and run.id.startswith(f"{name}:"):
            waits.statements.setdefault(name, []).append(run)
        elif kind == "session" and name and not run.id.startswith("jr_"):
            waits.sessions.append(run)
        else:
            waits.jobs.setdefault(run.namespace or "", []).append(run)
    return waits


def _nearest(crawls: list[Table], start: datetime) -> Table | None:
    """Return the crawl that began nearest to `start`, and take it out."""
    near = [
        (abs(begun - start), at)
        for at, found in enumerate(crawls)
        if (begun := glue.moment_of(found.get("StartTime"))) is not None
        and abs(begun - start) <= APART
    ]
    return crawls.pop(min(near)[1]) if near else None


def _each(found: Table, name: str) -> Sequence[Table]:
    several: Sequence[Table] = found.get(name) or ()
    return several


def _add(meters: glue.Meters, name: str, value: object) -> None:
    known = meters.get(name, 0)
    if isinstance(value, (int, float)) and isinstance(known, (int, float)):
        meters[name] = known + value


def _figure(
    region: str,
    place: str,
    id_: str,
    operation: str,
    told: glue.Told,
    waiting: Waiting | None,
    labels: Mapping[str, str | None],
    parts: tuple[Figure, ...] = (),
    becomes: str | None = None,
) -> Figure:
    now = datetime.now(timezone.utc)
    began = told.started_at or (waiting and waiting.started_at) or told.ended_at or now
    ended = max(began, told.ended_at or began) if told.done else None
    meters = told.meters
    return Figure(
        vendor_id=id_,
        started_at=utc(began),
        ended_at=None if ended is None else utc(ended),
        so_far=now if ended is None and meters else None,
        operation=operation,
        meters=meters,
        billed=() if told.problem else tuple(name for name in meters if name in glue.BILLED),
        problem=told.problem,
        error=told.error,
        resource=Resource(f"glue.{region}.amazonaws.com", None, place, None, region),
        dimensions={name: str(meters[name]) for name in glue.DEPENDS_ON if name in meters},
        labels={name: value for name, value in labels.items() if value},
        parts=parts,
        becomes=becomes,
    )
