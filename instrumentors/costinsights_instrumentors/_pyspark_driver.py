"""The driver's side of Spark: carries scopes to where jobs start, and makes charges of what is done.

One `Driver` a SparkContext. A thread of its own asks the listener in the JVM for what happened, and
waits there while nothing does; the program's threads never wait for it but in `SparkContext.stop`.
"""

from __future__ import annotations

import atexit
import json
import os
from _thread import RLock
from collections import OrderedDict
from copy import copy
from threading import Thread, current_thread, local
from typing import TYPE_CHECKING, Any

from costinsights import orchestrators
from costinsights.attribution import Scope, active_scope, inherited_labels, innermost, root, within
from costinsights.guard import say, suppressed, swallow
from costinsights.instrumentor import Hook, Usage
from costinsights.jobs import place
from costinsights.patching import Probe
from costinsights.systems.spark import IDLE, SCOPE, SYSTEM, Application, Unit
from costinsights_instrumentors._pyspark_listener import attached

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.instrumentor import DBAPIInstrumentor
    from costinsights.jobs import Place
    from costinsights.recorder import Recorder, Target
    from costinsights.span import CostSpan

WAIT_MS = 1000
"""So long the JVM keeps an answer back while it has nothing to say."""
EXIT_MS = 2000
"""So long the end of a program that does not stop Spark waits for what is still on its way."""
STOP_SECONDS = 5
"""So long `SparkContext.stop` waits for the last word, which Spark has sent by then."""
MOST_SCOPES = 1024
MS = 10**6


class Carried(local):
    """What a thread has last told its thread in the JVM."""

    driver: Driver | None = None
    scope: Scope | None = None
    text: str | None = None


class Driver:
    """One SparkContext that is listened to."""

    def __init__(
        self, instrumentor: DBAPIInstrumentor, context: Any, recorder: Recorder, *, late: bool
    ) -> None:
        """Listen from now on, and write the pending charge of what will have been idle.

        `late` says that the application is at work already: what was idle only settlement knows.

        Raises:
            Exception: the JVM does not let us; nothing was changed.
        """
        self.recorder = recorder
        self.client = context._gateway._gateway_client
        # Without it (PYSPARK_PIN_THREAD=false) any thread of the JVM may run a thread's jobs.
        self.pinned = type(context._gateway).__name__ == "ClientServer"
        self._probe = Probe(Hook("pyspark:SparkContext", statement=(1, "text")), instrumentor)
        self._jsc = context._jsc
        self._listener = attached(context)
        known = json.loads(self._listener.application())
        self.application = Application(
            known["id"], known["started"], attempt=known["attempt"], conf=known["conf"]
        )
        self._carried = Carried()
        self._scopes: OrderedDict[str, Scope] = OrderedDict()
        self._spans: dict[Any, CostSpan] = {}
        self._bare: dict[Target, Target] = {}
        self._lock = RLock()
        self._pid = os.getpid()
        self._closing = False
        self._idle: CostSpan | None = None
        if self.application.id not in _begun:  # by us, before we were switched off and on again
            _begun.add(self.application.id)
            with within(self._scope_of(None)):
                span = self._begin(None)
                self._write_pending(span)
            self._idle = None if late else span
        self._thread = Thread(target=self._listen, name="costinsights-spark", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    # -- scopes ---------------------------------------------------------------------------------

    def carry(self, java: Any) -> None:
        """Tell the JVM's thread which scope this one is in, where that has changed.

        Called before each call into the JVM, whatever it does: any of them may start a job.
        """
        scope, told = innermost(), self._carried
        if told.driver is not self:
            told.driver, told.scope, told.text = self, None, None
        if scope is told.scope and not orchestrators.may_be_present():
            return
        if not self.pinned or java.gateway_client is not self.client or self._closing:
            return
        labels = inherited_labels()
        text = json.dumps(labels, sort_keys=True) if labels else None
        told.scope = scope
        if text is not None:
            with self._lock:
                known = scope is not None and scope.labels == labels
                self._scopes[text] = scope if scope and known else Scope(labels, scope or root)
                self._scopes.move_to_end(text)
                if len(self._scopes) > MOST_SCOPES:
                    self._scopes.popitem(last=False)
        if text != told.text:
            told.text = text
            self._jsc.setLocalProperty(SCOPE, text)

    def _scope_of(self, unit: Unit | None) -> Scope:
        """Return the scope that work was started in, with what else Spark was told of it."""
        labels = self.application.labels(unit)
        if unit is None:
            scope = active_scope()
        else:
            with self._lock:
                scope = self._scopes.get(unit.properties.get(SCOPE, ""), root)
        fresh = {name: value for name, value in labels.items() if scope.labels.get(name) != value}
        return Scope(fresh, scope) if fresh else scope

    # -- charges --------------------------------------------------------------------------------

    def _begin(self, unit: Unit | None) -> CostSpan | None:
        """Open a span, in the scope that is current; its first entry says who it is for."""
        application = self.application
        text = None if unit is None else application.text(unit)
        span = self.recorder.begin(self._probe, (self._place(), text), {})
        if span is None:
            return None
        self.recorder.pause(span)
        if span.target.capacity is not None:
            # Hours are shared by core-seconds, which only settlement can: no share of ours by time.
            span.target = self._without_capacity(span.target)
        span.note("i", application.vendor_id(unit))
        if text is None:
            span.note("o", IDLE if unit is None else unit.key.kind.upper())
        span.started_at = (application.started if unit is None else unit.started) * MS
        span.clock(0, 0, 0)
        return span

    def _place(self) -> Place:
        address, port = self.application.address()
        return place(SYSTEM, address=address, port=port, namespace=self.application.name or None)

    def _without_capacity(self, target: Target) -> Target:
        found = self._bare.get(target)
        if found is None:
            found = self._bare[target] = copy(target)
            found.capacity = found.price = found.currency = None
        return found

    def _write_pending(self, span: CostSpan | None) -> None:
        if span is not None:
            span.partial = span.rare = True
            self.recorder.end(span, None, None)

    def _complete(
        self, span: CostSpan | None, ended: int, meters: Any, *, partial: bool = False
    ) -> None:
        if span is None:
            return
        elapsed = max(0, ended * MS - span.started_at)
        span.clock(0, elapsed, 0)
        span.source = Usage(None, meters)
        self.recorder.complete(span, None, partial=partial)

    def _account(self) -> None:
        """Write what is new: pending charges of what has begun, and those of what is done."""
        application = self.application
        for unit in application.finished():
            with within(self._scope_of(unit)):
                span = self._spans.pop(unit.key, None) or self._begin(unit)
                if span is not None and unit.error is not None:
                    span.note("e", (unit.error, None))
                ended = application.latest if unit.ended is None else unit.ended
                self._complete(span, ended, application.meters(unit))
        for key, unit in application.units.items():
            if unit.jobs and key not in self._spans:  # before, nobody knows who it is for
                with within(self._scope_of(unit)):
                    span = self._begin(unit)
                    if span is not None:
                        self._spans[key] = span
                        self._write_pending(span)

    # -- listening ------------------------------------------------------------------------------

    def _listen(self) -> None:
        with suppressed():
            try:
                while not self._closing and self.application.ended is None:
                    self._take(WAIT_MS)
            except Exception as error:  # noqa: BLE001  the JVM has gone, or an error of ours
                if not self._closing and not _is_lost(error):
                    swallow("Spark's listener", error)

    def _take(self, wait: int) -> bool:
        """Take what the listener has to say; False where that is nothing."""
        text = self._listener.drain(wait)
        if not text:
            return False
        with self._lock:
            application = self.application
            for name, *values in json.loads(text):
                _TOLD[name](application, *values)
            self._account()
            if application.ended is not None and self._idle is not None:
                span, self._idle = self._idle, None
                self._complete(span, application.ended, application.idle(application.ended))
        return True

    def stopped(self) -> None:
        """Take the last that is said, once the program has stopped Spark."""
        thread = self._thread
        if thread is not current_thread():
            thread.join(STOP_SECONDS)
        self.close()

    def close(self) -> None:
        """Listen no more. What is open stays pending, for settlement."""
        self._closing = True
        atexit.unregister(self._at_exit)

    def detach(self) -> None:
        """Take the listener off a SparkContext that goes on."""
        self.close()
        with suppressed():
            try:
                self._jsc.sc().removeSparkListener(self._listener)
                if self._carried.text is not None and self._carried.driver is self:
                    self._jsc.setLocalProperty(SCOPE, None)
            except Exception as error:  # noqa: BLE001  the JVM has gone, and the listener with it
                if not _is_lost(error):
                    swallow("Spark's listener", error)

    def _at_exit(self) -> None:
        """Write what is known, of a program that ends without stopping Spark."""
        if self._closing or self._pid != os.getpid():
            return
        self._closing = True
        with suppressed():
            try:
                self._listener.settle(EXIT_MS)
                self._listener.executors()
                self._take(0)
                with self._lock:
                    application, span = self.application, self._idle
                    # Spark is stopped when the JVM ends, some time after this: settlement knows.
                    until = application.latest
                    self._complete(span, until, application.idle(until), partial=True)
            except Exception as error:  # noqa: BLE001  the JVM has gone before us
                if not _is_lost(error):
                    swallow("Spark's listener", error)


def _ended(way: Callable[..., None]) -> Callable[[Application, int, int, bool], None]:
    return lambda application, number, at, well: way(application, number, at, well=well)


_TOLD: dict[str, Callable[..., None]] = {
    "sql": Application.sql_started,
    "sql ended": _ended(Application.sql_ended),
    "job": Application.job_started,
    "job ended": _ended(Application.job_ended),
    "used": Application.used,
    "executor": Application.executor_added,
    "executor removed": Application.executor_removed,
    "end": Application.end,
}


def _is_lost(error: Exception) -> bool:
    """Tell whether the JVM cannot be reached any more."""
    return isinstance(error, OSError) or type(error).__name__ == "Py4JNetworkError"


_begun: set[str] = set()
"""Applications whose charge for idle time this process has written."""


def listening(
    instrumentor: DBAPIInstrumentor, context: Any, recorder: Recorder, *, late: bool = False
) -> Driver | None:
    """Listen to a SparkContext; None, and a word about it, where that cannot be."""
    with suppressed():
        try:
            return Driver(instrumentor, context, recorder, late=late)
        except Exception as error:  # noqa: BLE001  Spark goes on without us
            say(
                "costinsights does not see what this Spark application does, because its JVM does "
                f"not let us listen ({type(error).__name__}): settle it from its event log"
            )
            return None
