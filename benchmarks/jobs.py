"""What starting a job costs the caller: added CPU of the calling thread, against a span of botocore's.

The peer is OpenTelemetry's own instrumentation of botocore. The clock stands still inside of boto3
(`benchmarks.warehouses.Inside`): what it shows is the work of whoever has wrapped the call.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks import peers
from benchmarks.elsewhere import elsewhere
from benchmarks.measuring import BARE, BARE_AGAIN, OURS, Lane, interleave
from benchmarks.ours import recording
from benchmarks.outcome import Figure, Outcome, Table
from benchmarks.overhead import added
from benchmarks.warehouses import Inside

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

TARGET = 0.25
CALLS = 30
ROUNDS = 30
QUICK_ROUNDS = 9
CONTRIB = "OpenTelemetry contrib, botocore"
# Service, operation, the method of a client and its request.
STARTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "aws.glue": ("glue", "StartJobRun", "start_job_run", {"JobName": "nightly"}),
    "aws.athena": (
        "athena",
        "StartQueryExecution",
        "start_query_execution",
        {"QueryString": "SELECT 1", "WorkGroup": "primary"},
    ),
}
ANSWERS: dict[str, Callable[[], dict[str, str]]] = {
    "StartJobRun": lambda: {"JobRunId": f"jr_{uuid4().hex}"},
    "StartQueryExecution": lambda: {"QueryExecutionId": str(uuid4())},
}


def measure(*, quick: bool = False) -> Outcome:
    """Measure a start of each kind."""
    boto3: Any = import_module("boto3")
    outcome = Outcome()
    with elsewhere("benchmarks.jobs:served") as aws:
        for system, (service, _, method, request) in STARTS.items():
            client = boto3.client(service, **aws.access)
            call = partial(getattr(client, method), **request)
            figure, table = _start(system, call, quick=quick)
            outcome.figures.append(figure)
            outcome.tables.append(table)
            client.close()
    return outcome


@contextmanager
def served() -> Generator[dict[str, Any]]:
    """Run the tests' server of AWS, with an answer to each start."""
    from tests.servers.aws_server import aws_server

    with aws_server() as aws:
        for service, operation, _, _ in STARTS.values():
            answer = ANSWERS[operation]
            aws.answer(service, operation, lambda _, answer=answer: answer())  # type: ignore[misc]  # mypy infers no lambda with a default
        yield {"access": aws.access}


def _start(system: str, call: Callable[[], object], *, quick: bool) -> tuple[Figure, Table]:
    clock = Inside()
    telemetry = peers.OpenTelemetry()
    module: Any = import_module("opentelemetry.instrumentation.botocore")
    instrumentor = module.BotocoreInstrumentor()

    def leave() -> None:
        instrumentor.uninstrument()
        telemetry.flush()

    with ExitStack() as stack:
        stack.callback(telemetry.provider.shutdown)
        client: Any = import_module("botocore.client").BaseClient
        name = "_make_api_call"
        own = getattr(client, name)
        setattr(client, name, clock.shim(own))
        stack.callback(setattr, client, name, own)
        # By what is billed for a run, and not by the hour; nothing is asked in the background.
        options: dict[str, object] = {"capacity": [], "follow_jobs": False}
        ours = stack.enter_context(recording("botocore", system, options=options))
        ours.off()
        lanes = [
            Lane(BARE, call),
            Lane(BARE_AGAIN, call),
            Lane(
                CONTRIB,
                call,
                lambda: instrumentor.instrument(tracer_provider=telemetry.provider),
                leave,
            ),
            Lane(OURS, call, ours.on, ours.off),
        ]
        rounds = interleave(
            lanes, rounds=QUICK_ROUNDS if quick else ROUNDS, calls=CALLS, clock=clock, warm_up=5
        )
        assert telemetry.exporter.taken, "the peer made no spans"
        assert ours.writer.made == ours.writer.written > 0, "nothing was recorded"
        ours.on()
    bare = "the tests' server; a bare call, outside of boto3,"
    table = added(f"{system}, starting a job", rounds, CONTRIB, bare)
    figure = Figure(
        f"start-{system}",
        f"caller CPU of starting a job of {system} with boto3, durable write, ÷ {CONTRIB}",
        rounds.ratio(OURS, CONTRIB),
        TARGET,
    )
    return figure, table
