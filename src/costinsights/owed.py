"""Calls that returned before the server answered: who they are, and whose turn it is.

A driver in pipeline mode sends statements without waiting, and the answers come in order. So a span
stays open until all its answers have come, and while the driver waits the clock runs of the span
whose answer is next: the server is working on that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from costinsights.guard import swallow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costinsights.patching import Probe
    from costinsights.recorder import Recorder
    from costinsights.span import CostSpan


class Owed:
    """The spans that wait for answers, by what the driver will say each answer is for."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        # By the identity of the driver's token, which lives in the driver's queue.
        self.spans: dict[int, CostSpan] = {}
        # By the identity of what waits: the span whose clock runs.
        self._running: dict[int, CostSpan | None] = {}
        # Errors that an answer brought, by identity: its own call has them.
        self._brought: set[int] = set()

    def clear(self) -> None:
        """Forget all: in a forked child they are the parent's."""
        self.spans.clear()
        self._running.clear()
        self._brought.clear()

    def add(self, span: CostSpan, cursor: object, tokens: Iterable[object]) -> bool:
        """Keep `span` open for the answers that `tokens`, last one first, stand for.

        Tell whether there is any.
        """
        spans, mine = self.spans, 0
        for token in tokens:
            if id(token) in spans:
                break  # of an earlier call on this cursor, as are all before it
            spans[id(token)] = span
            mine += 1
        if not mine:
            return False

        def dropped(_: object) -> None:
            try:
                self._forget(span)
                self.recorder.complete(span, None, partial=True)
            except Exception as error:  # noqa: BLE001  in a finaliser nobody could catch it
                swallow("a dropped cursor", error)

        span.awaits = mine
        span.cursor = ref(cursor, dropped)
        span.partial = span.rare = True
        return True

    def arrived(
        self, probe: Probe, source: object, token: object, answer: Any, error: BaseException | None
    ) -> None:
        """An answer is there: count its rows, and complete the span with its last one."""
        if not self.spans:
            return
        span = self.spans.pop(id(token), None)
        if span is not None and not span.done:
            self.recorder.pause(span)
            span.changed = True
            span.awaits -= 1
            if error is not None:
                self._brought.add(id(error))
                self._forget(span)
                self.recorder.complete(span, error)
            else:
                if probe.rows is not None and (rows := probe.rows(source, answer)) is not None:
                    span.rows = (span.rows or 0) + rows
                if not span.awaits:
                    self.recorder.complete(span, None)
        if id(source) in self._running:
            self.waits(probe, source)

    def waits(self, probe: Probe, source: object) -> None:
        """The driver waits: run the clock of the span whose answer comes next."""
        if not self.spans:
            return
        span = self.spans.get(id(probe.instrumentor.next_answer(source)))
        before = self._running.get(id(source))
        if before is not None and before is not span:
            self.recorder.pause(before)
        self._running[id(source)] = span
        if span is not None:
            self.recorder.resume(span)

    def waited(self, source: object, error: BaseException | None) -> None:
        """The driver goes on. An error that no answer brought ends the span that was next."""
        span = self._running.pop(id(source), None)
        brought = id(error) in self._brought
        self._brought.clear()
        if span is None or span.done:
            return
        self.recorder.pause(span)
        if error is not None and not brought:
            self._forget(span)
            self.recorder.complete(span, error)

    def _forget(self, span: CostSpan) -> None:
        for key in [key for key, found in self.spans.items() if found is span]:
            del self.spans[key]
