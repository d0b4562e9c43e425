"""What an operation on S3 costs the caller: added CPU of the calling thread, against botocore's span.

The peer is OpenTelemetry's own instrumentation of botocore. The clock stands still inside of boto3
(`benchmarks.warehouses.Inside`), and runs where boto3 calls something of ours: what it shows is the
work of whoever has wrapped the call, or what the call calls.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from importlib import import_module
from time import thread_time_ns
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.elsewhere import elsewhere
from benchmarks.measuring import BARE, BARE_AGAIN, OURS, Lane, interleave
from benchmarks.ours import instrumentor_of, places, recording
from benchmarks.outcome import Figure, Outcome, Table
from benchmarks.overhead import added
from benchmarks.warehouses import Inside

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

TARGET = 0.25
CALLS = 30
ROUNDS = 30
QUICK_ROUNDS = 9
# So many, because a class that has been patched is slow at first.
WARM_UP = 40
SYSTEM = "aws.s3"
BUCKET = "bench"
KILOBYTE = b"x" * 1024
CONTRIB = "OpenTelemetry contrib, botocore"


class Within(Inside):
    """A clock that stands still in a client, but not in what the client calls of somebody else's."""

    def resumed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, with the clock running in it wherever it is called from."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self._depth:
                return function(*args, **kwargs)
            self._depth = 0
            began = thread_time_ns()
            try:
                return function(*args, **kwargs)
            finally:
                self._spent -= thread_time_ns() - began
                self._depth = 1

        return timed


def measure(*, quick: bool = False) -> Outcome:
    """Measure a small PUT, and a GET that is read to its end."""
    outcome = Outcome()
    with elsewhere("benchmarks.storage:served") as aws:
        client: Any = import_module("boto3").client("s3", **aws.access)
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="key", Body=KILOBYTE)

        def put() -> None:
            client.put_object(Bucket=BUCKET, Key="key", Body=KILOBYTE)

        def get() -> None:
            client.get_object(Bucket=BUCKET, Key="key")["Body"].read()

        for name, call in (("put_object", put), ("get_object", get)):
            figure, table = _operation(name, call, quick=quick)
            outcome.figures.append(figure)
            outcome.tables.append(table)
        client.close()
    return outcome


@contextmanager
def served() -> Generator[dict[str, Any]]:
    """Run the tests' server of AWS."""
    from tests.servers.aws_server import aws_server

    with aws_server() as aws:
        yield {"access": aws.access}


def _operation(name: str, call: Callable[[], object], *, quick: bool) -> tuple[Figure, Table]:
    clock = Within()
    telemetry = peers.OpenTelemetry()
    module: Any = import_module("opentelemetry.instrumentation.botocore")
    instrumentor = module.BotocoreInstrumentor()

    def leave() -> None:
        instrumentor.uninstrument()
        telemetry.flush()

    with ExitStack() as stack:
        stack.callback(telemetry.provider.shutdown)
        for (owner, attribute), (own, value) in places(instrumentor_of("botocore")).items():
            if own and owner.__name__ != "Task":
                setattr(owner, attribute, clock.shim(value))
                stack.callback(setattr, owner, attribute, value)
        ours = stack.enter_context(recording("botocore", SYSTEM, options={"capacity": []}))
        ours.around(clock.resumed)
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
            lanes,
            rounds=QUICK_ROUNDS if quick else ROUNDS,
            calls=CALLS,
            clock=clock,
            warm_up=WARM_UP,
        )
        assert telemetry.exporter.taken, "the peer made no spans"
        ours.on()
    table = added(f"S3, {name} of 1 KiB", rounds, CONTRIB, "the tests' server; outside of boto3,")
    figure = Figure(
        f"storage-{name}",
        f"caller CPU of boto3's {name}, durably added up, ÷ {CONTRIB}",
        rounds.ratio(OURS, CONTRIB),
        TARGET,
    )
    return figure, table
