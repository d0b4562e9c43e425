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
    words: Mapping[str, object] | None,
    more: bytes,
) -> bytes:
    """Return the sealed line of an entry: fields n, t, d, w, f and m of `records.EntryLine`.

    `refers` is what stands behind the duration, as text; `words` are further fields, by their names,
    and `more` comes at the end, as text. With `amount` None the call has no price, and its share of
    a capacity is not said.

    Raises:
        OverflowError: a number but the share has more than 63 bits, in C only.
        TypeError, UnicodeEncodeError: one of `words` cannot be written.
        ValueError: it is too long for a seal.
    """
    body = _START % (number, started_at, duration, refers)
    if rows is not None:
        body += b',"w":%d' % rows
    if amount is not None:
        body += b',"f":%d,"m":%d' % (share, amount)
    return sealed(body + details(words or {}) + more)


def details(words: Mapping[str, object]) -> bytes:
    """Return further fields as they stand in an entry."""
    return b",%b" % _encode(words)[1:-1] if words else b""
