"""Finds the charge that a figure belongs to: by the system's own id, by its tag, by its statement.

Only the id is proof. A tag is the same for all calls of one asset and job, so with it the statement
and the time decide, and of several equal calls the nearest in time is taken: they are for the same
asset and job, whichever it is. Without a tag, statement, host and time are believed only where all
calls that they fit are for the same, and there are no more figures than calls: otherwise another
program ran that statement too. What stays in doubt is left alone.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Literal, NamedTuple

from costinsights.semconv import epoch_ns
from costinsights.settlement.allocation import microseconds
from costinsights.statement import parse
from costinsights.tagging import tag_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta

    from costinsights.records import Charge
    from costinsights.settlement.history import Figure

How = Literal["id", "tag", "statement"]

BATCH = "BATCH "
"""How the operation of a call begins that the driver may send as several statements."""


class Match(NamedTuple):
    """A charge, and how it was found."""

    charge: Charge
    how: How


class Matches(NamedTuple):
    """`of` gives the match of a figure by its place; `doubtful` figures fit several charges."""

    of: dict[int, Match]
    doubtful: frozenset[int]


def match(
    figures: Sequence[Figure], charges: Iterable[Charge], system: str, skew: timedelta
) -> Matches:
    """Find the charges of figures. Each figure has one charge at most.

    A charge has one figure, or as many as fit where it is a batch. `skew` is how far the clocks of
    the system and of the programs may be apart.
    """
    return _Matching(figures, charges, system, skew).work()


class _Call:
    """A charge, with its time in µs; `taken` once it has its figure."""

    __slots__ = ("batch", "charge", "end", "start", "tag", "taken")

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self.start = epoch_ns(charge.started_at) // 1000
        self.end = epoch_ns(charge.ended_at) // 1000
        self.batch = charge.operation.startswith(BATCH)
        self.tag = tag_in(charge.tag) or charge.tag
        self.taken = False


class _Bucket:
    """Calls of one kind, by their start."""

    def __init__(self, calls: Iterable[_Call]) -> None:
        self._calls = sorted(calls, key=lambda call: (call.start, call.charge.charge_id))
        self._starts = [call.start for call in self._calls]
        self._longest = max((call.end - call.start for call in self._calls), default=0)

    def around(self, moment: int, skew: int) -> list[_Call]:
        """Return the free calls that were under way at `moment`, or `skew` before or after."""
        found: list[_Call] = []
        at = bisect_right(self._starts, moment + skew)
        while at > 0 and self._starts[at - 1] >= moment - skew - self._longest:
            at -= 1
            call = self._calls[at]
            if call.end >= moment - skew and not call.taken:
                found.append(call)
        return found


class _Matching:
    def __init__(
        self, figures: Sequence[Figure], charges: Iterable[Charge], system: str, skew: timedelta
    ) -> None:
        self._figures = figures
        self._calls = sorted(
            (_Call(charge) for charge in charges),
            key=lambda call: (call.start, call.charge.charge_id),
        )
        self._system = system
        self._skew = skew.days * 86_400 * 10**6 + skew.seconds * 10**6 + skew.microseconds
        self._found: dict[int, Match] = {}
        self._shapes: dict[int, frozenset[str]] = {}
        # A program may speak to the system through another one's driver.
        self._dialects = {system, *(call.charge.system for call in self._calls)}

    def work(self) -> Matches:
        self._by_id()
        open_figures = [at for at in range(len(self._figures)) if at not in self._found]
        self._by_tag(open_figures)
        return Matches(self._found, self._by_statement(open_figures))

    def _by_id(self) -> None:
        known: dict[str, list[_Call]] = {}
        for call in self._calls:
            if call.charge.vendor_id is not None:
                known.setdefault(call.charge.vendor_id, []).append(call)
        for at, figure in enumerate(self._figures):
            for id_ in (figure.vendor_id, *figure.also):
                same = known.get(id_ or "")
                if same:
                    self._take(at, self._nearest(at, same), "id")
                    break

    def _nearest(self, at: int, same: Sequence[_Call]) -> _Call:
        """Return the call of a figure where several have its id, which is one of a place only.

        Projects, factories and workspaces may count alike. The first one, where nothing tells.
        """
        there = self._figures[at].resource

        def fits(call: _Call) -> int:
            here = call.charge.resource
            pairs = (here.namespace, there.namespace), (here.region, there.region)
            return sum(one == other for one, other in pairs if one is not None)

        return max(same, key=fits)

    def _by_tag(self, figures: Iterable[int]) -> None:
        buckets = self._buckets(lambda call: call.tag or "")
        for at in figures:
            figure = self._figures[at]
            if not figure.tag:
                continue
            bucket = buckets.get(tag_in(figure.tag) or figure.tag)
            if bucket is None:
                continue
            begun = microseconds(figure.started_at)
            fitting = [
                call for call in bucket.around(begun, self._skew) if self._could_be(at, call)
            ]
            if fitting:
                nearest = min(
                    fitting, key=lambda call: (abs(call.start - begun), call.charge.charge_id)
                )
                self._take(at, nearest, "tag")

    def _by_statement(self, figures: Iterable[int]) -> frozenset[int]:
        """Match what fits one another and nothing else; return the figures that stay in doubt."""
        buckets = self._buckets(
            lambda call: call.charge.statement.fingerprint if call.charge.statement else ""
        )
        fitting: dict[int, list[_Call]] = {}
        for at in figures:
            if at in self._found or not self._figures[at].text:
                continue
            begun = microseconds(self._figures[at].started_at)
            calls = [
                call
                for shape in sorted(self._shape(at))
                if shape in buckets
                for call in buckets[shape].around(begun, self._skew)
                if self._agree(at, call) and self._same_host(at, call)
            ]
            if calls:
                fitting[at] = calls
        doubtful: set[int] = set()
        for places in _apart(fitting):
            calls = list({id(call): call for at in places for call in fitting[at]}.values())
            certain = len(places) <= len(calls) or all(call.batch for call in calls)
            alike = all(call.charge.attribution == calls[0].charge.attribution for call in calls)
            if not (certain and alike and self._take_in_order(places, fitting)):
                doubtful.update(places)
        return frozenset(doubtful)

    def _take_in_order(self, places: Sequence[int], fitting: dict[int, list[_Call]]) -> bool:
        """Give each figure one of its calls, in their order; False where one gets none."""
        chosen: dict[int, _Call] = {}
        taken: set[int] = set()
        for at in sorted(places, key=lambda at: (self._figures[at].started_at, at)):
            begun = microseconds(self._figures[at].started_at)
            free = [call for call in fitting[at] if call.batch or id(call) not in taken]
            if not free:
                return False
            # The earliest that fits: a nearer one may be all that a later figure has.
            chosen[at] = min(
                free, key=lambda call: (call.end < begun, call.start, call.charge.charge_id)
            )
            taken.add(id(chosen[at]))
        for at, call in chosen.items():
            self._take(at, call, "statement")
        return True

    # -- what fits ------------------------------------------------------------------------------

    def _could_be(self, at: int, call: _Call) -> bool:
        """Tell whether the statements do not speak against it."""
        statement = call.charge.statement
        if statement is None or not self._figures[at].text:
            return self._agree(at, call)
        return statement.fingerprint in self._shape(at) and self._agree(at, call)

    def _agree(self, at: int, call: _Call) -> bool:
        """Tell whether a figure and a call may have the same database and no different id."""
        figure, charge = self._figures[at], call.charge
        if charge.vendor_id is not None and figure.vendor_id is not None:
            return False  # both have an id, and not the same one
        here, there = figure.resource.namespace, charge.resource.namespace
        return here is None or there is None or here.casefold() == there.casefold()

    def _same_host(self, at: int, call: _Call) -> bool:
        here, there = self._figures[at].resource.address, call.charge.resource.address
        return here is None or there is None or here.casefold() == there.casefold()

    def _shape(self, at: int) -> frozenset[str]:
        found = self._shapes.get(at)
        if found is None:
            text = self._figures[at].text or ""
            found = frozenset(parse(text, dialect).fingerprint for dialect in self._dialects)
            self._shapes[at] = found
        return found

    def _buckets(self, key: Callable[[_Call], str]) -> dict[str, _Bucket]:
        kinds: dict[str, list[_Call]] = {}
        for call in self._calls:
            if not call.taken and (kind := key(call)):
                kinds.setdefault(kind, []).append(call)
        return {kind: _Bucket(calls) for kind, calls in kinds.items()}

    def _take(self, at: int, call: _Call, how: How) -> None:
        call.taken = not call.batch
        self._found[at] = Match(call.charge, how)


def _apart(fitting: dict[int, list[_Call]]) -> list[list[int]]:
    """Return the figures in groups: those of different groups have no call in common."""
    group: dict[int, int] = {}  # of a figure or a call: another one of its group, or itself

    def first(item: int) -> int:
        while group[item] != item:
            group[item] = item = group[group[item]]
        return item

    for at, calls in fitting.items():
        place = -1 - at  # apart from the calls' ids
        group[place] = place
        for call in calls:
            group.setdefault(id(call), id(call))
            group[first(id(call))] = first(place)
    found: dict[int, list[int]] = {}
    for at in fitting:
        found.setdefault(first(-1 - at), []).append(at)
    return list(found.values())
