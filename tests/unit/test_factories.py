"""C types cannot be changed: the program gets subclasses of them that pass for them."""

from __future__ import annotations

import datetime as dt
from typing import Any, cast

import pytest

from costinsights.factories import MAX_SUBCLASSES, Makes
from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights.records import ErrorInfo
from tests.drivers import Connection, charge, hooked, whole

# A type in C that stands in for a driver's cursor: a delta whose `total_seconds` runs a statement.
Base = dt.timedelta


class Driver:
    """Makes such objects, of the class that its caller asks for."""

    default: type | None = None

    def make(self, kind: Any = Base, named: str | None = None) -> Any:
        return kind(seconds=3)


class Instrumentor(DBAPIInstrumentor):
    def connection_of(self, instance: Any) -> Any:
        return CONNECTION


CONNECTION = Connection()


def hooks(**makes: Any) -> tuple[Hook, ...]:
    return (
        Hook("datetime:timedelta.total_seconds", statement=None, operation="SELECT"),
        Hook("datetime:timedelta.__abs__", statement=None, fetch="all"),
        Hook(
            "tinydriver:Driver.make",
            "factory",
            makes=Makes("datetime:timedelta", (1, "kind"), **makes),
        ),
    )


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> type[Driver]:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    return type("Driver", (Driver,), dict(vars(Driver)))


def test_what_is_made_reports_its_calls(driver: type[Driver]) -> None:
    with hooked(*hooks(), Driver=driver, instrumentor=Instrumentor) as (captured, _):
        made = driver().make()
        assert made.total_seconds() == 3.0
        assert whole(captured) == [charge(1, 0, 1, statement=None)]
        assert dt.timedelta(seconds=3).total_seconds() == 3.0  # made by somebody else
        assert len(captured.charges) == 1


def test_it_passes_for_the_original(driver: type[Driver]) -> None:
    with hooked(*hooks(), Driver=driver, instrumentor=Instrumentor) as _:
        made: Any = driver().make()
        assert made.__class__.__mro__[1] is Base
        assert made == Base(seconds=3)
        kind: Any = made.__class__
        assert (kind.__name__, kind.__qualname__) == ("timedelta", "timedelta")
        assert (kind.__module__, kind.__doc__) == ("datetime", Base.__doc__)
        with pytest.raises(AttributeError):
            made.anything = 1  # there is no more room in it than in the original
        assert type(driver().make()) is kind


def test_a_class_of_the_programs_own_is_kept_and_runs_first(driver: type[Driver]) -> None:
    class Mine(Base):
        def total_seconds(self) -> float:
            return super().total_seconds() + 1

    with hooked(*hooks(), Driver=driver, instrumentor=Instrumentor) as (captured, _):
        for made in (driver().make(Mine), driver().make(kind=Mine)):
            assert isinstance(made, Mine)
            assert type(made).__name__ == "Mine"
            assert made.total_seconds() == 4.0
        assert [each.operation for each in whole(captured)] == ["SELECT", "SELECT"]


def test_what_is_no_class_of_this_kind_is_left_alone(driver: type[Driver]) -> None:
    def function(seconds: int) -> str:
        return f"{seconds} seconds"

    with hooked(*hooks(), Driver=driver, instrumentor=Instrumentor) as (captured, _):
        assert driver().make(function) == "3 seconds"
        assert driver().make(dict) == {"seconds": 3}
        assert captured.charges == []


def test_none_means_the_default(driver: type[Driver]) -> None:
    class Mine(Base):
        pass

    asked: list[Any] = []

    def make(self: Driver, kind: Any = None, named: str | None = None) -> Any:
        asked.append(kind)
        return (kind or Base)(seconds=3)

    driver.make = make  # type: ignore[method-assign]
    with hooked(*hooks(none=True, default="default"), Driver=driver, instrumentor=Instrumentor) as (
        captured,
        _,
    ):
        one = driver()
        one.make().total_seconds()
        one.make(None).total_seconds()
        one.default = Mine
        assert isinstance(one.make(), Mine)
        assert len(captured.charges) == 2
    assert all(issubclass(kind, Base) for kind in asked)


def test_fetches_are_hooked_where_rows_are_left_on_the_server(driver: type[Driver]) -> None:
    given = hooks(fetches=(2, "named"))
    with hooked(*given, Driver=driver, instrumentor=Instrumentor) as _:
        plain: Any = driver().make()
        named: Any = driver().make(named="cursor")
        own = cast("dict[str, object]", vars(plain.__class__))
        fetching = cast("dict[str, object]", vars(named.__class__))
        assert "__abs__" not in own
        assert "__abs__" in fetching
        assert "total_seconds" in own
        assert "total_seconds" in fetching
        assert abs(named) == Base(seconds=3)


def test_an_error_is_the_programs_own(driver: type[Driver]) -> None:
    with hooked(*hooks(), Driver=driver, instrumentor=Instrumentor) as (captured, _):
        with pytest.raises(TypeError):
            driver().make().total_seconds("more")
        [found] = whole(captured)
        assert found.error == ErrorInfo("TypeError")


def test_switched_off_nothing_is_made_and_nothing_reported(driver: type[Driver]) -> None:
    original = vars(driver)["make"]
    with hooked(*hooks(), Driver=driver, instrumentor=Instrumentor) as (captured, plugin):
        before = driver().make()
        plugin.uninstrument()
        assert vars(driver)["make"] is original
        assert type(driver().make()) is Base
        assert before.total_seconds() == 3.0
        assert captured.charges == []


def test_a_class_a_connection_does_not_fill_the_memory(driver: type[Driver]) -> None:
    with hooked(*hooks(), Driver=driver, instrumentor=Instrumentor) as (_, plugin):
        for number in range(MAX_SUBCLASSES + 5):
            driver().make(type(f"Mine{number}", (Base,), {}))
        made = vars(plugin.factories)["_made"]
        assert len(made) <= MAX_SUBCLASSES
