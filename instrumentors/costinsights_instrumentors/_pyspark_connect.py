"""Spark Connect: a client knows the id of its operation, and the server's event log what it used.

The id stands in the tags of the operation's jobs, so that `costinsights settle spark --all` finds
the charge: its figures are the sum of the SQL executions that the operation had.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import Hook, address_of
from costinsights.jobs import Place, place
from costinsights.patching import Probe
from costinsights.systems.spark import SYSTEM

if TYPE_CHECKING:
    from costinsights.instrumentor import DBAPIInstrumentor
    from costinsights.recorder import Recorder

UNIT = Hook("pyspark:SparkConnect", statement=None)


def started(instrumentor: DBAPIInstrumentor, recorder: Recorder, answers: Any) -> None:
    """Write the pending charge of an operation, from the iterator over its answers."""
    span = recorder.begin(Probe(UNIT, instrumentor), (_where(answers),), {})
    if span is None:
        return
    recorder.pause(span)
    if span.target.capacity is not None:  # whose hours the server's executions share
        span.target = copy(span.target)
        span.target.capacity = span.target.price = span.target.currency = None
    span.share = 0
    span.note("i", answers._operation_id)
    span.note("o", "CONNECT")
    span.partial = span.rare = True
    recorder.end(span, None, None)


def _where(answers: Any) -> Place:
    """Give the server's host and port, as far as gRPC tells them."""
    try:
        target = answers._stub.ExecutePlan._channel.target()
        name = target.decode() if isinstance(target, bytes) else str(target)
        host, port = address_of(f"//{name.rpartition('/')[2]}")
    except (AttributeError, ValueError):
        host = port = None
    return place(SYSTEM, address=host, port=port)
