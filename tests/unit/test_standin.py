"""What stands in the place of a builtin cannot be told from it by looking."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import Any

import pytest

from costinsights.patching import Probe
from costinsights.standin import stand_in

PROBE: Any = object()


def ours(*args: Any, **kwargs: Any) -> Any:
    """Count, and call through."""
    ours.calls += 1  # type: ignore[attr-defined]
    return len(*args, **kwargs)


ours.calls = 0  # type: ignore[attr-defined]
ours.__costinsights__ = PROBE  # type: ignore[attr-defined]


@pytest.fixture
def double() -> Any:
    vars(ours)["calls"] = 0
    return stand_in(len, ours, "builtins:len")


def test_it_is_called_as_ours(double: Any) -> None:
    assert double([1, 2]) == 2
    assert vars(ours)["calls"] == 1
    with pytest.raises(TypeError, match=r"len\(\) takes exactly one argument"):
        double()


def test_it_looks_like_the_original(double: Any) -> None:
    assert repr(double) == repr(len)
    assert str(double) == str(len)
    assert isinstance(double, type(len))
    assert double.__class__ is type(len)
    assert (double.__name__, double.__qualname__) == ("len", "len")
    assert (double.__doc__, double.__module__) == (len.__doc__, "builtins")
    assert double == len
    assert hash(double) == hash(len)
    assert callable(double)


def test_it_carries_its_probe(double: Any) -> None:
    assert double.__costinsights__ is PROBE
    assert not isinstance(PROBE, Probe)


def test_a_copy_of_it_is_itself(double: Any) -> None:
    assert copy.copy(double) is double
    assert copy.deepcopy(double) is double
    assert copy.deepcopy({"f": double})["f"] is double


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_pickled_by_the_name_of_its_place(double: Any, protocol: int) -> None:
    assert pickle.loads(pickle.dumps(double, protocol)) is len


def test_there_is_one_frame_between_caller_and_driver(double: Any) -> None:
    with pytest.raises(TypeError) as caught:
        double(7)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_there_is_one_frame_between_caller_and_driver", "ours"]
