"""The line that is written most: of a usual call. `costinsights._quick` has the same in C."""

from __future__ import annotations

from costinsights.ledger.seal import sealed

MAX_TEXT = 512
# As the encoder would write a `records.EntryLine`. Filling it in takes half the encoder's time.
_UNPRICED = b'{"k":"e","n":%d,"t":%d,"d":%d%b,"w":%d%b'
_PRICED = b'{"k":"e","n":%d,"t":%d,"d":%d%b,"w":%d,"f":%d,"m":%d%b'


def entry(
    number: int,
    started_at: int,
    duration: int,
    refers: bytes,
    rows: int,
    share: int,
    amount: int | None,
    more: bytes,
) -> bytes:
    """Return the sealed line of a usual call: fields n, t, d, w, f and m of `records.EntryLine`.

    `refers` and `more` are the fields that stand behind the duration and at the end, as text. With
    `amount` None the call has no price, and its share of a capacity is not said.

    Raises:
        OverflowError: a number but the share has more than 63 bits, in C only.
        ValueError: `refers` or `more` is longer than that of any call.
    """
    if len(refers) > MAX_TEXT or len(more) > MAX_TEXT:
        raise ValueError("too long for an entry")
    if amount is None:
        return sealed(_UNPRICED % (number, started_at, duration, refers, rows, more))
    return sealed(_PRICED % (number, started_at, duration, refers, rows, share, amount, more))
