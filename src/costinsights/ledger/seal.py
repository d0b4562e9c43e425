"""The seal that ends each line of a segment: its length and CRC, inside the JSON object.

A sealed line is still one plain JSON object, so ``jq`` and DuckDB read a segment as it is; yet a
torn or altered line is told from a good one without looking at its neighbours.
"""

from __future__ import annotations

from zlib import crc32

SEAL_LENGTH = len(b',"z":"LLLLLLCCCCCCCC"}')
MAX_LINE = 0xFFFFFF


def seal(line: bytes) -> bytes:
    """Return the JSON object `line` with its seal and a line feed."""
    body = line[:-1]
    return b'%b,"z":"%06x%08x"}\n' % (body, len(body), crc32(body))


def is_sealed(line: bytes) -> bool:
    """Tell whether `line`, without its line feed, is whole."""
    body, end = line[:-SEAL_LENGTH], line[-SEAL_LENGTH:]
    return end == b',"z":"%06x%08x"}' % (len(body), crc32(body))
