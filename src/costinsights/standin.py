"""Something of ours in the place of a function in C, that cannot be told from it by looking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wrapt import ObjectProxy

if TYPE_CHECKING:
    from collections.abc import Callable


def stand_in(original: Callable[..., Any], ours: Callable[..., Any], target: str) -> Any:
    """Return an object that is called as `ours` and is in all else like the builtin `original`.

    ``__call__`` is a static method of a class of its own, so that between the caller and the
    driver there is one frame, that of `ours`. `target` is where the object will be found.
    """

    def __repr__(_: object) -> str:  # noqa: N807  stands in for the original
        return repr(original)

    def __reduce_ex__(_: object, __: object) -> tuple[Any, ...]:  # noqa: N807
        from pkgutil import resolve_name

        return resolve_name, (target,)

    def itself(me: object, *_: object) -> object:
        return me

    kind = type(
        "StandIn",
        (ObjectProxy,),
        {
            "__call__": staticmethod(ours),
            "__repr__": __repr__,
            "__reduce_ex__": __reduce_ex__,
            "__copy__": itself,
            "__deepcopy__": itself,
            "__costinsights__": vars(ours)["__costinsights__"],
        },
    )
    return kind(original)
