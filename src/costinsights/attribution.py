"""Who a call is for: scopes that the program opens, and the sources that are asked after them.

Order of precedence, field by field: an explicit scope, a comment in the statement (dbt,
sqlcommenter), the orchestrator in the process (Dagster, Airflow, Prefect), the environment, the
rules of the configuration. The record says which of them decided, in `rule`.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextvars import Token
    from decimal import Decimal
    from types import TracebackType

P = ParamSpec("P")
R = TypeVar("R")

# 15 decimals: what amounts are counted in. See costinsights.pricing.Capacity.
UNITS_PER_CURRENCY = 10**15
CONTEXT_VARIABLE = "COSTINSIGHTS_CONTEXT"
LABELS_VARIABLE = "COSTINSIGHTS_LABELS"
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
    """Labels that hold for the calls made inside, and the sum of what those calls cost."""

    __slots__ = ("_units", "calls", "chain", "labels", "parent", "resolved", "unknown")

    def __init__(self, labels: Mapping[str, str], parent: Scope | None) -> None:
        self.labels: dict[str, str] = {**parent.labels, **labels} if parent else dict(labels)
        self.parent = parent
        # This scope and those around it, for adding a call's cost to each.
        self.chain: tuple[Scope, ...] = (self, *parent.chain) if parent else (self,)
        # The recorder's cache of finished attributions; it dies with the scope.
        self.resolved: dict[object, Any] = {}
        self.calls = 0
        self.unknown = 0
        self._units: dict[str, int] = {}

    def add(self, currency: str | None, units: int, calls: int) -> None:
        """Count a call, or with ``calls=0`` a later figure of one; `units` of 10⁻¹⁵ currency."""
        self.calls += calls
        if currency is None:
            self.unknown += calls
        else:
            self._units[currency] = self._units.get(currency, 0) + units

    def cost(self) -> Cost:
        """Return the cost of the calls so far."""
        from decimal import Decimal

        known = self.calls - self.unknown
        return Cost(
            amounts={
                currency: Decimal(units).scaleb(-15) for currency, units in self._units.items()
            },
            calls=self.calls,
            unknown=self.unknown,
            basis="estimated" if known and not self.unknown else "unknown",
        )


root = Scope({}, None)
_scope: ContextVar[Scope | None] = ContextVar("costinsights_scope", default=None)


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

    __slots__ = ("_entered", "_labels")

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
        # A stack, because one object may be entered again inside itself (recursion).
        self._entered: list[Token[Scope | None]] = []

    def __enter__(self) -> Scope:
        scope = Scope(self._labels, active_scope())
        self._entered.append(_scope.set(scope))
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        token = self._entered.pop()
        try:
            _scope.reset(token)
        except ValueError:
            # Entered in one context and left in another (a fixture, a generator run by several
            # tasks): there is nothing of ours to take back here.
            pass

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

        labels = self._labels
        target = cast("Callable[..., Any]", function)
        wrapper: Callable[..., Any]
        if iscoroutinefunction(function):

            @wraps(function)
            async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                with attribute(**labels):
                    return await target(*args, **kwargs)

        elif isasyncgenfunction(function):

            @wraps(function)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                from costinsights.steps import stepped_async

                return stepped_async(target(*args, **kwargs), _Step(labels))

        elif isgeneratorfunction(function):

            @wraps(function)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                from costinsights.steps import stepped

                return (yield from stepped(target(*args, **kwargs), _Step(labels)))

        else:

            @wraps(function)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                with attribute(**labels):
                    return target(*args, **kwargs)

        return cast("Callable[P, R]", wrapper)


class _Step:
    """One scope, in force again at each step of a generator and at no other time."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._scope = Scope(labels, active_scope())
        self._token: Token[Scope | None] | None = None

    def __enter__(self) -> None:
        self._token = _scope.set(self._scope)

    def __exit__(self, *details: object) -> None:
        if self._token is not None:
            _scope.reset(self._token)


class carry:  # noqa: N801  reads as a verb: ``executor.submit(costinsights.carry(work), item)``
    """Take the current scope along to where Python does not: threads and other processes.

    Returns a callable that runs `function` inside the scope that is current now. It can be
    pickled when `function` can; in another process the labels come along, the sum does not.
    """

    __slots__ = ("_function", "_scope")

    def __init__(self, function: Callable[..., R]) -> None:
        self._function = function
        self._scope = active_scope()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        token = _scope.set(self._scope)
        try:
            return self._function(*args, **kwargs)
        finally:
            _scope.reset(token)

    def __reduce__(self) -> tuple[Any, ...]:
        return _carried, (self._function, self._scope.labels)


def _carried(function: Callable[..., Any], labels: dict[str, str]) -> carry:
    carried = carry(function)
    carried._scope = Scope(labels, root)  # pyright: ignore[reportPrivateUsage]
    return carried


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a copy of `environment` (or of ``os.environ``) that carries the current scope.

    Programs that are started with `subprocess` inside a scope get this by themselves.
    """
    child = dict(os.environ if environment is None else environment)
    if labels := active_scope().labels:
        from json import dumps

        child[CONTEXT_VARIABLE] = dumps(labels, separators=(",", ":"))
    return child


def environment_labels() -> dict[str, str]:
    """Read the labels that the environment gives: those of a parent's scope over the user's.

    ``COSTINSIGHTS_LABELS`` is ``team=growth,job=nightly``; what cannot be read is left out.
    """
    labels: dict[str, str] = {}
    for pair in os.environ.get(LABELS_VARIABLE, "").split(","):
        key, sign, value = pair.partition("=")
        if sign and key.strip():
            labels[key.strip()] = value.strip()
    if carried := os.environ.get(CONTEXT_VARIABLE):
        from json import loads

        try:
            found = loads(carried)
        except ValueError:
            found = None
        if isinstance(found, dict):
            labels.update(cast("dict[str, str]", found))
    return clean_labels(labels)


def overlay(sources: Iterator[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """Lay sources, strongest first, over one another; `rule` names those that gave something."""
    labels: dict[str, str] = {}
    rules: list[str] = []
    for rule, found in sources:
        fresh = {key: value for key, value in found.items() if key not in labels}
        if fresh:
            labels.update(fresh)
            rules.append(rule)
    labels["rule"] = "+".join(rules) or "unattributed"
    return labels
