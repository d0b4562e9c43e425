"""The cost span: one measured call, from the moment it starts until its last figure is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weakref import ref

    from costinsights.attribution import Scope
    from costinsights.patching import Probe
    from costinsights.recorder import Definition, Recorder, Target
    from costinsights.statement import Statement


class CostSpan:
    """A call under way. Times are nanoseconds; `share` is 10⁻⁶ ns of the resource's capacity.

    The defaults stand on the class, not in an initialiser: most calls never change most of them,
    and this is made once a call.
    """

    recorder: Recorder
    probe: Probe
    target: Target
    args: tuple[Any, ...] | None
    kwargs: dict[str, Any] | None
    started_at: int
    """Wall clock at the start, since the epoch."""
    started: int
    """Monotonic clock at the start."""
    resumed: int
    """Monotonic clock when the driver last got the word."""
    entered: int = 0
    """The capacity clock at that moment."""
    running: bool = True
    ended: int = 0
    duration: int = 0
    share: int = 0
    number: int = 0
    revision: int = 0
    rows: int | None = None
    statement: Statement | None = None
    definition: Definition | None = None
    attribution: Definition
    scope: Scope
    parent: str | None = None
    rare: bool = False
    """It has one of: a parent, a revision, rows unread, `extra`."""
    extra: dict[str, Any] | None = None
    """What few calls have, under the names of `records.EntryLine`: u, o, e, i."""
    cursor: ref[Any] | None = None
    done: bool = False
    partial: bool = False
    counted: int | None = None
    """The 10⁻¹⁵ units that the scopes have been told, None before the first entry."""
    changed: bool = False
    """Something is known now that the last entry does not say."""

    def note(self, name: str, value: object) -> None:
        """Keep one of the rare fields for the entry."""
        self.rare = True
        if self.extra is None:
            self.extra = {}
        self.extra[name] = value
