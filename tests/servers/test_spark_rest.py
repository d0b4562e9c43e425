"""The REST API where it is not as it should be; as it is, `test_spark.py` asks the real one."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from costinsights import asking
from costinsights.settlement.history import HistoryError
from costinsights.settlement.spark import PAGE, SparkHistory

if TYPE_CHECKING:
    from collections.abc import Generator

    from costinsights.settlement.history import Figure

ID = "application_1_0007"
SINCE = datetime(2026, 11, 23, 4, tzinfo=timezone.utc)
STARTED = "2026-11-23T04:00:00.000GMT"


def at(seconds: int) -> str:
    return f"2026-11-23T04:00:{seconds:02}.000GMT"


def stage(number: int, **changes: Any) -> dict[str, Any]:
    numbers = (
        "executorCpuTime executorDeserializeTime executorDeserializeCpuTime jvmGcTime inputBytes "
        "outputBytes shuffleReadBytes shuffleWriteBytes memoryBytesSpilled diskBytesSpilled "
        "numActiveTasks numFailedTasks numKilledTasks"
    )
    return {
        **dict.fromkeys(numbers.split(), 0),
        "stageId": number,
        "attemptId": 0,
        "executorRunTime": 1500,
        "numCompleteTasks": 2,
        **changes,
    }


def job(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "jobId": number,
        "submissionTime": at(2),
        "completionTime": at(5),
        "stageIds": [number],
        "status": "SUCCEEDED",
        **changes,
    }


def answers(**changes: Any) -> dict[str, Any]:
    """What a server has of one application that has ended."""
    attempt = {"startTime": STARTED, "endTime": at(10), "completed": True}
    return {
        "": {"id": ID, "name": "nightly", "attempts": [attempt]},
        "/environment": {"sparkProperties": [["spark.master", "yarn"], ["spark.task.cpus", "2"]]},
        "/jobs": [job(1, jobGroup="night"), job(0)],
        "/stages": [stage(1), stage(0)],
        "/sql": [
            {
                "id": 0,
                "status": "COMPLETED",
                "submissionTime": at(1),
                "duration": 6000,
                "successJobIds": [0],
            }
        ],
        "/allexecutors": [{"id": "1", "addTime": at(0), "totalCores": 4}],
        **changes,
    }


@contextmanager
def server(known: dict[str, Any]) -> Generator[tuple[str, list[str]]]:
    """Serve `known`; also give what was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/api/v1/applications")
            answer: Any = [known[""]] if not path else known.get(path.removeprefix(f"/{ID}"))
            if path.endswith("/sql"):
                query = parse_qs(parts.query)
                first = int(query["offset"][0])
                answer = answer[first : first + int(query["length"][0])]
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}", asked
        finally:
            http.shutdown()
            thread.join()


def read(
    known: dict[str, Any], *, pending: tuple[str, ...] = ()
) -> tuple[dict[str, Figure], SparkHistory]:
    with server(known) as (url, _):
        history = SparkHistory({"url": url})
        history.everything, history.pending = not pending, pending
        found = list(history.read(SINCE, SINCE + timedelta(hours=1)))
    return {(one.vendor_id or "").removeprefix(ID): one for one in found}, history


def test_an_application_as_it_should_be() -> None:
    found, history = read(answers())
    assert set(found) == {"/sql/0", "/job/1", ""}
    assert found["/sql/0"].meters["core_seconds"] == 3  # 1.5 s of tasks that have two cores each
    assert found["/job/1"].labels == {"job_group": "night"}
    assert found[""].meters["core_seconds"] == 4 * 10 - 6
    assert found[""].resource.address == "yarn"
    assert history.incomplete == []


def test_by_id_only_what_is_asked_for_is_read() -> None:
    found, _ = read(answers(), pending=(f"{ID}/job/1",))
    assert "/job/1" in found
    found, history = read(answers(), pending=("application_1_0008/job/1",))
    assert found == {}
    assert "does not know application_1_0008" in history.incomplete[0]
    assert history.lost == {}, "another server may know it"


def test_attempts_of_yarn_are_applications_of_their_own() -> None:
    known = answers()
    attempt = known[""]["attempts"][0]
    known[""]["attempts"] = [{**attempt, "attemptId": "1"}, {**attempt, "attemptId": "2"}]
    known |= {f"/{number}{path}": known[path] for number in "12" for path in known if path}
    found, _ = read(known)
    assert set(found) == {f"/{n}{unit}" for n in "12" for unit in ("/sql/0", "/job/1", "")}


def test_executions_come_in_pages() -> None:
    one: dict[str, Any] = answers()["/sql"][0]
    many: list[dict[str, Any]] = [
        {**one, "id": number, "successJobIds": []} for number in range(1, 2 * PAGE)
    ]
    with server(answers(**{"/sql": [one, *many]})) as (url, asked):
        history = SparkHistory({"url": url})
        history.everything = True
        found = list(history.read(SINCE, SINCE + timedelta(hours=1)))
    assert len(found) == 2 * PAGE + 2
    assert sum("/sql?" in path for path in asked) == 3


@pytest.mark.parametrize("wrong", ["1500", None, 1.5, True, []])
def test_a_number_that_is_none_leaves_its_charge_unknown(wrong: object) -> None:
    found, _ = read(answers(**{"/stages": [stage(1, executorRunTime=wrong), stage(0)]}))
    assert "executorRunTime is no whole number" in found["/job/1"].problem
    assert found["/sql/0"].problem == ""


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/jobs", {"no": "list"}),
        ("/jobs", ["no object"]),
        ("/jobs", [job(0, submissionTime="yesterday")]),
        ("/jobs", [{"status": "SUCCEEDED"}]),
        ("/sql", [{"id": "0"}]),
        ("/allexecutors", [{"id": "1", "addTime": at(0), "totalCores": "4"}]),
        ("/stages", [{"attemptId": 0}]),
    ],
)
def test_an_answer_that_cannot_be_read_is_said(path: str, wrong: object) -> None:
    found, history = read(answers(**{path: wrong}))
    assert found == {}
    assert len(history.incomplete) == 1
    assert history.incomplete[0].startswith(f"{ID}: ")


def test_a_status_that_nobody_knows_is_no_success() -> None:
    known = answers()
    known["/sql"][0]["status"] = "HALF_DONE"
    found, _ = read(known)
    assert found["/sql/0"].error == "FAILED"


def test_what_the_ui_has_forgotten_is_said() -> None:
    found, history = read(answers(**{"/jobs": [job(1001)], "/stages": [], "/sql": []}))
    assert set(found) == {"/job/1001", ""}
    assert "spark.ui.retainedJobs" in history.incomplete[0]


def test_a_server_that_stumbles_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(asking, "sleep", waited.append)
    with server({}) as (url, _):
        pass
    history = SparkHistory({"url": url})
    history.everything = True
    with pytest.raises(HistoryError, match="What was read is kept"):
        list(history.read(SINCE, SINCE + timedelta(hours=1)))
    assert len(waited) == asking.ATTEMPTS - 1
