"""What happens to our own errors: they are counted, said once, and never reach the program."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextvars import Token

# How often each kind of error of ours was kept from the program: ``doctor`` prints it.
swallowed: dict[str, int] = {}

# The name of the instrumentor whose call is under way here, so that a driver's method that calls
# another hooked one is counted once; or SUPPRESSED while we do work of our own.
SUPPRESSED = "costinsights"
busy: ContextVar[str | None] = ContextVar("costinsights_busy", default=None)


class suppressed:  # noqa: N801  a context manager, named for what it does
    """Inside it nothing is recorded: for exporters, pullers and settlement, which are our own."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token: Token[str | None] = busy.set(SUPPRESSED)

    def __exit__(self, *details: object) -> None:
        busy.reset(self._token)


def free(token: Token[str | None]) -> None:
    """Undo a `busy.set`, unless this is another context than that was in.

    A coroutine that nobody awaits any more is closed wherever it happens to be collected.
    """
    try:  # `contextlib.suppress` would be slower, and this is on the hot path
        busy.reset(token)
    except ValueError:
        return


def swallow(place: str, error: BaseException) -> None:
    """Keep an error of ours from the program: count it, and say it once a kind.

    With ``COSTINSIGHTS_STRICT=1`` it is raised instead, for our own tests and for bug reports. What
    a signal handler of the program's has raised while we were at work, a time limit, is raised too.
    """
    try:
        strict = os.environ.get("COSTINSIGHTS_STRICT") == "1"
    except Exception:  # noqa: BLE001  at the end of the stack even this can fail
        return
    if strict or is_a_signal_handlers(error):
        raise error
    try:
        kind = f"{place}: {type(error).__name__}"
        count = swallowed.get(kind, 0)
        swallowed[kind] = count + 1
        if not count:
            say(f"an error of costinsights' own in {kind} was kept from the program", error)
    except Exception:  # noqa: BLE001, S110  the last resort: reporting must not fail either
        pass


def is_a_signal_handlers(error: BaseException) -> bool:
    """Tell whether `error` comes out of a signal handler that ran on top of our own code."""
    try:
        from signal import getsignal, valid_signals

        handlers = [handler for handler in map(getsignal, valid_signals()) if callable(handler)]
        codes = {getattr(getattr(h, "__func__", h), "__code__", None) for h in handlers} - {None}
        traceback = error.__traceback__
        while codes and traceback is not None:
            if traceback.tb_frame.f_code in codes:
                return True
            traceback = traceback.tb_next
    except Exception:  # noqa: BLE001  then it is taken for ours
        return False
    return False


def say(message: str, error: BaseException | None = None) -> None:
    """Tell the people who run the program, through its own logging."""
    try:
        import logging

        logging.getLogger("costinsights").warning(
            message, exc_info=error if error is not None else None
        )
    except Exception:  # noqa: BLE001, S110  a logging handler of the program may fail
        pass
