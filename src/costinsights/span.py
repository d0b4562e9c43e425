"""The cost span: one measured call, from the moment it starts until its last figure is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weakref import ref

    from costinsights.attribution import Scope
    from costinsights.patching import Probe
    from costinsights.recorder import Definition, Recorder, References, Target
    from costinsights.statement import Statement


class CostSpan:
    """A call under way. Times are nanoseconds; `share` is 10⁻⁶ ns of the resource's capacity.

    Slots, because the recorder reads these two dozen times a call.
    """

    __slots__ = (
        "amount",
        "args",
        "attribution",
        "awaits",
        "before",
        "changed",
        "counted",
        "cursor",
        "definition",
        "done",
        "duration",
        "ended",
        "entered",
        "extra",
        "key",
        "kwargs",
        "number",
        "parent",
        "partial",
        "probe",
        "rare",
        "recorder",
        "refers",
        "resumed",
        "revision",
        "rows",
        "running",
        "scope",
        "share",
        "source",
        "started",
        "started_at",
        "statement",
        "target",
    )

    attribution: Definition
    definition: Definition | None
    refers: References
    """The definitions that its entries refer to, by number."""
    scope: Scope
    statement: Statement | None
    started_at: int
    """Wall clock at the start, since the epoch."""
    started: int
    """Monotonic clock at the start."""
    resumed: int
    """Monotonic clock when the driver last got the word."""
    ended: int
    """Monotonic clock when it last gave it back."""
    awaits: int
    """Answers that the server still owes, once the call has returned without them."""

    def __init__(
        self,
        recorder: Recorder,
        probe: Probe,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.recorder = recorder
        self.probe = probe
        self.target = target
        self.args: tuple[Any, ...] | None = args
        self.kwargs: dict[str, Any] | None = kwargs
        self.running = True
        self.duration = 0
        self.share = 0
        self.number = 0  # until it is described
        self.before = 0  # the identity of the cursor's last statement before this one
        self.entered = 0  # the capacity clock when the driver last got the word
        self.rows: int | None = None
        self.amount: int | None = None  # 10⁻¹⁵ units, where it is the price of what was used
        self.counted: int | None = None  # 10⁻¹⁵ units told to the scopes; None before any entry
        self.done = False
        self.partial = False
        self.changed = False  # something is known now that the last entry does not say
        self.rare = False  # it has one of the following, or was partial
        self.parent: str | None = None  # W3C traceparent
        self.revision = 0
        self.cursor: ref[Any] | None = None
        self.key = 0  # of the cursor, while it has rows to bring
        self.source: object = None  # of the figures that are final with the last row
        self.extra: dict[str, Any] | None = None  # under records.EntryLine's names: u, o, e, i

    def clock(self, started: int, ended: int, share: int) -> None:
        """Take over what the clocks of a call have shown that is over."""
        self.running = False
        self.started = self.resumed = started
        self.ended = ended
        self.duration = ended - started
        self.share = share

    def note(self, name: str, value: object) -> None:
        """Keep one of the rare fields for the entry."""
        self.rare = True
        if self.extra is None:
            self.extra = {}
        self.extra[name] = value
