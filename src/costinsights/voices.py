"""Makes calls look to the library as they would without us: coming from the program's own frame.

Three kinds of code look up the stack. A warning names the line so many levels up from where it is
issued: Python passes over the frames of its own import machinery on that way, which it knows by
their file's name, so our wrappers' code bears such a name. A warning issued in C at level 1 names
the very frame that made the call, and DuckDB looks for the tables of a query among that frame's
variables: `as_caller` makes the call from a frame like the caller's.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Asks = Callable[[tuple[Any, ...], dict[str, Any]], bool]

_OURS = __file__.removesuffix("voices.py")
_PASSED_OVER = " (passed over by warnings, like importlib._bootstrap)"
_CALL = compile("__costinsights__()", "", "eval")
_COPIES = sys.version_info[:2] < (3, 13)
_OF_FUNCTION = 1  # CO_OPTIMIZED: its variables are not in a dictionary of their own
_UNSHARED = 3  # references: the frame's, ours, and that of the one who counts


def pass_over(wrapper: Callable[..., Any]) -> None:
    """Have warnings pass over the frames of `wrapper`, unless its code is not ours."""
    code = getattr(wrapper, "__code__", None)
    if code is not None and code.co_filename.startswith(_OURS):
        name = code.co_filename.removesuffix(_PASSED_OVER) + _PASSED_OVER
        wrapper.__code__ = code.replace(co_filename=name)


def as_caller(function: Callable[..., Any], asks: Asks) -> Callable[..., Any]:
    """Return `function` so that it is called from a frame like the program's, where `asks` says so.

    That frame stands on the program's line, with the names that the program has there.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        if asks(args, kwargs):
            frame = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
                frame = frame.f_back
            return _call_from(frame, partial(function, *args, **kwargs))
        return function(*args, **kwargs)

    pass_over(call)
    return call


def always(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Every call looks at the frame that makes it."""
    return True


def _call_from(frame: FrameType, function: Callable[[], Any]) -> Any:
    code = _CALL.replace(
        co_filename=frame.f_code.co_filename,
        co_name=frame.f_code.co_name,
        co_firstlineno=frame.f_lineno,
    )
    names = _names(frame)
    names["__costinsights__"] = function
    return eval(code, frame.f_globals, names)  # noqa: S307  our own code, one call


def _names(frame: FrameType) -> dict[str, Any]:
    known = frame.f_locals
    names = dict(known)
    # Before Python 3.13 a function's frame keeps the copy that it was asked for here, and with it
    # what the program soon drops. Unless somebody else looks at that copy, it is emptied again.
    if _COPIES and frame.f_code.co_flags & _OF_FUNCTION and sys.getrefcount(known) <= _UNSHARED:
        known.clear()
    return names
