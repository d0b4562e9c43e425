"""Work that a client library does on threads of its own, for whoever has asked it for that.

Python carries no context into such a thread. A task is made where it is asked for, so what is known
there is remembered with it, and holds while it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from costinsights import orchestrators
from costinsights.attribution import active_scope, root, within
from costinsights.guard import SUPPRESSED, busy

if TYPE_CHECKING:
    from contextvars import Token

    from costinsights.attribution import Scope


class Tasks:
    """Tasks of a library's pool, and for whom they are."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[ref[Any], Scope, orchestrators.Context | None, bool]] = {}

    def made(self, task: object) -> None:
        """Remember for whom a task is made."""
        scope, context = active_scope(), orchestrators.present()
        silent = busy.get() is SUPPRESSED
        if scope is root and context is None and not silent:
            return
        key = id(task)
        gone = ref(task, lambda _: self._made.pop(key, None))
        self._made[key] = gone, scope, context, silent

    def enter(self, task: object, recorder: Any) -> Entered | None:
        """Be who a task was made for, until it is done."""
        known = self._made.get(id(task))
        if known is None or known[0]() is not task:
            return None
        return Entered(recorder, *known[1:])


class Entered:
    """One task at work."""

    __slots__ = ("_busy", "_context", "_scope", "recorder")

    def __init__(
        self,
        recorder: Any,
        scope: Scope,
        context: orchestrators.Context | None,
        silent: bool,
    ) -> None:
        self.recorder = recorder
        self._scope = within(scope)
        self._scope.__enter__()
        self._context = orchestrators.carried.set(context)
        self._busy: Token[str | None] | None = busy.set(SUPPRESSED) if silent else None

    def leave(self) -> None:
        """Be nobody again."""
        self._scope.__exit__()
        orchestrators.carried.reset(self._context)
        if self._busy is not None:
            busy.reset(self._busy)
