"""Lets an attribute of an immutable C type be set, so that it can be hooked in place.

Objects keep their type, and those made earlier are seen too, which no subclass or proxy can do.
CPython marks such a type with a flag that ``type.__setattr__`` asks about, and nothing else does:
the method is put there by that very function, which also tells all subclasses and caches.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from ctypes import c_ubyte

IMMUTABLE = 1 << 8  # CPython's Py_TPFLAGS_IMMUTABLETYPE
# Where a type object keeps its flags: behind the head that every object has, its size, and the 18
# pointers from tp_name to tp_as_buffer.
_OFFSET = object.__basicsize__ + 8 + 18 * 8


def is_immutable(owner: object) -> bool:
    """Tell whether no attribute of `owner` can be set, because it is a C type."""
    return isinstance(owner, type) and bool(owner.__flags__ & IMMUTABLE)


def can_unlock(owner: object) -> bool:
    """Tell whether `unlocked` works for this C type: whether its flags are where they should be."""
    if not is_immutable(owner) or sys.implementation.name != "cpython" or sys.maxsize < 2**32:
        return False
    try:
        import ctypes
    except ImportError:  # a Python that was built without it
        return False
    flags = ctypes.c_ulong.from_address(id(owner) + _OFFSET).value
    return sys.byteorder == "little" and flags == getattr(owner, "__flags__", None)


@contextmanager
def unlocked(owner: object) -> Generator[None]:
    """Within it, attributes of the C type `owner` can be set; of anything else, as always.

    Raises:
        TypeError: this Python does not keep its types as the others do.
    """
    if not is_immutable(owner):
        yield
        return
    if not can_unlock(owner):
        raise TypeError(f"cannot set attributes of the immutable type {owner!r}")
    flags = _second_byte(owner)
    flags.value &= ~(IMMUTABLE >> 8) & 0xFF
    try:
        yield
    finally:
        flags.value |= IMMUTABLE >> 8


def _second_byte(owner: object) -> c_ubyte:
    # All other flags in this byte are set for good once a type is ready, so a thread that changes
    # one elsewhere (that its method cache is valid) is not in our way.
    from ctypes import c_ubyte

    return c_ubyte.from_address(id(owner) + _OFFSET + 1)
