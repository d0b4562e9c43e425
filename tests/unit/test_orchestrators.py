"""What holds without any orchestrator installed; the real ones are in tests/servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import guard, orchestrators
from costinsights.orchestrators import Context, present

if TYPE_CHECKING:
    from pathlib import Path

RUN = {
    "AIRFLOW_CTX_DAG_ID": "nightly",
    "AIRFLOW_CTX_TASK_ID": "load_orders",
    "AIRFLOW_CTX_DAG_RUN_ID": "scheduled__2026-11-22T00:00:00+00:00",
    "AIRFLOW_CTX_TRY_NUMBER": "2",
    "AIRFLOW_CTX_DAG_OWNER": "growth",
    "AIRFLOW_CTX_DAG_EMAIL": "someone@example.com",
}
LABELS = {
    "job": "nightly",
    "task": "load_orders",
    "run": "scheduled__2026-11-22T00:00:00+00:00",
    "attempt": "2",
    "team": "growth",
}


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has loaded Airflow: all that is asked of it is that it is there."""
    monkeypatch.setitem(sys.modules, "airflow", ModuleType("airflow"))


def test_nobody_is_there() -> None:
    assert present() is None


def test_asking_nobody_takes_next_to_nothing() -> None:
    """Counted in CPython's own steps: a time would go by luck."""
    steps: list[str] = []

    def see(frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode":
            steps.append(frame.f_code.co_name)
        return see

    before = sys.gettrace()
    sys.settrace(see)
    try:
        found = present()
    finally:
        sys.settrace(before)
    assert found is None
    assert set(steps) == {"present", "may_be_present"}
    assert len(steps) <= 40


def test_contexts_are_keys_by_identity() -> None:
    one, other = Context("dagster", {"job": "nightly"}), Context("dagster", {"job": "nightly"})
    assert {one: 1, other: 2}[one] == 1
    assert one.labels == other.labels


def test_a_context_holds_clean_labels() -> None:
    assert Context("dagster", {"job": "night\nly", "team": None, "attempt": 1}).labels == {
        "job": "nightly",
        "attempt": "1",
    }


# --- Airflow ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("airflow")
def test_airflow_is_asked_at_call_time() -> None:
    assert present() is None  # loaded, but no task is running: a DAG file is being parsed
    os.environ.update(RUN)
    context = present()
    assert context is not None
    assert (context.rule, context.labels) == ("airflow", LABELS)


@pytest.mark.usefixtures("airflow")
def test_the_same_task_run_is_the_same_object_and_another_attempt_is_not() -> None:
    os.environ.update(RUN)
    first = present()
    assert present() is first
    os.environ["AIRFLOW_CTX_TRY_NUMBER"] = "3"
    second = present()
    assert second is not first
    assert second is not None
    assert second.labels["attempt"] == "3"
    os.environ["AIRFLOW_CTX_TRY_NUMBER"] = "2"
    assert present() is first


@pytest.mark.usefixtures("airflow")
@pytest.mark.parametrize(("index", "mapping"), [("3", "3"), ("0", "0"), ("-1", None)])
def test_mapped_tasks_are_told_apart_where_the_settings_say_so(
    index: str, mapping: str | None
) -> None:
    os.environ.update(RUN | {"AIRFLOW_CTX_MAP_INDEX": index})
    context = present()
    assert context is not None
    assert context.labels.get("mapping") == mapping


@pytest.mark.usefixtures("airflow")
@pytest.mark.parametrize(
    ("owner", "team_name", "team"),
    [
        ("growth", "", "growth"),
        ("growth", "platform", "platform"),
        ("airflow", "", None),  # what Airflow says when nobody said anything
        ("someone@example.com", "", None),  # a person's address is nobody's business
        ("", "", None),
    ],
)
def test_the_team_is_airflows_or_the_owner(owner: str, team_name: str, team: str | None) -> None:
    os.environ.update(RUN | {"AIRFLOW_CTX_DAG_ID": f"dag-{owner}{team_name}"})
    os.environ["AIRFLOW_CTX_DAG_OWNER"] = owner
    if team_name:
        os.environ["AIRFLOW_CTX_TEAM_NAME"] = team_name
    context = present()
    assert context is not None
    assert context.labels.get("team") == team


def test_the_variables_alone_mean_nothing_when_they_come_later() -> None:
    """Who sets them in a process without Airflow does not speak for Airflow."""
    os.environ.update(RUN)
    assert present() is None


def test_a_program_that_an_airflow_task_started_is_attributed() -> None:
    program = (
        "import json; from costinsights.orchestrators import present\n"
        "found = present(); print(json.dumps([found.rule, found.labels, found is present()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | RUN,
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(done.stdout) == ["airflow", LABELS, True]


@pytest.mark.usefixtures("airflow")
def test_the_contexts_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[object, Context] = {}
    monkeypatch.setattr(orchestrators, "_airflow_contexts", kept)
    os.environ.update(RUN)
    for number in range(1500):
        os.environ["AIRFLOW_CTX_DAG_RUN_ID"] = f"run-{number}"
        found = present()
        assert found is not None
        assert found.labels["run"] == f"run-{number}"
    assert len(kept) <= 1024


# --- orchestrators in a state of their own ------------------------------------------------------


@pytest.mark.parametrize("name", ["dagster", "prefect.context", "airflow"])
def test_one_that_is_still_being_imported_is_not_asked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in {name, name.partition(".")[0]}:
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    before = dict(guard.swallowed)
    assert present() is None
    assert guard.swallowed == before


def test_one_that_fails_costs_the_call_nothing_but_its_labels(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        @staticmethod
        def get() -> Any:
            raise MemoryError

    module: Any = ModuleType("dagster")
    module.OpExecutionContext = Broken
    module.DagsterInvariantViolationError = LookupError
    monkeypatch.setitem(sys.modules, "dagster", module)
    monkeypatch.setitem(sys.modules, "dagster_pipes", ModuleType("dagster_pipes"))
    assert present() is None
    assert guard.swallowed["orchestrator: MemoryError"]


def test_loading_this_module_loads_no_orchestrator(tmp_path: Path) -> None:
    for name in ("dagster", "prefect", "airflow"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    program = "from costinsights.orchestrators import present; assert present() is None"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


# --- a node of dbt's over what runs dbt ---------------------------------------------------------


def test_a_node_lies_over_what_runs_dbt(airflow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in RUN.items():
        monkeypatch.setenv(key, value)
    orders = Context("dbt", {"asset": "orders", "team": "sales"})
    outer = present()
    assert outer is not None
    token = orchestrators.node.set(orders)
    try:
        found = present()
        assert found is not None
        assert found.labels == {**LABELS, "asset": "orders", "team": "sales"}
        assert found.rule == "dbt+airflow"
        assert present() is found
    finally:
        orchestrators.node.reset(token)
    assert present() is outer


def test_a_node_alone_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = Context("dbt", {"asset": "orders"})
    monkeypatch.setattr(orchestrators, "_bare", True)
    orchestrators.dbt_is_here()
    token = orchestrators.node.set(orders)
    try:
        assert present() is orders
    finally:
        orchestrators.node.reset(token)
