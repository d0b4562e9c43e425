from __future__ import annotations

import asyncio
import inspect
import json
import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costinsights
from costinsights.attribution import (
    CONTEXT_VARIABLE,
    MAX_LABELS,
    MAX_VALUE,
    Cost,
    Scope,
    active_scope,
    attribute,
    carried_labels,
    carry,
    child_environment,
    clean_labels,
    current,
    overlay,
    root,
)
from costinsights.ledger.reader import read_ledger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
    from pathlib import Path


def labels() -> dict[str, str]:
    """What a call made here would be attributed to."""
    return dict(active_scope().labels)


def charge(scope: Scope, amount: str | None, currency: str = "USD") -> None:
    """Do to the sums what the recorder does when a call ends."""
    for one in scope.chain:
        one.calls += 1
        if amount is None:
            one.unknown += 1
        else:
            units = int(Decimal(amount).scaleb(15))
            one.units[currency] = one.units.get(currency, 0) + units


@pytest.fixture(autouse=True)
def outside_of_any_scope() -> Iterator[None]:
    assert active_scope() is root
    yield
    assert active_scope() is root


# --- scopes -------------------------------------------------------------------------------------


def test_a_scope_holds_inside_and_only_inside() -> None:
    with attribute(asset="orders", team="growth"):
        assert labels() == {"asset": "orders", "team": "growth"}
    assert labels() == {}


def test_an_inner_scope_adds_to_and_overrides_the_outer_one() -> None:
    with attribute(asset="orders", team="growth", region="eu"):
        with attribute(asset="refunds", partition="2026-11-22"):
            assert labels() == {
                "asset": "refunds",
                "team": "growth",
                "region": "eu",
                "partition": "2026-11-22",
            }
        assert labels() == {"asset": "orders", "team": "growth", "region": "eu"}


def test_an_error_leaves_the_scope_and_passes_through() -> None:
    error = LookupError("the program's")
    with pytest.raises(LookupError) as caught, attribute(asset="orders"):
        raise error
    assert caught.value is error
    assert labels() == {}


def test_one_object_may_be_entered_inside_itself() -> None:
    orders = attribute(asset="orders")
    with orders as outer:
        with orders as inner:
            assert inner.parent is outer
        assert active_scope() is outer
    assert active_scope() is root


def test_scopes_left_in_the_wrong_order_do_not_come_back() -> None:
    outer, inner = attribute(asset="outer"), attribute(asset="inner")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert active_scope() is root
    inner.__exit__(None, None, None)
    assert active_scope() is root


def test_one_object_shared_by_tasks_that_overlap_leaves_none_of_them_inside() -> None:
    shared = attribute(asset="orders")

    async def work(entered: asyncio.Event, leave: asyncio.Event) -> Scope:
        with shared:
            entered.set()
            await leave.wait()
        return active_scope()

    async def main() -> list[Scope]:
        events = [(asyncio.Event(), asyncio.Event()) for _ in range(2)]
        tasks = [asyncio.create_task(work(*pair)) for pair in events]
        for entered, _ in events:
            await entered.wait()
        for _, leave in events:  # first in, first out: not the order of a stack
            leave.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [root, root]


def test_one_object_shared_by_threads_that_overlap_leaves_none_of_them_inside() -> None:
    shared = attribute(asset="orders")
    both_inside = threading.Barrier(2, timeout=10)
    first_is_out = threading.Event()
    left: list[Scope] = []

    def work(*, first: bool) -> None:
        with shared:
            both_inside.wait()
            if not first:
                first_is_out.wait(10)
        left.append(active_scope())
        first_is_out.set()

    threads = [threading.Thread(target=work, kwargs={"first": first}) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left == [root, root]


# --- labels -------------------------------------------------------------------------------------


def test_a_label_that_is_none_is_left_out() -> None:
    with attribute(asset="orders", team=None, region=None):
        assert labels() == {"asset": "orders"}


def test_labels_are_text() -> None:
    with attribute(attempt=2, dry=False):
        assert labels() == {"attempt": "2", "dry": "False"}


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.text(), st.integers(), st.booleans())))
def test_labels_are_bounded_and_printable(given_labels: dict[str, object]) -> None:
    cleaned = clean_labels(given_labels)
    assert len(cleaned) <= MAX_LABELS
    assert all(
        len(key) <= 64 and len(value) <= MAX_VALUE and value.isprintable()
        for key, value in cleaned.items()
    )


def test_control_characters_are_taken_out_of_a_value() -> None:
    assert clean_labels({"asset": "or\x1b[31mders\n"}) == {"asset": "or[31mders"}


# --- decorators ---------------------------------------------------------------------------------


def test_a_decorated_function_runs_inside_the_scope() -> None:
    @attribute(asset="orders")
    def work(first: int, *, second: int) -> tuple[int, dict[str, str]]:
        """The program's own words."""
        return first + second, labels()

    assert work(1, second=2) == (3, {"asset": "orders"})
    assert work.__name__ == "work"
    assert work.__doc__ == "The program's own words."
    assert labels() == {}


def test_a_decorated_method_is_still_bound() -> None:
    class Pipeline:
        name = "nightly"

        @attribute(asset="orders")
        def work(self) -> tuple[str, dict[str, str]]:
            return self.name, labels()

    assert Pipeline().work() == ("nightly", {"asset": "orders"})


def test_a_decorated_function_may_call_itself() -> None:
    @attribute(asset="orders")
    def work(depth: int) -> int:
        assert labels() == {"asset": "orders"}
        return depth if depth == 3 else work(depth + 1)

    assert work(0) == 3


async def test_a_decorated_coroutine_runs_inside_the_scope() -> None:
    @attribute(asset="orders")
    async def work() -> dict[str, str]:
        await asyncio.sleep(0)
        return labels()

    assert inspect.iscoroutinefunction(work)
    awaitable = work()
    assert labels() == {}
    assert await awaitable == {"asset": "orders"}
    assert labels() == {}


async def test_cancelling_a_decorated_coroutine_cancels_it() -> None:
    seen: list[object] = []

    @attribute(asset="orders")
    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append(labels())
            raise

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [{"asset": "orders"}]


def talk(log: list[object]) -> Generator[str, str, str]:
    """A generator that does all that one can do, and notes in which scope."""
    try:
        log.append(labels())
        heard = yield "first"
        while True:
            log.append((heard, labels()))
            try:
                heard = yield f"re: {heard}"
            except KeyError as error:
                log.append(("thrown", labels()))
                heard = yield f"caught {error.args[0]}"
            if heard == "end":
                return "the result"
    finally:
        log.append(("closed", labels()))


def test_a_decorated_generator_is_in_the_scope_only_while_it_runs() -> None:
    log: list[object] = []
    decorated = attribute(asset="orders")(talk)
    assert inspect.isgeneratorfunction(decorated)
    inside = {"asset": "orders"}
    with attribute(team="consumer"):
        generator = decorated(log)
        assert log == []
        assert next(generator) == "first"
        assert labels() == {"team": "consumer"}
        assert generator.send("hello") == "re: hello"
        assert labels() == {"team": "consumer"}
    assert generator.throw(KeyError("k")) == "caught k"
    assert labels() == {}
    with pytest.raises(StopIteration) as stopped:
        generator.send("end")
    assert stopped.value.value == "the result"
    inside["team"] = "consumer"  # where it was begun, although it went on elsewhere
    assert log == [inside, ("hello", inside), ("thrown", inside), ("closed", inside)]


def test_closing_a_decorated_generator_closes_it_inside_the_scope() -> None:
    log: list[object] = []
    generator = attribute(asset="orders")(talk)(log)
    next(generator)
    generator.close()
    assert log[-1] == ("closed", {"asset": "orders"})
    assert labels() == {}


def test_a_generator_that_will_not_close_says_so_as_ever() -> None:
    @attribute(asset="orders")
    def stubborn() -> Generator[int, None, None]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    generator = stubborn()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()
    assert labels() == {}


def test_an_error_of_a_decorated_generator_passes_through() -> None:
    error = LookupError("the program's")

    @attribute(asset="orders")
    def failing() -> Generator[int, None, None]:
        yield 1
        raise error

    generator = failing()
    next(generator)
    with pytest.raises(LookupError) as caught:
        next(generator)
    assert caught.value is error
    assert list(generator) == []


@given(st.lists(st.sampled_from(["next", "send", "throw", "close"]), max_size=8))
def test_a_decorated_generator_does_what_the_bare_one_does(actions: list[str]) -> None:
    def drive(generator: Generator[str, str, str]) -> list[object]:
        seen: list[object] = []
        for action in actions:
            try:
                if action == "next":
                    seen.append(next(generator))
                elif action == "send":
                    seen.append(generator.send("word"))
                elif action == "throw":
                    seen.append(generator.throw(KeyError("k")))
                else:
                    generator.close()
            except (KeyError, TypeError, StopIteration) as error:
                seen.append((type(error), error.args))
        return seen

    bare: list[object] = []
    decorated: list[object] = []
    assert drive(talk(bare)) == drive(attribute()(talk)(decorated))
    assert bare == decorated


async def atalk(log: list[object]) -> AsyncGenerator[str, str]:
    try:
        log.append(labels())
        heard = yield "first"
        while True:
            await asyncio.sleep(0)
            log.append((heard, labels()))
            try:
                heard = yield f"re: {heard}"
            except KeyError as error:
                log.append(("thrown", labels()))
                heard = yield f"caught {error.args[0]}"
            if heard == "end":
                return
    finally:
        log.append(("closed", labels()))


async def test_a_decorated_async_generator_is_in_the_scope_only_while_it_runs() -> None:
    log: list[object] = []
    decorated = attribute(asset="orders")(atalk)
    assert inspect.isasyncgenfunction(decorated)
    inside = {"asset": "orders"}
    generator = decorated(log)
    assert await generator.__anext__() == "first"
    assert labels() == {}
    assert await generator.asend("hello") == "re: hello"
    assert await generator.athrow(KeyError("k")) == "caught k"
    assert labels() == {}
    with pytest.raises(StopAsyncIteration):
        await generator.asend("end")
    assert log == [inside, ("hello", inside), ("thrown", inside), ("closed", inside)]


async def test_closing_a_decorated_async_generator_closes_it_inside_the_scope() -> None:
    log: list[object] = []
    generator = attribute(asset="orders")(atalk)(log)
    await generator.__anext__()
    await generator.aclose()
    assert log[-1] == ("closed", {"asset": "orders"})
    assert labels() == {}


@given(st.lists(st.sampled_from(["next", "send", "throw", "close"]), max_size=8))
def test_a_decorated_async_generator_does_what_the_bare_one_does(actions: list[str]) -> None:
    async def drive(generator: AsyncGenerator[str, str]) -> list[object]:
        seen: list[object] = []
        for action in actions:
            try:
                if action == "next":
                    seen.append(await generator.__anext__())
                elif action == "send":
                    seen.append(await generator.asend("word"))
                elif action == "throw":
                    seen.append(await generator.athrow(KeyError("k")))
                else:
                    await generator.aclose()
            except (KeyError, TypeError, StopAsyncIteration) as error:
                seen.append((type(error), error.args))
        await generator.aclose()
        return seen

    bare: list[object] = []
    decorated: list[object] = []
    expected = asyncio.run(drive(atalk(bare)))
    assert asyncio.run(drive(attribute()(atalk)(decorated))) == expected
    assert bare == decorated


# --- tasks, threads, processes ------------------------------------------------------------------


async def test_a_task_inherits_the_scope_and_keeps_its_own_to_itself() -> None:
    async def work(asset: str) -> dict[str, str]:
        with attribute(asset=asset):
            await asyncio.sleep(0)
            return labels()

    with attribute(team="growth"):
        found = await asyncio.gather(work("orders"), work("refunds"), asyncio.to_thread(labels))
        assert list(found) == [
            {"team": "growth", "asset": "orders"},
            {"team": "growth", "asset": "refunds"},
            {"team": "growth"},
        ]
        assert labels() == {"team": "growth"}


def test_a_thread_needs_carry() -> None:
    with attribute(asset="orders") as scope, ThreadPoolExecutor(1) as pool:
        assert pool.submit(labels).result() == {}
        assert pool.submit(carry(labels)).result() == {"asset": "orders"}
        assert pool.submit(carry(active_scope)).result() is scope
        assert pool.submit(labels).result() == {}  # the pool's thread kept nothing


def test_what_a_carried_call_costs_counts_where_it_was_carried_from() -> None:
    with attribute(asset="orders"), ThreadPoolExecutor(4) as pool:
        work = carry(lambda: charge(active_scope(), "0.25"))
        for future in [pool.submit(work) for _ in range(8)]:
            future.result()
        assert current().amount == Decimal(2)


def test_one_carried_function_may_run_in_several_threads_at_once() -> None:
    together = threading.Barrier(4, timeout=10)

    def work() -> dict[str, str]:
        together.wait()
        return labels()

    with attribute(asset="orders"), ThreadPoolExecutor(4) as pool:
        carried = carry(work)
        found = [future.result() for future in [pool.submit(carried) for _ in range(4)]]
    assert found == [{"asset": "orders"}] * 4


def test_carry_hands_on_arguments_results_and_errors() -> None:
    assert carry(divmod)(7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        carry(divmod)(1, 0)


def test_carry_takes_the_whole_context_along() -> None:
    """So an orchestrator's run and OpenTelemetry's current span are there as well."""
    request: ContextVar[str] = ContextVar("request", default="none")
    token = request.set("r-1")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(carry(request.get)).result() == "r-1"
    request.reset(token)


def test_a_carried_function_keeps_the_scope_through_pickling() -> None:
    with attribute(asset="orders", team="growth"):
        pickled = pickle.dumps(carry(labels))
    with attribute(asset="elsewhere", job="nightly"):
        assert pickle.loads(pickled)() == {"asset": "orders", "team": "growth"}
        again = pickle.dumps(pickle.loads(pickled))
    assert pickle.loads(again)() == {"asset": "orders", "team": "growth"}


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_pool_needs_carry(method: str) -> None:
    context = multiprocessing.get_context(method)
    with attribute(asset="orders"), ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(_labels_in_a_child).result() == {}
        assert pool.submit(carry(_labels_in_a_child)).result() == {"asset": "orders"}


def _labels_in_a_child() -> dict[str, str]:
    return labels()


# --- child programs -----------------------------------------------------------------------------


def run_child(program: str, environment: Mapping[str, str]) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True
    )
    return json.loads(done.stdout)


READ = (
    "import json, os; from costinsights.attribution import carried_labels;"
    "print(json.dumps(carried_labels(os.environ)))"
)


def test_a_child_program_finds_the_scope_in_its_environment() -> None:
    with attribute(asset='or"ders', team="größe", partition="a=b,c"):
        environment = child_environment()
    assert run_child(READ, environment) == {
        "asset": 'or"ders',
        "team": "größe",
        "partition": "a=b,c",
    }


def test_a_child_of_a_child_has_both_scopes() -> None:
    program = (
        "import json, os, subprocess, sys\n"
        "from costinsights import attribute, child_environment\n"
        "with attribute(asset='refunds', partition='1'):\n"
        f"    subprocess.run([sys.executable, '-c', {READ!r}], env=child_environment(), check=True)"
    )
    with attribute(asset="orders", team="growth"):
        found = run_child(program, child_environment())
    assert found == {"asset": "refunds", "partition": "1", "team": "growth"}


def test_outside_of_any_scope_the_environment_is_copied_as_it_is() -> None:
    given_environment = {"PATH": "/bin"}
    copied = child_environment(given_environment)
    assert copied == given_environment
    assert copied is not given_environment
    assert child_environment() == dict(os.environ)


def test_subprocess_hands_the_scope_on_by_itself_and_only_while_switched_on(
    tmp_path: Path,
) -> None:
    with attribute(asset="orders"):
        assert run_child(READ, dict(os.environ)) == {}
        costinsights.instrument(ledger=tmp_path / "ledger", exporters=[])
        try:
            assert run_child(READ, dict(os.environ)) == {"asset": "orders"}
        finally:
            costinsights.uninstrument()
        assert run_child(READ, dict(os.environ)) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '"x"', "[" * 100_000, '{"a":NaN'])
def test_an_unreadable_scope_in_the_environment_is_no_scope(text: str) -> None:
    assert carried_labels({CONTEXT_VARIABLE: text}) == {}


@given(st.text())
def test_no_environment_breaks_the_program(text: str) -> None:
    found = carried_labels({CONTEXT_VARIABLE: text})
    assert all(isinstance(value, str) for value in found.values())


def test_switched_on_again_with_other_labels_nobody_remembers_the_old_ones(tmp_path: Path) -> None:
    with attribute(asset="orders"):
        for team in ("growth", "sales"):
            ledger = tmp_path / team
            costinsights.instrument(
                "sqlite3", ledger=ledger, exporters=[], attribution={"team": team}
            )
            try:
                connection = sqlite3.connect(":memory:")
                connection.cursor().execute("SELECT 1").fetchall()
                connection.close()
            finally:
                costinsights.uninstrument()
            found = {charge.attribution["team"] for charge in read_ledger(str(ledger))}
            assert found == {team}


# --- what it cost -------------------------------------------------------------------------------


def test_a_cost_counts_in_its_scope_and_in_those_around_it() -> None:
    before = current().calls
    with attribute(asset="orders"):
        with attribute(partition="1"):
            charge(active_scope(), "0.000000000000001")
            assert current().amount == Decimal("1E-15")
        with attribute(partition="2"):
            charge(active_scope(), "2.5")
            assert current().amount == Decimal("2.5")
        cost = current()
        assert cost.amount == Decimal("2.500000000000001")
        assert (cost.calls, cost.unknown, cost.basis) == (2, 0, "estimated")
        assert cost.currency == "USD"
    assert current().calls == before + 2


def test_a_scope_without_calls_cost_nothing_and_says_that_it_does_not_know() -> None:
    with attribute(asset="orders"):
        assert current() == Cost({}, 0, 0, "unknown")
        assert current().amount == 0
        assert current().currency is None


def test_an_unknown_price_is_counted_and_never_zero() -> None:
    with attribute(asset="orders"):
        charge(active_scope(), "1")
        charge(active_scope(), None)
        cost = current()
    assert (cost.amounts, cost.calls, cost.unknown) == ({"USD": Decimal(1)}, 2, 1)
    assert cost.basis == "unknown"


def test_two_currencies_are_not_added_up() -> None:
    with attribute(asset="orders"):
        charge(active_scope(), "1", "USD")
        charge(active_scope(), "2", "EUR")
        cost = current()
    assert cost.amounts == {"USD": Decimal(1), "EUR": Decimal(2)}
    assert cost.currency is None
    with pytest.raises(ValueError, match="USD, EUR"):
        _ = cost.amount


# --- sources laid over one another --------------------------------------------------------------


def test_the_first_source_wins_field_by_field_and_the_rule_names_the_givers() -> None:
    found = overlay(
        [
            ("scope", {"asset": "orders"}),
            ("dbt", {"asset": "model.orders", "job": "nightly"}),
            ("environment", {"asset": "x"}),
            ("rule:growth", {"team": "growth"}),
        ]
    )
    assert found == {
        "asset": "orders",
        "job": "nightly",
        "team": "growth",
        "rule": "scope+dbt+rule:growth",
    }


def test_nobody_knows_is_called_unattributed() -> None:
    assert overlay([("scope", {}), ("environment", {})]) == {"rule": "unattributed"}
