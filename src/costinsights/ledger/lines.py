"""The line that is written most: an entry. `costinsights._quick` has the same in C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from costinsights.ledger.seal import sealed

if TYPE_CHECKING:
    from collections.abc import Mapping

_encode = msgspec.json.Encoder().encode
PARTIAL = b',"l":true'
"""What stands at the end of an entry that more is to come of."""
# As the encoder would write a `records.EntryLine`. Filling it in takes half the encoder's time.
_START = b'{"k":"e","n":%d,"t":%d,"d":%d%b'


def entry(
    number: int,
    started_at: int,
    duration: int,
    refers: bytes,
    rows: int | None,
    share: int,
    amount: int | None,
    more: bytes,
) -> bytes:
    """Return the sealed line of an entry: fields n, t, d, w, f and m of `records.EntryLine`.

    `refers` and `more` are the fields that stand behind the duration and at the end, as text;
    `details` gives the latter. With `amount` None the call has no price, and its share of a capacity
    is not said.

    Raises:
        OverflowError: a number but the share has more than 63 bits, in C only.
        ValueError: it is too long for a seal.
    """
    body = _START % (number, started_at, duration, refers)
    if rows is not None:
        body += b',"w":%d' % rows
    if amount is not None:
        body += b',"f":%d,"m":%d' % (share, amount)
    return sealed(body + more)


def details(words: Mapping[str, object]) -> bytes:
    """Return what else an entry says, by the names of `records.EntryLine`, as it stands there.

    Raises:
        TypeError, UnicodeEncodeError: something in it cannot be written.
    """
    return b",%b" % _encode(words)[1:-1] if words else b""
