"""Who a call is for: scopes that the program opens, and the sources that are asked after them.

Order of precedence, field by field: an explicit scope, a comment in the statement (dbt,
sqlcommenter), the orchestrator in the process (Dagster, Airflow, Prefect), the environment, the
rules of the configuration. The record says which of them decided, in `rule`.
"""

from __future__ import annotations

import os
from _thread import RLock
from collections import deque
from contextvars import ContextVar, copy_context
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from costinsights.guard import busy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextvars import Token
    from decimal import Decimal
    from types import TracebackType

P = ParamSpec("P")
R = TypeVar("R")

# 15 decimals: what amounts are counted in. See costinsights.pricing.Capacity.
UNITS_PER_CURRENCY = 10**15
CONTEXT_VARIABLE = "COSTINSIGHTS_CONTEXT"
MAX_LABELS = 32
MAX_VALUE = 256


class Cost(NamedTuple):
    """What the calls of a scope have cost so far.

    `amounts` holds one `Decimal` a currency, of the calls that have a price; `unknown` of the
    `calls` have none. `basis` is the weakest of the calls' bases.
    """

    amounts: Mapping[str, Decimal]
    calls: int
    unknown: int
    basis: str

    @property
    def amount(self) -> Decimal:
        """The known amount in the one currency there is; 0 when no call has a price.

        Raises:
            ValueError: calls were priced in several currencies, which cannot be added up.
        """
        from decimal import Decimal

        if len(self.amounts) > 1:
            raise ValueError(f"several currencies ({', '.join(self.amounts)}): read .amounts")
        return next(iter(self.amounts.values()), Decimal(0))

    @property
    def currency(self) -> str | None:
        """The currency of `amount`, or None when no call has a price or there are several."""
        return next(iter(self.amounts)) if len(self.amounts) == 1 else None


class Scope:
    """Labels that hold for the calls made inside, and the sums of what those calls cost."""

    __slots__ = ("calls", "chain", "labels", "opener", "parent", "resolved", "units", "unknown")

    def __init__(
        self, labels: Mapping[str, str], parent: Scope | None, opener: object = None
    ) -> None:
        self.labels: dict[str, str] = {**parent.labels, **labels} if parent else dict(labels)
        self.parent = parent
        self.opener = opener
        # This scope and those around it, for adding a call's cost to each.
        self.chain: tuple[Scope, ...] = (self, *parent.chain) if parent else (self,)
        # The recorder's cache of finished attributions; it dies with the scope.
        self.resolved: dict[object, Any] = {}
        # What `add_up` adds to: calls, those without a price, and the known costs in 10⁻¹⁵ of
        # each currency.
        self.calls = 0
        self.unknown = 0
        self.units: dict[str, int] = {}

    def cost(self) -> Cost:
        """Return the cost of the calls so far."""
        from decimal import Decimal

        add_up()
        known = self.calls - self.unknown
        return Cost(
            amounts={
                currency: Decimal(units).scaleb(-15) for currency, units in self.units.items()
            },
            calls=self.calls,
            unknown=self.unknown,
            basis="estimated" if known and not self.unknown else "unknown",
        )


root = Scope({}, None)
_scope: ContextVar[Scope | None] = ContextVar("costinsights_scope", default=None)
innermost = _scope.get

# What calls have cost that no scope has been told yet: scope, calls, currency (None where no price
# is known) and 10⁻¹⁵ of it. Adding to the end is all that a call has to wait for.
untold: deque[tuple[Scope, int, str | None, int]] = deque()
tell = untold.append
MAX_UNTOLD = 256
_adding = RLock()


def add_up() -> None:
    """Tell the scopes, each with all those around it, what their calls have cost."""
    with _adding:
        while True:
            try:
                called_in, calls, currency, units = untold.popleft()
            except IndexError:  # nothing is left
                return
            for scope in called_in.chain:
                scope.calls += calls
                if currency is None:
                    scope.unknown += calls
                else:
                    scope.units[currency] = scope.units.get(currency, 0) + units


def unlock_after_fork() -> None:
    """Begin anew in a forked child: another thread of the parent's may have held the lock."""
    global _adding
    _adding = RLock()


def active_scope() -> Scope:
    """Return the innermost scope, or the one that stands for the whole process."""
    return _scope.get() or root


def current() -> Cost:
    """Return the cost of the enclosing scope so far; outside any scope, of the process."""
    return active_scope().cost()


def clean_labels(labels: Mapping[str, object]) -> dict[str, str]:
    """Make labels safe to keep: text, bounded, without control characters, None left out."""
    cleaned: dict[str, str] = {}
    for key, value in labels.items():
        if value is None:
            continue
        text = str(value)[:MAX_VALUE]
        if not text.isprintable():
            text = "".join(char for char in text if char.isprintable())
        cleaned[str(key)[:64]] = text
        if len(cleaned) == MAX_LABELS:
            break
    return cleaned


class attribute:  # noqa: N801  reads as a statement: ``with costinsights.attribute(asset="orders")``
    """Say who the calls inside are for, as a context manager or as a decorator.

    ``asset``, ``partition``, ``job``, ``run`` and ``team`` are the fields that reports know; any
    other keyword is a label. Scopes nest: an inner one adds to and overrides the outer one. As a
    decorator it works on functions, coroutines, generators and asynchronous generators, and the
    scope is in force only while their own code runs.

    ::

        with costinsights.attribute(asset="orders", team="growth"):
            cursor.execute("SELECT ...")
    """

    __slots__ = ("_labels",)

    def __init__(
        self,
        *,
        asset: str | None = None,
        partition: str | None = None,
        job: str | None = None,
        run: str | None = None,
        team: str | None = None,
        **labels: object,
    ) -> None:
        known = {"asset": asset, "partition": partition, "job": job, "run": run, "team": team}
        self._labels = clean_labels({**known, **labels})

    def __enter__(self) -> Scope:
        scope = Scope(self._labels, active_scope(), self)
        _scope.set(scope)
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The innermost scope of ours: one object may be entered again inside itself (recursion),
        # and by several threads and tasks at once. Where there is none it was entered in one
        # context and is left in another (a fixture, a generator): nothing is to be taken back.
        for scope in active_scope().chain:
            if scope.opener is self:
                _scope.set(scope.parent)
                break

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return `function` with each of its calls inside a scope of its own."""
        from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

        target = cast("Callable[..., Any]", function)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self:
                return target(*args, **kwargs)

        async def await_(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await target(*args, **kwargs)

        wrapper: Callable[..., Any] = call
        if iscoroutinefunction(function):
            wrapper = await_
        elif isgeneratorfunction(function):
            from costinsights.steps import stepping

            wrapper = stepping(target, lambda: _Step(self._labels))
        elif isasyncgenfunction(function):
            from costinsights.steps import stepping_async

            wrapper = stepping_async(target, lambda: _Step(self._labels))
        return cast("Callable[P, R]", wraps(target)(wrapper))


class within:  # noqa: N801  a context manager, named for what it does
    """Be inside a scope that was opened elsewhere: for what is told of later, on our own thread."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._token: Token[Scope | None] | None = None

    def __enter__(self) -> None:
        self._token = _scope.set(self._scope)

    def __exit__(self, *details: object) -> None:
        if self._token is not None:
            _scope.reset(self._token)


class _Step:
    """One scope, in force again at each step of a generator and at no other time."""

    __slots__ = ("_scope", "_token")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._scope = Scope(labels, active_scope())
        self._token: Token[Scope | None] | None = None

    def __enter__(self) -> None:
        self._token = _scope.set(self._scope)

    def __exit__(self, *details: object) -> None:
        if self._token is not None:
            _scope.reset(self._token)


class carry(Generic[P, R]):  # noqa: N801  reads as a verb: ``submit(costinsights.carry(work), item)``
    """Take the current scope along to where Python does not: threads and other processes.

    Returns a callable that runs `function` in a copy of the context that is current now: inside
    the same scope, the same orchestrator's run and the same OpenTelemetry span. It can be pickled
    when `function` can; in another process the labels come along, the sum does not.
    """

    __slots__ = ("_context", "_function", "_labels")

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self._labels = inherited_labels()
        self._context = copy_context()
        # Made inside a driver's callback, it is still no part of that driver's call.
        self._context.run(busy.set, None)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        # A copy, because two threads cannot be in one context.
        return self._context.copy().run(self._function, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _carried, (self._function, self._labels)


def _carried(function: Callable[P, R], labels: dict[str, str]) -> carry[P, R]:
    context = copy_context()
    context.run(_scope.set, Scope(labels, root))
    return context.run(carry, function)


def inherited_labels() -> dict[str, str]:
    """Return what the work of another process inherits: the scope's labels over the orchestrator's."""
    from costinsights.orchestrators import present

    context = present()
    labels = active_scope().labels
    return dict(labels) if context is None else {**context.labels, **labels}


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a copy of `environment` (or of ``os.environ``) that carries the current scope.

    Programs that are started with `subprocess` inside a scope get this by themselves.
    """
    child = dict(os.environ if environment is None else environment)
    if labels := inherited_labels():
        from json import dumps

        labels = {**carried_labels(child), **labels}
        child[CONTEXT_VARIABLE] = dumps(labels, separators=(",", ":"))
    return child


def carried_labels(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of the scope in which this process was started; none if unreadable."""
    text = environment.get(CONTEXT_VARIABLE)
    if not text:
        return {}
    from json import loads

    try:
        found = loads(text)
    except (ValueError, RecursionError):
        return {}
    return clean_labels(cast("dict[str, object]", found)) if isinstance(found, dict) else {}


def overlay(sources: Iterable[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """Lay sources, strongest first, over one another; `rule` names those that gave something."""
    labels: dict[str, str] = {}
    rules: list[str] = []
    for rule, found in sources:
        fresh = {key: value for key, value in found.items() if key not in labels}
        if fresh:
            labels.update(fresh)
            rules += rule.split("+")
    labels["rule"] = "+".join(dict.fromkeys(rules)) or "unattributed"
    return labels
