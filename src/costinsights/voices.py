"""Keeps our frames out of warnings: they name the program's line, as they would without us.

A warning names the frame that is so many levels up from where it is issued. Python passes over the
frames of its own import machinery on the way, which it knows by their file's name, so our wrappers'
code bears such a name. A warning issued in C at level 1 names the very frame that made the call:
where one is to be expected, `in_callers_name` makes the call from a frame like the caller's.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_PASSED_OVER = " (passed over by warnings, like importlib._bootstrap)"


def pass_over(wrapper: Callable[..., Any]) -> None:
    """Have warnings pass over the frames of `wrapper`, unless its code is not ours."""
    code = getattr(wrapper, "__code__", None)
    if code is not None and code.co_filename.startswith(_OURS):
        named = code.co_filename.removesuffix(_PASSED_OVER) + _PASSED_OVER
        wrapper.__code__ = code.replace(co_filename=named)  # type: ignore[attr-defined]


def in_callers_name(
    function: Callable[..., Any], expected: Callable[[tuple[Any, ...], dict[str, Any]], bool]
) -> Callable[..., Any]:
    """Return `function` as a wrapper of ours calls it; `expected` tells when it may warn."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if expected(args, kwargs):
            return _like(sys._getframe(2))(function, args, kwargs)
        return function(*args, **kwargs)

    pass_over(call)
    return call


def _make(function: Callable[..., Any], args: Any, kwargs: Any) -> Any: return function(*args, **kwargs)  # fmt: skip  # noqa: E501, E704  one line, the caller's


def _like(frame: FrameType) -> Callable[..., Any]:
    code = _make.__code__.replace(
        co_filename=frame.f_code.co_filename,
        co_name=frame.f_code.co_name,
        co_firstlineno=frame.f_lineno,
    )
    return FunctionType(code, frame.f_globals)


_OURS = __file__.removesuffix("voices.py")
