"""BigQuery's REST API for the unmodified client: jobs in its wire format, their SQL on DuckDB.

What a job costs is the test's to say, of all statements that have some words in them::

    with bigquery_server() as bigquery:
        bigquery.seed("orders", billed=10 * 2**20, slot_ms=1200)
        client = bigquery.client()
        client.query("SELECT * FROM orders").result()

Jobs are kept: `INFORMATION_SCHEMA.JOBS` is a table like any other. Every request is kept as well.
An emulator of our own: it proves that we read what the client sends and gets; that Google fills the
figures in the same way it cannot prove.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import duckdb

from tests.servers import bigquery_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    Resource = dict[str, Any]
    Handler = Callable[["BigQueryServer", "Call"], "Resource | Failure"]

PROJECT = "analytics"
Server = TypeVar("Server", bound="BigQueryServer")

TYPES = {
    "BIGINT": "INTEGER",
    "INTEGER": "INTEGER",
    "HUGEINT": "INTEGER",
    "VARCHAR": "STRING",
    "DOUBLE": "FLOAT",
    "BOOLEAN": "BOOLEAN",
    "DATE": "DATE",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
}
LABELS = 'STRUCT("KEY" VARCHAR, "VALUE" VARCHAR)[]'
TIMELINE = re.compile(
    r"`?(?:[\w-]+`?\.`?)?`?region-[\w-]+`?\.`?INFORMATION_SCHEMA`?\.`?RESERVATIONS_TIMELINE\w*`?"
)
RESERVED = re.compile(r"`?(?:[\w-]+`?\.`?)?`?region-[\w-]+`?\.`?INFORMATION_SCHEMA`?\.`?JOBS\w*`?")
STATUS = {
    "accessDenied": 403,
    "notFound": 404,
    "duplicate": 409,
    "invalidQuery": 400,
    "rateLimitExceeded": 403,
    "authError": 401,
    "internalError": 500,
    "backendError": 503,
}


class Failure(NamedTuple):
    """An error to answer with."""

    reason: str
    message: str = "refused by the test"
    headers: tuple[tuple[str, str], ...] = ()

    def body(self) -> Resource:
        """Return it as Google does."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "errors": [{"reason": self.reason, "message": self.message}],
            }
        }

    @property
    def code(self) -> int:
        """The HTTP status."""
        return STATUS.get(self.reason, 400)


class Request(NamedTuple):
    """What came over the wire."""

    method: str
    path: str
    """Without ``/bigquery/v2/projects/<project>``, and with ids as they are."""
    query: dict[str, str]
    body: Any


class Call(NamedTuple):
    """A request, with what its path says."""

    project: str
    id: str
    request: Request

    @property
    def body(self) -> Resource:
        """The JSON that was sent."""
        return cast("Resource", self.request.body or {})


@dataclass
class Figures:
    """What one job is to use, and how it is to end."""

    billed: int | None = 0
    processed: int = 0
    slot_ms: int = 1200
    cache_hit: bool = False
    reservation: str | None = None
    reason: str | None = None
    """Of the error that it ends with."""
    questions: int = 0
    """How many answers say that it is still running."""
    seconds: float = 2.0
    statement_type: str | None = None


@dataclass
class Job:
    """One job."""

    project: str
    id: str
    location: str
    configuration: Resource
    figures: Figures
    began: float
    user: str
    columns: list[tuple[str, str]]
    rows: list[tuple[Any, ...]]
    affected: int | None = None
    answered: int = 0

    @property
    def kind(self) -> str:
        """``query``, ``load``, ``extract`` or ``copy``."""
        return next(k for k in ("query", "load", "extract", "copy") if k in self.configuration)

    def resource(self) -> Resource:
        """Return the job as jobs.get does; numbers of 64 bits are texts."""
        figures = self.figures
        running = self.answered < figures.questions
        self.answered += 1
        statistics: Resource = {"creationTime": _ms(self.began), "startTime": _ms(self.began)}
        status: Resource = {"state": "RUNNING" if running else "DONE"}
        if not running:
            statistics["endTime"] = _ms(self.began + figures.seconds)
            statistics["totalSlotMs"] = str(figures.slot_ms)
            statistics["totalBytesProcessed"] = str(figures.processed)
            statistics[self.kind] = self._statistics()
            if figures.reservation:
                statistics["reservation_id"] = figures.reservation
            if figures.reason:
                error = {"reason": figures.reason, "message": "a secret 'value' of a row"}
                status.update(errorResult=error, errors=[error])
        return {
            "kind": "bigquery#job",
            "id": f"{self.project}:{self.location}.{self.id}",
            "jobReference": self.reference,
            "configuration": {"jobType": self.kind.upper(), **self._configured()},
            "statistics": statistics,
            "status": status,
            "user_email": self.user,
        }

    @property
    def reference(self) -> Resource:
        """The job's name."""
        return {"projectId": self.project, "jobId": self.id, "location": self.location}

    def _configured(self) -> Resource:
        """Return the configuration, with the place of a query's result."""
        query = self.configuration.get("query")
        if query is None or "destinationTable" in query:
            return self.configuration
        table = bigquery_tables.made(self.project, query.get("query", ""), self.id)
        return {**self.configuration, "query": {**query, "destinationTable": table}}

    def _statistics(self) -> Resource:
        figures = self.figures
        if self.kind == "load":
            size = str(figures.processed)
            return {"inputFileBytes": size, "outputBytes": size, "outputRows": "3"}
        if self.kind != "query":
            return {}
        found: Resource = {
            "totalBytesProcessed": str(figures.processed),
            "totalSlotMs": str(figures.slot_ms),
            "cacheHit": figures.cache_hit,
            "statementType": figures.statement_type
            or bigquery_tables.kind_of(self.configuration["query"].get("query", "")),
        }
        if figures.billed is not None:
            found["totalBytesBilled"] = str(figures.billed)
        if self.affected is not None:
            found["numDmlAffectedRows"] = str(self.affected)
        return found

    def results(self, start: int, size: int | None) -> Resource:
        """Return a page of the result, as jobs.query and jobs.getQueryResults do."""
        end = len(self.rows) if size is None else min(start + size, len(self.rows))
        found: Resource = {
            "kind": "bigquery#getQueryResultsResponse",
            "jobReference": self.reference,
            "jobComplete": True,
            "cacheHit": self.figures.cache_hit,
            "totalBytesProcessed": str(self.figures.processed),
            "totalRows": str(len(self.rows)),
            "schema": {"fields": [_field(name, kind) for name, kind in self.columns]},
            "rows": [{"f": [{"v": _cell(value)} for value in row]} for row in self.rows[start:end]],
        }
        if self.affected is not None:
            found["numDmlAffectedRows"] = str(self.affected)
        if end < len(self.rows):
            found["pageToken"] = str(end)
        return found


def _field(name: str, kind: str) -> Resource:
    """Describe a column; the one kind of structure that there is are labels."""
    if kind != LABELS:
        return {"name": name, "type": TYPES.get(kind, "STRING"), "mode": "NULLABLE"}
    parts = [_field(part, "VARCHAR") for part in ("key", "value")]
    return {"name": name, "type": "RECORD", "mode": "REPEATED", "fields": parts}


def _ms(seconds: float) -> str:
    return str(int(seconds * 1000))


def _cell(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return str(int(value.timestamp() * 10**6))
    if isinstance(value, (date, Decimal)):
        return str(value)
    if isinstance(value, list):
        return [{"v": _cell(item)} for item in cast("Iterable[Any]", value)]
    if isinstance(value, dict):
        return {"f": [{"v": _cell(item)} for item in cast("dict[str, Any]", value).values()]}
    return str(value)


class BigQueryServer:
    """The jobs of all projects, and what a test says of them."""

    url: str

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.jobs: dict[tuple[str, str], Job] = {}
        self.location = "US"
        self.user = "etl@example.com"
        self._seeds: list[tuple[str, dict[str, Any]]] = []
        self._refusals: list[tuple[str, str, Failure]] = []
        self._ids: dict[str, Job] = {}
        self.uploads: dict[str, Resource] = {}
        self._lock = threading.RLock()
        self.database = duckdb.connect()

    # -- what a test says -----------------------------------------------------------------------

    def seed(self, words: str, **figures: Any) -> None:
        """Say what each job that has `words` in its configuration uses; the last that fits counts."""
        self._seeds.append((words, figures))

    def refuse(self, method: str, path: str, failure: Failure) -> None:
        """Answer the next request whose path ends so with this error."""
        self._refusals.append((method, path, failure))

    def minute(self, reservation: str, start: datetime, **columns: Any) -> None:
        """Put a minute of a reservation into its timeline."""
        row = {"edition": "ENTERPRISE", "slots_assigned": 0, "period_autoscale_slot_seconds": 0}
        row |= {"reservation_id": reservation, "period_start": start, "is_creation_region": True}
        row |= columns
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS timeline (reservation_id VARCHAR, edition VARCHAR, "
            "period_start TIMESTAMPTZ, slots_assigned BIGINT, "
            "period_autoscale_slot_seconds BIGINT, is_creation_region BOOLEAN)"
        )
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        self.database.execute(
            f"INSERT INTO timeline ({names}) VALUES ({marks})", list(row.values())
        )

    def forget(self) -> None:
        """Begin anew."""
        self.database.execute("DROP TABLE IF EXISTS timeline")
        self.requests.clear()
        self.jobs.clear()
        self._seeds.clear()
        self._refusals.clear()
        self.location = "US"

    def client(self, **more: Any) -> Any:
        """Return an unmodified client that talks to this server."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery

        options: Any = {"api_endpoint": self.url}
        credentials = cast("Any", AnonymousCredentials)()
        client: Any = bigquery.Client
        return client(
            **{
                "project": PROJECT,
                "credentials": credentials,
                "client_options": options,
                **more,
            }
        )

    def asked(self, method: str | None = None, path: str = "") -> list[Request]:
        """Return the requests whose path ends so."""
        return [
            request
            for request in list(self.requests)
            if method in (None, request.method) and request.path.endswith(path)
        ]

    def counts(self) -> dict[str, int]:
        """How many requests there were, by method and path without ids."""
        return dict(
            Counter(
                f"{request.method} {_without_ids(request.path)}" for request in list(self.requests)
            )
        )

    def run(self, text: str, *, ago: float = 0.0, **configuration: Any) -> Job:
        """Have a query run that no program of ours has started."""
        job = self._make(PROJECT, str(uuid4()), {"query": {"query": text}, **configuration}, None)
        job.began -= ago
        return job

    # -- requests -------------------------------------------------------------------------------

    def torn(self, request: Request) -> bool:
        """Tell whether the connection is to break in the middle of the answer."""
        return False

    def refused(self, request: Request) -> Failure | None:
        """Return the error that waits for such a request."""
        with self._lock:
            for waiting in self._refusals:
                method, path, failure = waiting
                if method == request.method and request.path.endswith(path):
                    self._refusals.remove(waiting)
                    return failure
        return None

    def insert(self, call: Call) -> Resource | Failure:
        """Answer jobs.insert."""
        reference = call.body.get("jobReference", {})
        id_ = reference.get("jobId") or str(uuid4())
        configuration = call.body["configuration"]
        if configuration.get("dryRun"):
            job = self._job(call.project, "", configuration, reference.get("location"))
            found = job.resource()
            found["jobReference"].pop("jobId")
            return found
        if (call.project, id_) in self.jobs:
            return Failure("duplicate", f"Already Exists: Job {id_}")
        text = configuration.get("query", {}).get("query", "")
        if "syntax error" in text:
            return Failure("invalidQuery", "Syntax error: Unexpected identifier at [1:1]")
        return self._make(call.project, id_, configuration, reference.get("location")).resource()

    def query(self, call: Call) -> Resource | Failure:
        """Answer jobs.query: quick ones with their rows, others with their id."""
        body = call.body
        request_id = body.get("requestId", "")
        configuration = {"query": {"query": body["query"]}, "labels": body.get("labels", {})}
        if "syntax error" in body["query"]:
            return Failure("invalidQuery", "Syntax error: Unexpected identifier at [1:1]")
        if body.get("dryRun"):
            job = self._job(call.project, "", configuration, body.get("location"))
            return {
                "jobComplete": True,
                "totalBytesProcessed": str(job.figures.processed),
                "schema": {"fields": []},
                "cacheHit": False,
                "jobReference": {"projectId": call.project, "location": job.location},
            }
        with self._lock:
            job = self._ids.get(request_id) or self._make(
                call.project, str(uuid4()), configuration, body.get("location"), body
            )
            self._ids[request_id] = job
        if job.figures.reason:
            return Failure(job.figures.reason, "a secret 'value' of a row")
        if job.figures.questions:
            return {"jobComplete": False, "jobReference": job.reference}
        found = job.results(0, _int(body.get("maxResults")))
        found["kind"] = "bigquery#queryResponse"
        if body.get("jobCreationMode") == "JOB_CREATION_OPTIONAL":
            del found["jobReference"]
            found["queryId"] = job.id
            found["location"] = job.location
        return found

    def get(self, call: Call) -> Resource | Failure:
        """Answer jobs.get."""
        job = self.jobs.get((call.project, call.id))
        return Failure("notFound", f"Not found: Job {call.id}") if job is None else job.resource()

    def cancel(self, call: Call) -> Resource | Failure:
        """Answer jobs.cancel."""
        job = self.jobs[call.project, call.id]
        job.figures.reason, job.answered = "stopped", job.figures.questions
        return {"kind": "bigquery#jobCancelResponse", "job": job.resource()}

    def results(self, call: Call) -> Resource | Failure:
        """Answer jobs.getQueryResults."""
        job = self.jobs[call.project, call.id]
        if job.figures.reason:
            return Failure(job.figures.reason, "a secret 'value' of a row")
        asked = call.request.query
        if job.answered < job.figures.questions:
            job.answered += 1
            return {"jobComplete": False, "jobReference": job.reference}
        start = _int(asked.get("pageToken")) or _int(asked.get("startIndex")) or 0
        return job.results(start, _int(asked.get("maxResults")))

    # -- datasets and tables --------------------------------------------------------------------

    def datasets(self, call: Call) -> Resource | Failure:
        """Answer datasets.list and datasets.insert."""
        with self._lock:
            bigquery_tables.attach(self.database, call.project)
            if call.request.method == "POST":
                return bigquery_tables.create(self.database, call.project, call.body)
            return bigquery_tables.datasets(self.database, call.project)

    def tables(self, call: Call) -> Resource | Failure:
        """Answer tables.list and tables.get."""
        dataset, _, name = call.id.partition("/tables/")
        with self._lock:
            bigquery_tables.attach(self.database, call.project)
            if not name:
                return bigquery_tables.tables(self.database, call.project, dataset)
            found = bigquery_tables.table(self.database, call.project, dataset, name)
        return Failure("notFound", f"Not found: Table {name}") if found is None else found

    def rows(self, call: Call) -> Resource | Failure:
        """Answer tabledata.list, for the result of a query."""
        id_ = call.id.rpartition("/tables/anon")[2]
        job = self.jobs.get((call.project, id_))
        if job is None:
            return Failure("notFound", f"Not found: Table {call.id}")
        asked = call.request.query
        start = _int(asked.get("pageToken")) or _int(asked.get("startIndex")) or 0
        found = job.results(start, _int(asked.get("maxResults")))
        return {name: found[name] for name in ("rows", "totalRows", "pageToken") if name in found}

    def nothing(self, call: Call) -> Resource | Failure:
        """Answer for what there is none of."""
        return {}

    # -- jobs -----------------------------------------------------------------------------------

    def _job(self, project: str, id_: str, configuration: Resource, location: str | None) -> Job:
        figures = Figures()
        words = json.dumps(configuration)
        for wanted, seeded in self._seeds:
            if wanted in words:
                figures = Figures(**seeded)
        place = location or self.location
        return Job(project, id_, place, configuration, figures, time.time(), self.user, [], [])

    def _make(
        self,
        project: str,
        id_: str,
        configuration: Resource,
        location: str | None,
        body: Resource | None = None,
    ) -> Job:
        job = self._job(project, id_, configuration, location)
        query = configuration.get("query")
        if query is not None and not job.figures.reason:
            parameters = (body or query).get("queryParameters", [])
            self._execute(job, query["query"], parameters)
        self.jobs[project, id_] = job
        return job

    def _execute(self, job: Job, text: str, parameters: Sequence[Resource]) -> None:
        """Run a statement on DuckDB, as far as the two speak the same."""
        sql = bigquery_tables.plain(TIMELINE.sub("timeline", RESERVED.sub("jobs", text)))
        # BigQuery's own names of functions.
        sql = re.sub(r"TIMESTAMP_TRUNC\((\w+), HOUR\)", r"date_trunc('hour', \1)", sql)
        sql = re.sub(r"@(\w+)", r"$\1", sql).replace("`", '"')
        named = {found["name"]: _value(found) for found in parameters if "name" in found}
        given: Any = named or [_value(found) for found in parameters]
        with self._lock:
            if sql is not text and "jobs" in sql:
                self._table_of_jobs()
            cursor = self.database.cursor()
            try:
                cursor.execute("SET TimeZone = 'UTC'")
                cursor.execute(sql, given or None)
                kinds = [str(column[1]).upper() for column in cursor.description or ()]
                names = [str(column[0]) for column in cursor.description or ()]
                rows = cursor.fetchall()
            except duckdb.Error as error:
                job.figures.reason = "invalidQuery"
                job.figures.statement_type = str(error)
                return
            finally:
                cursor.close()
        if text.split(None, 1)[0].upper() in ("INSERT", "UPDATE", "DELETE", "MERGE"):
            job.affected = int(rows[0][0]) if rows else 0
            return
        job.columns = list(zip(names, kinds, strict=True))
        job.rows = rows

    def _table_of_jobs(self) -> None:
        self.database.execute(
            "CREATE OR REPLACE TABLE jobs (creation_time TIMESTAMPTZ, project_id VARCHAR, "
            "user_email VARCHAR, job_id VARCHAR, job_type VARCHAR, statement_type VARCHAR, "
            "start_time TIMESTAMPTZ, end_time TIMESTAMPTZ, query VARCHAR, state VARCHAR, "
            "reservation_id VARCHAR, edition VARCHAR, total_bytes_processed BIGINT, "
            "total_bytes_billed BIGINT, total_slot_ms BIGINT, "
            "error_result STRUCT(reason VARCHAR, message VARCHAR), cache_hit BOOLEAN, "
            "labels STRUCT(key VARCHAR, value VARCHAR)[], parent_job_id VARCHAR)"
        )
        for job in list(self.jobs.values()):
            figures, running = job.figures, job.answered < job.figures.questions
            self.database.execute(
                f"INSERT INTO jobs VALUES ({'?, ' * 17} "
                """from_json(?, '[{"key": "VARCHAR", "value": "VARCHAR"}]'), ?)""",
                [
                    _moment(job.began),
                    job.project,
                    job.user,
                    job.id,
                    job.kind.upper(),
                    figures.statement_type or ("SELECT" if job.kind == "query" else None),
                    _moment(job.began),
                    None if running else _moment(job.began + figures.seconds),
                    job.configuration.get("query", {}).get("query"),
                    "RUNNING" if running else "DONE",
                    figures.reservation,
                    "ENTERPRISE" if figures.reservation else None,
                    figures.processed,
                    figures.billed,
                    figures.slot_ms,
                    {"reason": figures.reason, "message": "…"} if figures.reason else None,
                    figures.cache_hit,
                    json.dumps(
                        [
                            {"key": key, "value": value}
                            for key, value in job.configuration.get("labels", {}).items()
                        ]
                    ),
                    None,
                ],
            )


def _without_ids(path: str) -> str:
    return re.sub(r"(jobs|queries)/[^/]+", r"\1/ID", path)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


def _int(text: Any) -> int | None:
    return None if text is None else int(text)


def _value(parameter: Resource) -> Any:
    kind, value = parameter["parameterType"]["type"], parameter["parameterValue"].get("value")
    if kind == "TIMESTAMP":
        return datetime.fromisoformat(str(value).replace(" ", "T", 1).replace("Z", "+00:00"))
    return int(value) if kind == "INT64" else float(value) if kind == "FLOAT64" else value


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", r"/jobs$", BigQueryServer.insert),
    ("POST", r"/queries$", BigQueryServer.query),
    ("GET", r"/jobs/([^/]+)$", BigQueryServer.get),
    ("POST", r"/jobs/([^/]+)/cancel$", BigQueryServer.cancel),
    ("GET", r"/queries/([^/]+)$", BigQueryServer.results),
    ("GET", r"/datasets$", BigQueryServer.datasets),
    ("POST", r"/datasets$", BigQueryServer.datasets),
    ("GET", r"/datasets/([^/]+)/tables$", BigQueryServer.tables),
    ("GET", r"/datasets/([^/]+/tables/[^/]+)$", BigQueryServer.tables),
    ("GET", r"/datasets/([^/]+/tables/[^/]+)/data$", BigQueryServer.rows),
    ("GET", r"/datasets/([^/]+)/routines$", BigQueryServer.nothing),
)


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the base
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        state = cast("_Server", self.server).state
        parts = urlsplit(self.path)
        found = re.match(r"(/upload)?/bigquery/v2/projects/([^/]+)(/.*)$", parts.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if found is None:
            self._answer(404, {})
            return
        upload, project, path = found.groups()
        if upload:
            self._upload(project, path, asked, raw)
            return
        body = json.loads(raw) if raw else None
        request = Request(self.command, path, asked, body)
        state.requests.append(request)
        failure = state.refused(request)
        if failure is not None:
            self._answer(failure.code, failure.body(), *failure.headers)
            return
        if state.torn(request):
            self._hang_up()
            return
        for method, pattern, handler in ROUTES:
            match = re.match(pattern, path)
            if method == self.command and match is not None:
                id_ = match[1] if match.groups() else ""
                # By its name: a subclass may have another answer.
                said = getattr(state, handler.__name__)(Call(project, id_, request))
                code = said.code if isinstance(said, Failure) else 200
                self._answer(code, said.body() if isinstance(said, Failure) else said)
                return
        self._answer(404, Failure("notFound", f"Not found: {path}").body())

    def _hang_up(self) -> None:
        """Promise an answer, and break off."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", "4096")
        self.end_headers()
        self.wfile.write(b'{"kind": "bigquery#')
        self.close_connection = True

    def _upload(self, project: str, path: str, asked: dict[str, str], raw: bytes) -> None:
        """Take a load's data: in one request with its job, or the job first and the data then."""
        state = cast("_Server", self.server).state
        if asked.get("upload_id"):
            body = state.uploads.pop(asked["upload_id"])
        elif asked["uploadType"] == "resumable":
            id_ = uuid4().hex
            state.uploads[id_] = json.loads(raw)
            state.requests.append(Request("POST", f"/upload{path}", asked, json.loads(raw)))
            self._answer(200, {}, ("Location", f"{state.url}{self.path}&upload_id={id_}"))
            return
        else:
            body = json.loads(raw.split(b"\r\n\r\n")[1].rpartition(b"\r\n--")[0])
            state.requests.append(Request("POST", f"/upload{path}", asked, body))
        said = state.insert(Call(project, "", Request("POST", path, asked, body)))
        assert not isinstance(said, Failure)
        self._answer(200, said)

    def _answer(self, code: int, body: Resource, *headers: tuple[str, str]) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(text)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, state: BigQueryServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state


@contextmanager
def bigquery_server() -> Generator[BigQueryServer]:
    """Run a server that has seen nothing yet, until the block ends."""
    with serving(BigQueryServer()) as state:
        yield state


@contextmanager
def serving(state: Server) -> Generator[Server]:
    """Run a server, until the block ends."""
    server = _Server(state)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, args=(0.02,), name="bigquery-server", daemon=True
    )
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        state.database.close()
