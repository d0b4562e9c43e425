"""How long to leave a destination alone that does not get on: longer each time, never in step."""

from __future__ import annotations

import os

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
# What a destination asks for itself is honoured up to here: nothing waits for ever.
LONGEST_ASKED_SECONDS = 300.0


def spread(seconds: float) -> float:
    """Return `seconds` give or take a fifth, so that many processes do not act as one."""
    return seconds * (0.8 + 0.4 * int.from_bytes(os.urandom(2), "big") / 0xFFFF)


class Backoff:
    """Counts failures in a row and says how long to wait after each."""

    def __init__(self) -> None:
        self.failures = 0

    def failed(self, asked: float | None = None) -> float:
        """Return for how many seconds to wait now; `asked` is what the destination asked for."""
        wait = min(FIRST_SECONDS * 2**self.failures, LONGEST_SECONDS)
        self.failures = min(self.failures + 1, 16)
        if asked is not None:
            wait = max(wait, min(asked, LONGEST_ASKED_SECONDS))
        return spread(wait)

    def succeeded(self) -> bool:
        """Forget the failures; True when there were any."""
        failed, self.failures = self.failures > 0, 0
        return failed
