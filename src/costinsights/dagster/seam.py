"""Where costs get onto Dagster's own events, inside a run.

While a step hands over an output, Dagster asks ``OutputContext.has_asset_key`` right before it makes
the asset's event, when the I/O manager has done its work. There is no other public place at that
moment. So this public property is wrapped, in place and reversibly: it answers as before, and what
the step has cost is put into the event with ``AssetExecutionContext.add_asset_metadata``.

What comes later, or could not be read in time, is told when the step is over, as an observation:
`DagsterInstance.add_event_listener` says when.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from dagster import (
    AssetExecutionContext,
    DagsterEventType,
    DagsterInstance,
    DagsterInvariantViolationError,
    OpExecutionContext,
    OutputContext,
)

from costinsights import children, orchestrators
from costinsights.dagster.figures import Figures
from costinsights.dagster.metadata import About, described, told
from costinsights.dagster.places import Hold
from costinsights.dagster.step import Step, add_to, budget, facts_of
from costinsights.dagster.tail import Tail
from costinsights.dagster.targets import Target
from costinsights.dagster.teller import PATIENCE_SECONDS, Teller
from costinsights.dagster.told import Key, Log
from costinsights.guard import suppressed, swallow

if TYPE_CHECKING:
    from dagster import AssetMaterialization, AssetObservation, EventLogEntry

    from costinsights.orchestrators import Context

_OVER = frozenset(
    {
        DagsterEventType.STEP_SUCCESS.value,
        DagsterEventType.STEP_FAILURE.value,
        DagsterEventType.STEP_UP_FOR_RETRY.value,
    }
)
_ASKED = "has_asset_key"
_HELD_SECONDS = 5.0
MOST_INSTANCES = 8


current: Seam | None = None
"""The one that is at work in this process."""


class Seam:
    """All that is done inside runs of this process."""

    def __init__(self, ledger: str, report_url: str) -> None:
        self.tail = Tail(ledger)
        self.teller = Teller()
        self._ledger = ledger
        self.report_url = report_url
        self._steps: dict[tuple[str, str], Step] = {}
        self._heard: set[tuple[int, str]] = set()
        self._lock = threading.Lock()
        self._instances: dict[int, tuple[DagsterInstance, DagsterInstance]] = {}
        self._original: property | None = None
        self._ours: property | None = None

    # -- on and off -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Take up the place."""
        if self._original is not None:
            return
        original: property = OutputContext.__dict__[_ASKED]
        ask = original.fget
        if ask is None:
            return

        def has_asset_key(output: OutputContext) -> bool:
            found: bool = ask(output)
            if found:
                self._before_the_event(output)
            return found

        has_asset_key.__doc__ = original.__doc__
        self._original, self._ours = original, property(has_asset_key, doc=original.__doc__)
        setattr(OutputContext, _ASKED, self._ours)
        orchestrators.begun.append(self.begun)
        global current
        current = self

    def end(self) -> None:
        """Put back what was there, unless somebody has since put something else."""
        global current
        current = None
        if self._original is not None:
            if OutputContext.__dict__[_ASKED] is self._ours:
                setattr(OutputContext, _ASKED, self._original)
                self._original = None
            if self.begun in orchestrators.begun:
                orchestrators.begun.remove(self.begun)
        self.teller.wait(PATIENCE_SECONDS)
        for _, own in self._instances.values():
            own.dispose()
        self._instances.clear()

    def forked(self) -> None:
        """Begin anew in a forked child: the steps under way, and who holds a lock, are the parent's."""
        self.tail = Tail(self._ledger)
        self._steps = {}
        self._instances = {}
        self._lock = threading.Lock()

    # -- on the run's thread --------------------------------------------------------------------

    def begun(self, work: OpExecutionContext, context: Context) -> None:
        """Take note of a piece of work that is about to cost something."""
        with suppressed():
            facts = facts_of(work, context.labels)
            key = facts.run, facts.step
            step = self._steps.get(key)
            if step is None:
                step = Step(work, facts)
                step.check = context.labels.get("check", "")
                self._steps[key] = step
            else:
                step.again(work, facts.attempt)
            self._listen(step)
            if step.hold is None:
                try:
                    step.hold = Hold(self._ledger, facts)
                except OSError as error:
                    swallow("dagster's step", error)

    def step_of(self, run: str, step: str) -> Step | None:
        """Return a step that is under way here, once something has been asked of it."""
        return self._steps.get((run, step))

    def about(self, step: Step) -> About:
        """Return what the events of a step are about."""
        return About(step.facts.run, step.facts.step, step.facts.job, step.check)

    def _listen(self, step: Step) -> None:
        run = step.facts.run
        key = id(step.instance), run
        with self._lock:
            if key in self._heard:
                return
            self._heard.add(key)
        # Dagster gives the listener no type.
        step.instance.add_event_listener(run, self._heard_of)  # pyright: ignore[reportUnknownMemberType]

    def _before_the_event(self, output: OutputContext) -> None:
        """Put what the step has cost so far into the event that Dagster is about to make."""
        try:
            if self._steps:
                with suppressed():
                    self._add(output)
        except DagsterInvariantViolationError:
            return  # an output that is of no run, made by hand
        except Exception as error:  # noqa: BLE001  the step goes on, and its costs come later
            swallow("dagster's metadata", error)

    def _add(self, output: OutputContext) -> None:
        step = self._steps.get((output.run_id, output.step_key))
        if step is None or step.work() is not OpExecutionContext.get():
            return  # nothing has been asked of it, or it is the output of an earlier step
        asset = output.asset_key.to_user_string()
        own = step.facts.assets.get(asset)
        if own is None:
            return
        made = output.asset_partition_keys if output.has_asset_partitions else ()
        if len(made) != len(own):
            return  # other partitions than the run's: told when the step is over
        mine = budget()
        paths = self.tail.own()
        if children.started:
            paths = list({*paths, *self.tail.others(step.since, slack=0.0)})
        if not self.tail.catch_up(paths, mine) or step.facts.run in self.tail.unsure:
            return
        alike, apart, split = step.spent_on(asset, self.tail)
        if not alike and not apart:
            return
        context = AssetExecutionContext.get()
        about = self.about(step)

        def add(figures: Figures, partition: str | None) -> None:
            metadata = described(figures, about, asset, split=split, report_url=self.report_url)
            context.add_asset_metadata(metadata, output.asset_key, partition)

        if alike:
            add(alike, None)
        for partition, figures in apart.items():
            figures.merge(alike)
            add(figures, partition if len(own) > 1 else None)

    # -- what is heard of events that are stored ------------------------------------------------

    def _heard_of(self, event: EventLogEntry) -> None:
        try:
            self._hear(event)
        except Exception as error:  # noqa: BLE001  the run goes on
            swallow("dagster's events", error)

    def _hear(self, event: EventLogEntry) -> None:
        if not event.is_dagster_event or event.step_key is None:
            return
        key = event.run_id, event.step_key
        step = self._steps.get(key)
        if step is None:
            return
        kind = event.get_dagster_event().event_type_value
        if kind in _OVER:
            attempts, already = step.attempt, add_to({}, step.told)
            final = kind != DagsterEventType.STEP_UP_FOR_RETRY.value
            if final:
                self._steps.pop(key, None)
            self.teller.submit(lambda: self._settle(step, attempts, already, final=final))
            return
        one: AssetMaterialization | AssetObservation | None = (
            event.asset_materialization or event.asset_observation
        )
        if one is not None:
            found = told(one.metadata)
            if found is not None:
                step.note(Target(one.asset_key.to_user_string(), one.partition), found)

    # -- on our own thread ----------------------------------------------------------------------

    def _settle(
        self, step: Step, attempts: int, already: dict[Target, Figures], *, final: bool
    ) -> None:
        """Tell what is left of a step, or of an attempt, that is over."""
        try:
            self._tell(step, attempts, already)
        finally:
            if final and step.hold is not None:
                step.hold.release(forget=step.facts.are_labels)

    def _tell(self, step: Step, attempts: int, already: dict[Target, Figures]) -> None:
        facts = step.facts
        log: Log | None = None

        def exists(asset: str) -> bool:
            nonlocal log
            log = log or self._log(step)
            return log.exists(asset)

        since = step.since
        if not step.alone:
            log = self._log(step)
            since = log.began(facts.run) or 0.0
        self.tail.catch_up({*self.tail.own(), *self.tail.others(since)})
        if facts.run in self.tail.unsure:
            return
        spent = step.spent(self.tail, attempts, exists)
        if not step.alone:
            if step.hold is not None:
                step.hold.wait(_HELD_SECONDS)
            log = self._log(step)
            assets = {target.asset for target in spent}
            already = log.told(assets, since).get(Key(facts.run, facts.step), {})
        else:
            add_to(already, step.observed)
        if all(
            not figures.less(already.get(target, _EMPTY)) for target, (figures, _) in spent.items()
        ):
            return
        log = log or self._log(step)
        for target, figures in log.tell(self.about(step), spent, already).items():
            step.observed.setdefault(target, Figures()).merge(figures)

    def _log(self, step: Step) -> Log:
        """Return the event log, by an instance of our own: the run lets go of its own at its end."""
        instance = step.instance
        if instance.is_ephemeral:
            return Log(instance, self.report_url)
        known = self._instances.get(id(instance))
        if known is None or known[0] is not instance:
            while len(self._instances) >= MOST_INSTANCES:
                _, old = self._instances.pop(next(iter(self._instances)))
                old.dispose()
            known = self._instances[id(instance)] = (
                instance,
                DagsterInstance.from_ref(instance.get_ref()),
            )
        return Log(known[1], self.report_url)


_EMPTY = Figures()


def _forked() -> None:
    if current is not None:
        current.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
