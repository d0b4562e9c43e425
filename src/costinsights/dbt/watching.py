"""Watches dbt: who each connection works for, and when a command has ended.

Every adapter gives its connection a name, and mostly the node, before it works for it, in the very
thread that then sends the statements: `BaseAdapter.connection_named`. The hooks of a run are sent
over a connection without a node; what they are is asked just before, of ``RunTask.get_hook_sql``,
which is dbt's own and not promised: without it they are charged to the invocation. That a command
has ended dbt says itself, to who listens for its events.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from sys import modules
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights import orchestrators
from costinsights.guard import swallow
from costinsights.imports import forget, when_imported

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import ModuleType

    from costinsights.config import Config

_END = "CommandCompleted"
_EVENTS = "dbt_common.events.event_manager_client"
_INVOCATIONS = "costinsights.dbt.invocations"


class _Wrapped(NamedTuple):
    """A method that was replaced: where, and by what."""

    owner: Any
    name: str
    original: Any
    ours: Any


class DbtWatch:
    """The plug-in ``dbt``; a program that does not use dbt pays two entries in a dictionary."""

    def __init__(self) -> None:
        self._wrapped: list[_Wrapped] = []
        self._config: Config | None = None

    def watch(self, config: Config) -> None:
        """Wrap dbt's methods, now or when they are imported."""
        self._config = config
        when_imported("dbt.adapters.base.impl", self._wrap_connections)
        when_imported("dbt.task.run", self._wrap_hooks)

    def unwatch(self) -> None:
        """Put the methods back; one that somebody has wrapped again only calls through."""
        self._config = None
        forget(self._wrap_connections)
        forget(self._wrap_hooks)
        left: list[_Wrapped] = []
        for wrapped in self._wrapped:
            if wrapped.owner.__dict__.get(wrapped.name) is wrapped.ours:
                setattr(wrapped.owner, wrapped.name, wrapped.original)
            else:
                left.append(wrapped)
        self._wrapped = left
        events, invocations = modules.get(_EVENTS), modules.get(_INVOCATIONS)
        if events is not None:
            _leave(events.get_event_manager(), self._listen)
        if invocations is not None:
            invocations.leave()

    # -- the methods ------------------------------------------------------------------------------

    def _wrap_connections(self, module: ModuleType) -> None:
        orchestrators.dbt_is_here()

        def wrapper(original: Any) -> Any:
            @wraps(original)
            @contextmanager
            def connection_named(adapter: Any, *args: Any, **kwargs: Any) -> Generator[object]:
                with self._working(adapter, args, kwargs), original(adapter, *args, **kwargs) as it:
                    yield it

            return connection_named

        self._wrap(getattr(module, "BaseAdapter", None), "connection_named", wrapper)

    def _wrap_hooks(self, module: ModuleType) -> None:
        def wrapper(original: Any) -> Any:
            @wraps(original)
            def get_hook_sql(task: Any, adapter: Any, hook: Any, *args: Any, **kwargs: Any) -> Any:
                if self._config is not None:
                    self._guarded(_begin_hook, adapter, hook)
                return original(task, adapter, hook, *args, **kwargs)

            return get_hook_sql

        self._wrap(getattr(module, "RunTask", None), "get_hook_sql", wrapper)

    def _wrap(self, owner: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
        original = None if owner is None else owner.__dict__.get(name)
        if original is None or any(known.owner is owner for known in self._wrapped):
            return  # a dbt that we do not know, or it is still in place, below somebody else's
        ours = wrapper(original)
        setattr(owner, name, ours)
        self._wrapped.append(_Wrapped(owner, name, original, ours))

    # -- what they are wrapped for ----------------------------------------------------------------

    @contextmanager
    def _working(
        self, adapter: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Generator[None]:
        block = None
        if self._config is not None:
            name = args[0] if args else kwargs.get("name")
            node = args[1] if len(args) > 1 else kwargs.get("query_header_context")
            block = self._guarded(self._block, adapter, name, node)
        if block is None:
            yield
            return
        with block:
            yield

    def _block(self, adapter: Any, name: object, node: object) -> Any:
        from costinsights.dbt.invocations import met, working_for

        found = met(adapter)
        if found is None:
            return None
        invocation, is_new = found
        if is_new:
            # dbt forgets who listens with each invocation.
            manager = modules[_EVENTS].get_event_manager()
            if self._listen not in manager.callbacks:
                modules[_EVENTS].add_callback_to_manager(self._listen)
        return working_for(invocation, invocation.of(adapter, name, node))

    def _listen(self, event: Any) -> None:
        if event.info.name == _END and self._config is not None:
            self._guarded(self._end, event)

    def _end(self, event: Any) -> None:
        from costinsights.dbt.ending import end

        if self._config is not None:
            end(self._config, float(event.data.elapsed))

    def _guarded(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001  no error of ours reaches dbt
            swallow("dbt", error)
            return None


def _begin_hook(adapter: Any, hook: Any) -> None:
    from costinsights.dbt.invocations import begin_hook

    begin_hook(adapter, hook)


def _leave(manager: Any, listener: Callable[[Any], None]) -> None:
    if listener in manager.callbacks:
        manager.callbacks.remove(listener)
