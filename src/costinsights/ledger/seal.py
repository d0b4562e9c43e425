"""The seal that ends each line of a segment: its length and CRC, inside the JSON object.

A sealed line is still one plain JSON object, so ``jq`` and DuckDB read a segment as it is; yet a
torn or altered line is told from a good one without looking at its neighbours.
"""

from __future__ import annotations

from zlib import crc32

SEAL_LENGTH = len(b',"z":"LLLLLLCCCCCCCC"}')
MAX_LINE = 0xFFFFFF


def sealed(body: bytes) -> bytes:
    """Return the line of a JSON object that is given but for its last brace.

    `costinsights._quick` has the same in C.

    Raises:
        ValueError: it is too long for a seal.
    """
    if len(body) > MAX_LINE:
        raise ValueError("too long for a line")
    return b'%b,"z":"%014x"}\n' % (body, len(body) << 32 | crc32(body))


def seal(line: bytes) -> bytes:
    """Return the JSON object `line` with its seal and a line feed."""
    return sealed(line[:-1])


def is_sealed(line: bytes) -> bool:
    """Tell whether `line`, without its line feed, is whole."""
    body, end = line[:-SEAL_LENGTH], line[-SEAL_LENGTH:]
    return end == b',"z":"%06x%08x"}' % (len(body), crc32(body))
