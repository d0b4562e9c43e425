"""The hot path: from a finished call to a durable, attributed, priced entry in the ledger.

Everything that can be known once (a statement's fingerprint, a connection's host, an attribution,
a price line) is looked up here and worked out elsewhere; what is left per call is a clock, four
dictionary look-ups, one encoding and one ``write``.
"""

from __future__ import annotations

from copy import copy
from itertools import count
from sys import modules
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any
from weakref import ref

import msgspec

from costinsights import orchestrators
from costinsights.attribution import (
    MAX_UNTOLD,
    Scope,
    active_scope,
    add_up,
    innermost,
    overlay,
    root,
    tell,
    untold,
)
from costinsights.guard import say, swallow
from costinsights.hosts import recognise
from costinsights.instrumentor import UNKNOWN_ROWS, rowcount, rows_of, size_of
from costinsights.ledger.lines import PARTIAL
from costinsights.ledger.seal import seal
from costinsights.owed import Owed
from costinsights.pricing.line import Price
from costinsights.pricing.pricer import Pricer
from costinsights.quick import entry
from costinsights.records import (
    MAX_INTEGER,
    AttributionLine,
    PriceLineRef,
    Resource,
    ResourceLine,
    StatementLine,
    decimal_text,
)
from costinsights.span import CostSpan
from costinsights.statement import ERROR_TEXT, Statement, parse
from costinsights.surroundings import is_suppressed, surrounding, traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from costinsights.hosts import Declared
    from costinsights.instrumentor import DBAPIInstrumentor, Usage
    from costinsights.ledger.writer import Writer
    from costinsights.patching import Fetch, Probe
    from costinsights.pricing import Capacity, PriceBook
    from costinsights.rules import Rule
    from costinsights.tagging import Tagger
    from costinsights.tally import Tally

_encode = msgspec.json.Encoder().encode

# A statement longer than this is known by its beginning: what is behind is data, not shape.
TEXT_LIMIT = 32 * 1024
MAX_STATEMENTS = 4096
MAX_CACHED_TEXT = 4 * 1024 * 1024
MAX_ATTRIBUTIONS = 4096

_numbers = count(1)


class Definition:
    """Something that entries refer to by number, with the sealed line that defines it."""

    __slots__ = ("line", "number")

    def __init__(self, number: int, line: bytes) -> None:
        self.number = number
        self.line = line


class References:
    """What an entry refers to: there is one object for each combination, and it is the key.

    The fields but `definitions` are the numbers that stand in the entry, 0 for none.
    """

    __slots__ = (
        "attribution",
        "definitions",
        "price",
        "resource",
        "statement",
        "target",
        "text",
        "who",
    )

    def __init__(
        self, target: Target, attribution: Definition, statement: Definition | None
    ) -> None:
        price = target.price
        self.target = target
        self.who = attribution
        self.definitions = (target, attribution, statement, price)
        self.resource = target.number
        self.attribution = attribution.number
        self.statement = 0 if statement is None else statement.number
        self.price = 0 if price is None else price.number
        # As it stands in an entry, for `usual`.
        self.text = b',"r":%d,"a":%d' % (self.resource, self.attribution)
        if self.statement:
            self.text += b',"s":%d' % self.statement
        if self.price:
            self.text += b',"p":%d' % self.price


class Target(Definition):
    """Where a connection leads, and what that costs."""

    __slots__ = (
        "capacity",
        "currency",
        "price",
        "priced",
        "pricer",
        "resource",
        "system",
        "texts",
        "words",
    )

    def __init__(
        self,
        number: int,
        line: bytes,
        system: str,
        resource: Resource,
        capacity: Capacity | None,
        price: Definition | None,
        texts: Mapping[str, tuple[Statement, Definition]],
        words: Mapping[str, str],
    ) -> None:
        super().__init__(number, line)
        self.system = system
        self.resource = resource
        self.capacity = capacity
        self.currency = None if capacity is None else capacity.currency
        self.price = price
        # The statements that are known of this kind of system, by their text.
        self.texts = texts
        # What else is known of it, in the price book's words.
        self.words = words
        # What prices a call by what it used, where nothing is paid for by the hour, and the same
        # target with each price that has come of it.
        self.pricer: Pricer | None = None
        self.priced: dict[Price, Target] = {}

    def at(self, price: Price, line: Definition) -> Target:
        """Return this target with the price that a call's usage had."""
        found = copy(self)
        found.price, found.currency = line, price.currency
        return found


class Recorder:
    """Turns calls into entries. One a process; every hook that is switched on points to it."""

    def __init__(
        self,
        writer: Writer,
        book: PriceBook,
        *,
        labels: Mapping[str, str] | None = None,
        rules: tuple[Rule, ...] = (),
        tagger: Tagger | None = None,
        resources: tuple[Declared, ...] = (),
        header: Callable[[], bytes] = bytes,
        awake: Callable[[], None] = lambda: None,
    ) -> None:
        self.writer = writer
        self.book = book
        self._header = header
        self._awake = awake
        self.tally: Tally | None = None
        """What adds up calls that are many, if there have been any."""
        self.labels = dict(labels or {})
        self.rules = rules
        self.tagger = tagger
        self.resources = resources
        # Whether nothing of a call but its scope decides who it is for.
        self.plain = tagger is None and not rules
        # What an earlier recorder found out went by other labels and rules.
        for scope in active_scope().chain:
            scope.resolved.clear()
        # Cursors whose rows are still to come, by identity.
        self.opened: dict[int, CostSpan] = {}
        # What was prepared and has not been run, by identity: it is no call yet.
        self.prepared: dict[int, tuple[ref[Any], CostSpan]] = {}
        self.owed = Owed(self)
        self.calls = count(1)
        self.targets: dict[int, tuple[ref[Any], Target]] = {}
        self._known_targets: dict[object, Target] = {}
        # By system, then by text.
        self._statements: dict[str, dict[str, tuple[Statement, Definition]]] = {}
        self._fingerprints: dict[str, Definition] = {}
        self._cached_text = 0
        # How many modules were loaded when none of them was an orchestrator.
        self.without_orchestrator = -1
        self._attributions: dict[tuple[tuple[str, str], ...], Definition] = {}
        self._prices: dict[Price, Definition] = {}
        self._references: dict[tuple[Target, Definition, Definition | None], References] = {}

    def forked(self, writer: Writer) -> None:
        """Begin anew in a forked child: calls that the parent has under way stay the parent's."""
        self.writer = writer
        if self.tally is not None:
            self.tally.abandon()
            self.tally = None
        self.calls = count(1)
        self.opened.clear()
        self.prepared.clear()
        self.owed.clear()
        for target in self._known_targets.values():
            if target.capacity is not None:
                target.capacity.reset()

    # -- one call -------------------------------------------------------------------------------

    def begin(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CostSpan | None:
        """Open a span and start its clocks; None inside somebody's own "do not trace me"."""
        context = surrounding()
        if context is not None and is_suppressed(context):
            return None
        instance = args[0] if args else None
        try:
            connection = probe.connection_of(instance)
        except (AttributeError, ReferenceError):  # a cursor that was closed, or never opened
            connection = None
        known = self.targets.get(id(connection))
        if known is not None and known[0]() is connection:
            target = known[1]
        else:
            target = self._target(probe, connection)
        if self.opened and probe.lazy:
            self.supersede(instance)
        if self.prepared and (span := self._take_up(probe, args, kwargs)) is not None:
            return span
        span = CostSpan(self, probe, target, args, kwargs)
        if probe.last_statement:
            span.before = id(getattr(instance, probe.last_statement, None))
        if context is not None:
            span.parent = traceparent(context)
            span.rare = True
        span.started_at = time_ns()
        span.started = span.resumed = now = perf_counter_ns()
        if target.capacity is not None:
            span.entered = target.capacity.enter(now)
        return span

    def late(
        self,
        probe: Probe,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parent: str | None,
        started_at: int,
    ) -> CostSpan:
        """Return the span of a call that is over, and that turned out not to be a usual one."""
        span = CostSpan(self, probe, target, args, kwargs)
        span.started_at = started_at
        if parent is not None:
            span.parent = parent
            span.rare = True
        return span

    def leave_open(
        self,
        span: CostSpan,
        cursor: object,
        result: object,
        found: tuple[Statement, Definition],
        scope: Scope,
        refers: References,
        rows: int | None,
        words: dict[str, Any] | None,
    ) -> None:
        """Write the entry of a usual call whose rows are still to come."""
        span.number = next(self.calls)
        span.statement, span.definition = found
        span.scope, span.refers, span.attribution = scope, refers, refers.who
        span.rows = rows
        if words is not None:
            span.extra, span.rare = words, True
        if span.probe.follows:
            self._follow(span, cursor, result)
        self._open(span, cursor)
        span.args = span.kwargs = None
        span.done = not span.partial
        self._write(span)

    def resume(self, span: CostSpan) -> None:
        """Let the span's clocks run again."""
        if span.running or span.done:
            return
        span.running = True
        span.resumed = now = perf_counter_ns()
        if span.target.capacity is not None:
            span.entered = span.target.capacity.enter(now)

    def pause(self, span: CostSpan) -> None:
        """Stop the span's clocks and add what they showed."""
        if not span.running:
            return
        span.running = False
        span.ended = now = perf_counter_ns()
        span.duration += now - span.resumed
        if span.target.capacity is not None:
            span.share += span.target.capacity.leave(now, span.entered)

    def end(
        self,
        span: CostSpan,
        result: object,
        error: BaseException | None,
        usage: Usage | None = None,
    ) -> None:
        """Close the call: the entry is on disk when this returns. `usage` was asked for already."""
        if span.running:  # `pause`, written out
            span.running = False
            span.ended = now = perf_counter_ns()
            span.duration += now - span.resumed
            capacity = span.target.capacity
            if capacity is not None:
                span.share += capacity.leave(now, span.entered)
        probe = span.probe
        if not span.number:
            self._describe(span)
        cursor = span.args[0] if span.args else None
        if probe.prepares and error is None and result is not None:
            if probe.instrumentor.prepared(span.args or (), span.kwargs or {}, result):
                self._put_by(span, result)
                return
            cursor = result
        if probe.batch is not None:
            self._batch(span, _argument(span, probe.batch))
        if error is not None:
            span.note("e", describe_error(error, span.probe.instrumentor))
            last = probe.last_statement
            if probe.follows and not (last and span.before == id(getattr(cursor, last, None))):
                self._follow(span, cursor, None)
                self._finish(span)
        elif (
            probe.deferred
            and (tokens := probe.instrumentor.owed(cursor)) != ()
            and self.owed.add(span, cursor, tokens)
        ):
            pass  # the answers will be counted when they come
        elif probe.rows is not None:
            span.rows = probe.rows(cursor, result)
        elif probe.counts_rows:
            # Nearly every call comes this way: the cursor's own count, and nothing more.
            rows = getattr(cursor, "rowcount", -1)
            if rows.__class__ is int and 0 <= rows < UNKNOWN_ROWS:
                span.rows = rows  # `rowcount`, written out
        else:
            self._use(span, usage or self._asked(span, probe.instrumentor.usage, cursor, result))
        opens = probe.lazy or probe.prepares
        if opens and error is None and probe.instrumentor.has_rows(cursor, result):
            if probe.follows:
                self._follow(span, cursor, result)
            self._open(span, cursor)
        elif span.key:
            self._close(span)
        span.args = span.kwargs = None  # the parameters are the program's, and not kept alive
        span.done = not span.partial
        self._write(span)

    def _put_by(self, span: CostSpan, result: Any) -> None:
        key = id(result)
        span.args = span.kwargs = None
        self.prepared[key] = ref(result, lambda _: self.prepared.pop(key, None)), span

    def _take_up(
        self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> CostSpan | None:
        """Return the span of what was prepared and is now to be run, with its clocks running."""
        if not probe.begins or not args or (known := self.prepared.get(id(args[0]))) is None:
            return None
        del self.prepared[id(args[0])]
        span = known[1]
        span.probe, span.args, span.kwargs = probe, args, kwargs
        if probe.operation is not None:
            span.note("o", probe.operation)
        self.resume(span)
        return span

    def _batch(self, span: CostSpan, sets: object) -> None:
        size = size_of(sets)
        if size is None:
            return
        span.note("u", {"batch_size": size})
        if size > 1 and span.statement is not None:
            kind = span.probe.hook.operation or span.statement.operation
            span.note("o", f"BATCH {kind}".rstrip())

    def _asked(
        self, span: CostSpan, question: Callable[..., Usage | None], *about: object
    ) -> Usage | None:
        """Ask a plug-in what a call used; one that fails at that loses the figures, not the call."""
        try:
            return question(*about)
        except Exception as error:  # noqa: BLE001  the call is charged for all the same
            swallow(f"the usage of {span.probe.hook.target}", error)
            return None

    def _follow(self, span: CostSpan, cursor: object, result: object) -> None:
        """Keep what has the figures that are final only with the result's last row."""
        try:
            span.source = span.probe.instrumentor.source(cursor, result)
        except Exception as error:  # noqa: BLE001  the call is charged for all the same
            swallow(f"the usage of {span.probe.hook.target}", error)

    def _finish(self, span: CostSpan) -> None:
        """Read the final figures, once."""
        source, span.source = span.source, None
        if source is not None:
            usage = self._asked(span, span.probe.instrumentor.final, source)
            if usage is not None:
                span.changed = True
                self._use(span, usage)

    def _use(self, span: CostSpan, usage: Usage | None) -> None:
        if usage is None:
            return
        if usage.rows is not None:
            span.rows = usage.rows
        if usage.meters:
            known = None if span.extra is None else span.extra.get("u")
            span.note("u", dict(usage.meters) if known is None else {**known, **usage.meters})
            if span.target.pricer is not None:
                try:
                    self._price_usage(span, span.target.pricer, usage.meters)
                except Exception as error:  # noqa: BLE001  the usage is kept, and can be priced later
                    swallow(f"the price of {span.probe.hook.target}", error)
        if usage.vendor_id is not None:
            span.note("i", usage.vendor_id)

    def _price_usage(
        self, span: CostSpan, pricer: Pricer, meters: Mapping[str, int | float | str]
    ) -> None:
        priced = pricer(meters)
        if priced is not None:
            span.target = self.priced(span.target, priced.price)
            span.amount = priced.amount
            if span.probe.instrumentor.basis != "estimated":
                span.note("b", span.probe.instrumentor.basis)

    def delivered(self, span: CostSpan) -> None:
        """Count one row that a generator is about to hand out; the first writes the entry."""
        span.rows = (span.rows or 0) + 1
        span.changed = True
        if span.counted is None:
            self._describe(span)
            span.args = span.kwargs = None
            span.partial = span.rare = True
            self._write(span)

    def fetched(
        self,
        span: CostSpan,
        how: Fetch | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        error: BaseException | None,
    ) -> None:
        """Add what a fetch brought; complete the span when nothing is left."""
        self.pause(span)
        span.changed = True
        if how == "part":
            return
        if error is not None:
            if how == "next" and isinstance(error, (StopIteration, StopAsyncIteration)):
                span.rows = span.rows or 0
                self.complete(span, None)
            elif how != "close":  # one that cannot be closed is still open
                self.complete(span, error)
            return
        if how == "close":
            self.complete(span, None, partial=True)
            return
        cursor = args[0]
        got = rowcount(cursor) if how == "set" and result else _rows_in(how, result)
        if got is not None:
            span.rows = (span.rows or 0) + got
        unread = span.probe.instrumentor.unread(cursor)
        if unread is None:  # the driver does not tell: a fetch that brought all it could does
            unread = how in ("one", "next") and got == 1
            unread = unread or (how == "set" and bool(result))
            if got:
                unread = unread or (how == "page" and args[1] is not None and got >= args[1])
                # A relation that is fetched from again after its end would be run again.
                asked = 1 if span.probe.begins else _asked(cursor, args, kwargs)
                unread = unread or (how == "many" and got >= asked)
        if not unread:
            self.complete(span, None)

    def complete(
        self, span: CostSpan, error: BaseException | None, *, partial: bool = False
    ) -> None:
        """Write the last figures of a span, once; `partial` when rows were left unread."""
        if span.done:
            return
        self.pause(span)
        span.done = span.rare = True
        span.partial = partial
        if span.source is not None:
            self._finish(span)
        self._close(span)
        if error is not None:
            span.note("e", describe_error(error, span.probe.instrumentor))
        if span.counted is None:
            self._describe(span)
            span.args = span.kwargs = None
        elif partial and not span.changed:
            return  # what is on disk is already all that is known
        span.changed = False
        self._write(span)

    # -- results whose rows are still to come ---------------------------------------------------

    def opened_by(self, cursor: object) -> CostSpan | None:
        """Return the span whose rows `cursor` still has to bring."""
        span = self.opened.get(id(cursor))
        if span is None or (span.cursor is not None and span.cursor() is not cursor):
            return None
        return span

    def _open(self, span: CostSpan, cursor: object) -> None:
        key = id(cursor)

        def dropped(_: object) -> None:
            if self.opened.get(key) is span:
                del self.opened[key]
                try:
                    self.complete(span, None, partial=True)
                except Exception as error:  # noqa: BLE001  in a finaliser nobody could catch it
                    swallow("a dropped cursor", error)

        try:
            span.cursor = ref(cursor, dropped)
        except TypeError:
            # One that cannot be followed says itself when it goes, if its finaliser is hooked;
            # otherwise the span ends here, with what is known.
            if not hasattr(getattr(type(cursor), "__del__", None), "__costinsights__"):
                return
        span.partial = True
        span.key = key
        self.opened[key] = span

    def lend(self, span: CostSpan) -> None:
        """Stop the clocks, until a method that works on the same cursor runs them, or `end`."""
        self.pause(span)
        cursor = span.args[0] if span.args else None
        span.cursor = ref(cursor)
        span.key = id(cursor)
        self.opened[span.key] = span

    def _close(self, span: CostSpan) -> None:
        if self.opened.get(span.key) is span:
            del self.opened[span.key]
        span.cursor, span.key = None, 0

    def supersede(self, cursor: object) -> None:
        """A cursor runs its next statement: the rows of the last one will never be read."""
        span = self.opened.get(id(cursor))
        if span is None:
            return
        if span.changed or span.running or span.source is not None or span.cursor is None:
            span = self.opened_by(cursor)
            if span is not None:
                self.complete(span, None, partial=True)
        elif span.cursor() is cursor:  # what is on disk is all that is known: `complete`, in short
            del self.opened[span.key]
            span.cursor, span.key = None, 0
            span.done = True

    # -- what a span says -----------------------------------------------------------------------

    def _describe(self, span: CostSpan) -> None:
        """Say once what the span is: its statement, who it is for, and what entries refer to."""
        if span.number:
            return  # when it was prepared
        span.number = next(self.calls)
        span.scope = scope = innermost() or root
        probe, target, args = span.probe, span.target, span.args
        if self.plain and probe.plain and len(modules) == self.without_orchestrator:
            # As nearly always: a text that was seen before, in a scope that knows it. The rest of
            # this method says what that stands for.
            position = probe.position
            query: Any = args[position] if args and len(args) > position else None
            if query.__class__ is str and (known := target.texts.get(query)) is not None:
                refers = scope.resolved.get((target, known[1]))
                if refers is not None and not known[0].comment:
                    span.statement, span.definition = known
                    span.refers, span.attribution = refers, refers.who
                    return
        statement = definition = None
        if probe.statement is not None:
            position, name = probe.statement
            args = span.args or ()
            query = args[position] if len(args) > position else (span.kwargs or {}).get(name)
            if query is not None:
                if probe.prefix and query.__class__ is str:
                    query = probe.prefix + query
                known = span.target.texts.get(query) if query.__class__ is str else None
                statement, definition = known or self._statement(span, query)
        span.statement, span.definition = statement, definition
        if probe.operation is not None:
            span.note("o", probe.operation)
        # What an attribution depends on; None where, as mostly, that is the scope alone.
        key: object = None
        if len(modules) != self.without_orchestrator:
            key = self.orchestrator()
        if self.rules:
            key = (key, statement, span.target, probe.operation)
        elif statement is not None and statement.comment:
            key = (key, statement)
        found = scope.resolved.get(key)
        if found is None:
            found = self._attribute(scope, key, statement, target, probe.name, probe.operation)
        span.attribution = found
        span.refers = self.refer(target, found, definition)
        if key is None:  # for `usual` and `starts`, which ask no further then
            scope.resolved[target, definition] = span.refers
        if self.tagger is not None and (tag := self.tagger.tag(span, self.labels)) is not None:
            span.note("g", tag)

    def _statement(self, span: CostSpan, query: Any) -> tuple[Statement | None, Definition | None]:
        if query.__class__ is not str:
            query = self._text(span, query)
            if query is None:
                return None, None
        if len(query) > TEXT_LIMIT:
            query = query[:TEXT_LIMIT]
        system = span.target.system
        statements = self._texts(system)
        known = statements.get(query)
        if known is not None:
            return known
        statement = parse(query, system)
        definition = self._fingerprints.get(statement.fingerprint)
        if definition is None:
            number = next(_numbers)
            line = StatementLine(
                number,
                statement.fingerprint,
                statement.operation,
                statement.summary,
                statement.text,
            )
            definition = Definition(number, seal(_encode(line)))
            if len(self._fingerprints) >= MAX_STATEMENTS:
                self._fingerprints.clear()
            self._fingerprints[statement.fingerprint] = definition
        if statement.text == ERROR_TEXT:  # the stack was at its end, and will not be next time
            return statement, definition
        if len(statements) >= MAX_STATEMENTS or self._cached_text + len(query) > MAX_CACHED_TEXT:
            for texts in self._statements.values():
                texts.clear()
            self._cached_text = 0
        self._cached_text += len(query)
        statements[query] = statement, definition
        return statement, definition

    def _texts(self, system: str) -> dict[str, tuple[Statement, Definition]]:
        texts = self._statements.get(system)
        if texts is None:
            texts = self._statements[system] = {}
        return texts

    def orchestrator(self) -> object:
        """Ask who runs; where none is loaded, not again before another module has been."""
        found = orchestrators.present()
        if found is None and not orchestrators.may_be_present():
            self.without_orchestrator = len(modules)
        return found

    def _text(self, span: CostSpan, query: Any) -> str | None:
        try:
            return span.probe.instrumentor.text(query, span.args[0] if span.args else None)
        except Exception as error:  # noqa: BLE001  the call is charged for all the same
            swallow(f"the text of {span.probe.hook.target}", error)
            return None

    def _target(self, probe: Probe, connection: object) -> Target:
        instrumentor = probe.instrumentor
        facts, system = Resource(), instrumentor.system
        if connection is not None:
            facts = instrumentor.resource(connection)
            system = instrumentor.system_of(connection)
            if (region := instrumentor.region(connection)) is not None:
                facts = msgspec.structs.replace(facts, region=region)
        known = (system, instrumentor.name, facts)
        target = self._known_targets.get(known)
        if target is None:
            target = self._new_target(instrumentor.name, system, facts)
            if target.capacity is None and instrumentor.meters:
                words = {**target.words, **instrumentor.dimensions(connection)}
                target.pricer = Pricer(self.book, target.system, target.resource.region, words, say)
            self._know(known, target)
        key = id(connection)
        try:
            self.targets[key] = ref(connection, lambda _: self.targets.pop(key, None)), target
        except TypeError:
            return target  # a connection that cannot be followed is asked again each time
        return target

    def _know(self, key: object, target: Target) -> None:
        if len(self._known_targets) >= MAX_STATEMENTS:
            self._known_targets.clear()
        self._known_targets[key] = target

    def _new_target(self, instrumentor: str, system: str, facts: Resource) -> Target:
        found = recognise(system, facts, self.resources)
        system = found.system
        facts = msgspec.structs.replace(facts, service=found.service, region=found.region)
        number = next(_numbers)
        line = ResourceLine(
            number,
            system,
            instrumentor,
            facts.address,
            facts.port,
            facts.namespace,
            facts.service,
            facts.region,
        )
        capacity = self.book.capacity_for(
            system, facts.address, facts.port, facts.namespace, facts.service
        )
        price = None if capacity is None else self._capacity_price(capacity)
        texts, words = self._texts(system), found.dimensions
        return Target(number, seal(_encode(line)), system, facts, capacity, price, texts, words)

    def priced(self, target: Target, price: Price) -> Target:
        """Return the target with the price that calls to it had."""
        found = target.priced.get(price)
        if found is None:
            if len(target.priced) >= MAX_STATEMENTS:
                target.priced.clear()
            found = target.priced[price] = target.at(price, self._price(price))
        return found

    def _capacity_price(self, capacity: Capacity) -> Definition:
        line = capacity.line
        return self._price(
            Price(line.key, line.price_text, line.unit, line.currency, line.source, str(line.as_of))
        )

    def _price(self, price: Price) -> Definition:
        known = self._prices.get(price)
        if known is None:
            number = next(_numbers)
            line = PriceLineRef(number, *price, book=self.book.version)
            if len(self._prices) >= MAX_STATEMENTS:
                self._prices.clear()
            known = self._prices[price] = Definition(number, seal(_encode(line)))
        return known

    def _attribute(
        self,
        scope: Scope,
        key: object,
        statement: Statement | None,
        target: Target,
        name: str,
        operation: str | None,
    ) -> Definition:
        labels = overlay(self._sources(scope, statement, target, name, operation))
        content = tuple(sorted(labels.items()))
        found = self._attributions.get(content)
        if found is None:
            number = next(_numbers)
            found = Definition(number, seal(_encode(AttributionLine(number, labels))))
            if len(self._attributions) >= MAX_ATTRIBUTIONS:
                self._attributions.clear()
            self._attributions[content] = found
        if len(scope.resolved) >= MAX_ATTRIBUTIONS:
            scope.resolved.clear()
        scope.resolved[key] = found
        return found

    def _sources(
        self,
        scope: Scope,
        statement: Statement | None,
        target: Target,
        name: str,
        operation: str | None,
    ) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield what each source says, strongest first."""
        yield "scope", scope.labels
        if statement is not None and statement.comment:
            comment = dict(statement.comment)
            yield comment.pop("rule", "comment"), comment
        context = orchestrators.present()
        if context is not None:
            yield context.rule, context.labels
        yield "environment", self.labels
        for rule in self.rules:
            if rule.matches(
                target.system,
                target.resource,
                statement,
                instrumentor=name,
                operation=operation,
            ):
                yield f"rule:{rule.name}", rule.labels

    # -- calls that are added up ----------------------------------------------------------------

    def tallied(self) -> Tally:
        """Return what adds up calls that are many; it is made with the first of them."""
        if self.tally is None:
            from costinsights.tally import Tally

            self.tally = Tally(self, self._header, self._awake)
        return self.tally

    def place(self, instrumentor: str, system: str, facts: Resource) -> Target:
        """Return where calls go that are priced by what is added up."""
        known = (system, instrumentor, facts)
        target = self._known_targets.get(known)
        if target is None:
            target = self._new_target(instrumentor, system, facts)
            self._know(known, target)
        return target

    def who(
        self, scope: Scope, context: object, target: Target, name: str, operation: str
    ) -> Definition:
        """Return who such calls are for, here and now; `context` is what `orchestrator` says."""
        key = (context, None, target, operation) if self.rules else context
        found: Definition | None = scope.resolved.get(key)
        return found or self._attribute(scope, key, None, target, name, operation)

    # -- the entry ------------------------------------------------------------------------------

    def _write(self, span: CostSpan) -> None:
        """Write what is known of the span as one entry, and note what it costs its scopes."""
        target = span.target
        refers = span.refers
        if refers.target is not target:  # which has got a price since
            refers = self.refer(target, span.attribution, span.definition)
        share, capacity = span.share, target.capacity
        amount: int | None
        if capacity is not None:
            amount = share * capacity.numerator // capacity.denominator  # `units`, written out
        else:
            amount = span.amount
        number, words = amount, None
        if span.rare or (amount is not None and amount >= MAX_INTEGER):
            words = self._words(span)
            if amount is not None and amount >= MAX_INTEGER:
                number, words["f"], words["m"] = None, share, decimal_text(amount)
        line = entry(
            span.number,
            span.started_at,
            span.duration,
            refers.text,
            span.rows,
            share,
            number,
            words,
            PARTIAL if span.partial else b"",
        )
        told = span.counted
        span.counted = amount or 0
        self.writer.append(line, refers, refers.definitions)
        # The scopes are told later, many calls at once: see `attribution.add_up`.
        if told is None:
            tell((span.scope, 1, target.currency, amount or 0))
        else:
            tell((span.scope, 0, target.currency, (amount or 0) - told))
        if len(untold) > MAX_UNTOLD:
            add_up()

    def refer(
        self, target: Target, attribution: Definition, definition: Definition | None = None
    ) -> References:
        """Return what an entry refers to that has these."""
        found = self._references.get((target, attribution, definition))
        if found is None:
            if len(self._references) >= MAX_STATEMENTS:
                self._references.clear()
            found = References(target, attribution, definition)
            self._references[target, attribution, definition] = found
        return found

    def _words(self, span: CostSpan) -> dict[str, Any]:
        """Return what its entry says that usual ones do not, by `records.EntryLine`'s names."""
        words = dict(span.extra) if span.extra else {}
        if span.parent is not None:
            words["x"] = span.parent
        if span.counted is not None:
            span.revision += 1
            words["v"] = span.revision
        elapsed = span.ended - span.started
        if elapsed > span.duration:
            words["y"] = elapsed
        return words


def describe_error(error: BaseException, instrumentor: DBAPIInstrumentor) -> tuple[str, str | None]:
    """Return an exception's type and SQLSTATE, never its text: drivers put SQL into it."""
    kind = type(error)
    module = kind.__module__
    name = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    return name, instrumentor.sqlstate(error)


def _argument(span: CostSpan, where: tuple[int, str]) -> Any:
    position, name = where
    if span.args and len(span.args) > position:
        return span.args[position]
    return span.kwargs.get(name) if span.kwargs else None


def _asked(cursor: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return how many rows a ``fetchmany`` asked for."""
    size: Any = args[1] if len(args) > 1 else kwargs.get("size")
    return size if isinstance(size, int) and size else getattr(cursor, "arraysize", 1)


def _rows_in(how: Fetch | None, result: Any) -> int | None:
    if result is None or how == "set":
        return 0
    if how in ("one", "next"):
        return 1
    return rows_of(result)
