"""What an exporter is: something that takes charges, a batch at a time, off the callers' threads.

A plug-in registers a class in the entry-point group ``costinsights_exporter``; CONTRIBUTING.md
shows how in five steps. All that is hard is done elsewhere: `costinsights.followers` reads the
ledger, keeps the place, waits, tries again, splits, and sets aside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from costinsights.records import Charge


@runtime_checkable
class Exporter(Protocol):
    """The three things that an exporter has to have.

    It may have four more, all optional attributes of the class:

    - ``Options``: a frozen `msgspec.Struct`, whose fields are the options in the configuration;
      the class is then made with one of these, otherwise with nothing. Fields named ``ledger``
      and ``service`` are filled with this process's own where nobody sets them.
    - ``follows``: ``"service"`` (the default) has it export what dead processes of the same
      service left behind as well; ``"process"`` only what this process records, for a destination
      that ends with the process.
    - ``last_words``: true has it finish before the exit handlers that other libraries have
      registered, for a destination that one of them closes.
    - ``skipped``: how many of the charges that were taken could not be expressed; counted.

    One thread calls it, never two at a time, and nothing that it does is recorded or priced.
    """

    @property
    def name(self) -> str:
        """What it is called in the configuration, and where its place in the ledger is kept."""
        ...

    def export(self, batch: Sequence[Charge]) -> None:
        """Hand `batch` on, and return when the destination has it.

        A charge with ``revision`` 0 is new. One with a higher revision carries later figures of a
        charge that was handed on before, under the same ``charge_id``.

        Raises:
            ExportError: the destination did not take it; says whether trying again can help.
                An `OSError` counts as one that can; any other error as one that cannot, when it
                comes back five times.
        """
        ...

    def shutdown(self) -> None:
        """Let go of what is held. Nothing is exported after this."""
        ...


@runtime_checkable
class WholeExporter(Exporter, Protocol):
    """An exporter whose files are made of the whole ledger, and not of one charge after another.

    ``costinsights export`` calls `write`. Named in `exporters` it is handed charges like any other,
    so that none waits for it, and does nothing with them: a program does not read its whole ledger.
    """

    def write(
        self, out: str = "", progress: Callable[[str, int, int | None], None] | None = None
    ) -> str:
        """Bring what it has written up to date, and return a line that says what was done.

        `out` is where to, in place of what its options say; `progress` gets what is being done,
        how much of it, and of how much.

        Raises:
            ExporterUnavailable: it cannot work here; the text says what to do.
        """
        ...


class ExportError(Exception):
    """A batch was not taken.

    Args:
        message: What the people who run the program should read: no address with a password in
            it, no header, no statement.
        retryable: True: the same batch is brought again until it is taken, and meanwhile the
            charges wait in the ledger. False: the destination will never take this; the batch is
            split, and what is refused alone is set aside in ``rejected.jsonl``.
        retry_after: Seconds for which the destination asked to be left alone.
        refused: The batch was taken but for so many charges, and the destination did not say
            which. It is not brought again, and the number is counted.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool,
        retry_after: float | None = None,
        refused: int = 0,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
        self.refused = refused


class Progress:
    """Remembers what a destination has of batches that it has taken in part.

    For exporters that need several requests for a batch: when one of them fails, the batch comes
    again, and what has arrived must not.
    """

    def __init__(self) -> None:
        self._taken: set[tuple[str, int]] = set()

    def rest(self, batch: Sequence[Charge]) -> Sequence[Charge]:
        """Return those of the batch that the destination does not have."""
        if not self._taken:
            return batch
        return [charge for charge in batch if _key(charge) not in self._taken]

    def took(self, charges: Iterable[Charge]) -> None:
        """Note that these have arrived."""
        self._taken.update(map(_key, charges))

    def passed(self, batch: Iterable[Charge]) -> None:
        """Forget about a batch of which all has arrived: it does not come again."""
        if self._taken:
            self._taken.difference_update(map(_key, batch))


def _key(charge: Charge) -> tuple[str, int]:
    return charge.charge_id, charge.revision


class ExporterUnavailable(Exception):
    """An exporter cannot be used here; the text says what to do, with the pip command."""
