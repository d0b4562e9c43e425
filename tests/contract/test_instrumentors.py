"""What every instrumentor must do, whatever it instruments."""

from __future__ import annotations

import ast
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from costinsights.plugins import DRIVERS, INSTRUMENTORS, find
from tests.contract.plugins import (
    INSTRUMENTOR_MODULES,
    instrumentor_of,
    module_of,
    run_python,
)

EVERY = pytest.mark.parametrize("name", INSTRUMENTOR_MODULES)

# Shared by the scripts below: everything that an instrumentor may change, and how it stands.
SNAPSHOT = """
import sys, importlib, os
import costinsights
from costinsights.patching import owner_of
from costinsights.plugins import INSTRUMENTORS, find

name = sys.argv[1]
plugin = find(INSTRUMENTORS)[name].load()
targets = [hook.target for hook in plugin.hooks]

def import_driver():
    importlib.import_module(plugin.driver)
    for target in targets:
        try:
            importlib.import_module(target.partition(":")[0])
        except ImportError:
            pass

def snapshot():
    found = {}
    for target in targets:
        try:
            owner, attribute = owner_of(target)
        except (AttributeError, KeyError):
            continue
        found[target] = vars(owner).get(attribute, "inherited")
    for module in {target.partition(":")[0].partition(".")[0] for target in targets}:
        for loaded in [m for n, m in list(sys.modules.items()) if n.split(".")[0] == module]:
            for attribute, value in list(vars(loaded).items()):
                found[loaded.__name__, attribute] = value
    return found

def same(before, after):
    return [key for key in before if after.get(key) is not before[key]]
"""


@EVERY
def test_file_is_flat_and_short(name: str) -> None:
    source = Path(str(module_of(name).__file__)).read_text(encoding="utf-8")
    code = [line for line in source.splitlines() if line.strip()]
    docstring = ast.get_docstring(ast.parse(source)) or ""
    assert len(code) - len(docstring.splitlines()) <= 120, "what does the shared base lack?"
    assert "Not seen" in docstring, "the docstring is the user's documentation: say what is missed"
    assert "Measured" in docstring


@EVERY
def test_names_agree(name: str) -> None:
    plugin = instrumentor_of(name)
    assert plugin.name == name
    entry = find(INSTRUMENTORS)[name]
    assert entry.value == f"costinsights_instrumentors.{name}:{plugin.__name__}"
    assert plugin.hooks
    lowest, end = (tuple(map(int, version.split("."))) for version in plugin.supports)
    assert lowest < end


@EVERY
def test_loading_the_plugin_imports_neither_driver_nor_recorder(name: str, tmp_path: Path) -> None:
    """A driver that the program never imports costs nothing, and neither does its plug-in."""
    script = (
        SNAPSHOT + "\nfor heavy in (plugin.driver, 'costinsights.recorder', 'wrapt', 'asyncio'):\n"
    )
    script += "    assert heavy not in sys.modules, heavy\n"
    run_python(script, name, folder=tmp_path)


STEPS = ("import", "instrument", "instrument again", "uninstrument", "uninstrument again")


@EVERY
def test_every_order_of_steps(name: str, tmp_path: Path) -> None:
    """Whatever comes first, instrumented means hooked once and uninstrumented means untouched."""
    pytest.importorskip(instrumentor_of(name).driver)
    orders = [
        order
        for order in permutations(range(5))
        if order.index(1) < order.index(2) and order.index(3) < order.index(4)
    ]
    script = (
        SNAPSHOT
        + """
ORDERS = eval(sys.argv[2])
os.environ["COSTINSIGHTS_STRICT"] = "1"

def run(order):
    on = imported = False
    for step in order:
        if step == 0:
            import_driver(); imported = True
        elif step in (1, 2):
            costinsights.instrument(name, ledger=os.path.join(os.getcwd(), "ledger")); on = True
        else:
            costinsights.uninstrument(); on = False
    return on, imported

if ORDERS[0][0] == 1:
    on, _ = run(ORDERS[0])   # the one order in which this interpreter first sees the driver
    hooked = snapshot()
    costinsights.uninstrument()
    clean = snapshot()
    assert bool(same(clean, hooked)) == on, (ORDERS[0], on)
else:
    costinsights.uninstrument()   # some orders begin with it, and some with the driver
    import_driver()
    clean = snapshot()
for order in ORDERS:
    on, _ = run(order)
    changed = same(clean, snapshot())
    assert bool(changed) == on, (order, on, changed)
    costinsights.uninstrument()
    assert same(clean, snapshot()) == [], order
print("fine")
"""
    )
    # An interpreter sees the driver for the first time once: with nothing hooked, or instrumented.
    for firsts in ((0, 3), (1,)):
        chosen = [order for order in orders if order[0] in firsts]
        assert run_python(script, name, repr(chosen), folder=tmp_path).strip() == "fine"


@EVERY
def test_a_hundred_cycles_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    pytest.importorskip(instrumentor_of(name).driver)
    script = (
        SNAPSHOT
        + """
import threading
import_driver()
clean = snapshot()
paths, finders = list(sys.path), list(sys.meta_path)
for _ in range(100):
    costinsights.instrument(name, ledger=os.path.join(os.getcwd(), "ledger"))
    costinsights.uninstrument()
assert same(clean, snapshot()) == []
assert sys.path == paths and sys.meta_path == finders
assert threading.active_count() == 1, threading.enumerate()
costinsights.instrument(name, ledger=os.path.join(os.getcwd(), "ledger"))
deep = 0
for target in targets:
    try:
        owner, attribute = owner_of(target)
    except (AttributeError, KeyError):
        continue
    value, deep_here = vars(owner).get(attribute), 0
    value = getattr(value, "__func__", value)
    while value is not None:
        deep_here += "__costinsights__" in getattr(value, "__dict__", {})
        value = getattr(value, "__wrapped__", None)
    deep = max(deep, deep_here)
assert deep <= 1, deep
print("fine")
"""
    )
    assert run_python(script, name, folder=tmp_path).strip() == "fine"


@EVERY
def test_a_missing_driver_is_named_with_its_pip_command(name: str, tmp_path: Path) -> None:
    """Automatic means quiet; asked for by name it raises and says what to run."""
    script = (
        SNAPSHOT
        + """
top = plugin.driver.partition(".")[0]
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == top:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
for loaded in [n for n in sys.modules if n.partition(".")[0] == top]:
    del sys.modules[loaded]
sys.meta_path.insert(0, Nothing())
costinsights.instrument(ledger=os.path.join(os.getcwd(), "ledger"))
costinsights.uninstrument()
try:
    costinsights.instrument(name, ledger=os.path.join(os.getcwd(), "ledger"))
except costinsights.NotEnabled as error:
    print(error)
"""
    )
    said = run_python(script, name, folder=tmp_path)
    assert "pip install" in said, said
    assert name in said


@EVERY
def test_a_shadowed_driver_is_left_alone(name: str, tmp_path: Path) -> None:
    """A user's own module of the driver's name has none of its callables: that is no error."""
    driver = instrumentor_of(name).driver
    folder = tmp_path
    for part in driver.split("."):
        folder /= part
        folder.mkdir()
        (folder / "__init__.py").write_text("shadow = True\n", encoding="utf-8")
    script = (
        "import sys; sys.path.insert(0, '')\n"
        + SNAPSHOT
        + """
for loaded in [n for n in sys.modules if n.partition(".")[0] == plugin.driver.partition(".")[0]]:
    del sys.modules[loaded]
costinsights.instrument(ledger=os.path.join(os.getcwd(), "ledger"))
assert importlib.import_module(plugin.driver).shadow
print("fine")
"""
    )
    assert run_python(script, name, folder=tmp_path).strip().endswith("fine")


@EVERY
def test_a_version_outside_the_tested_range_is_not_hooked(name: str, tmp_path: Path) -> None:
    pytest.importorskip(instrumentor_of(name).driver)
    script = (
        SNAPSHOT
        + """
plugin.version = lambda self, driver: "99.0"
import_driver()
clean = snapshot()
costinsights.instrument(ledger=os.path.join(os.getcwd(), "ledger"))
assert same(clean, snapshot()) == []
costinsights.uninstrument()
try:
    costinsights.instrument(name, ledger=os.path.join(os.getcwd(), "ledger"))
except costinsights.NotEnabled as error:
    print(error)
assert same(clean, snapshot()) == []
"""
    )
    said = run_python(script, name, folder=tmp_path)
    assert "99.0" in said
    assert "outside the tested range" in said


def test_the_core_imports_no_plugin() -> None:
    """One direction: the core finds plug-ins by entry point only."""
    import costinsights

    root = Path(str(costinsights.__file__)).parent
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names: list[Any] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for imported in names:
                top = imported.partition(".")[0]
                assert top not in ("costinsights_instrumentors", "costinsights_exporters"), path


LOADED = """
import sys
import costinsights

def ours():
    return [name for name in sys.modules if name.startswith("costinsights_instrumentors.")]

costinsights.instrument(ledger=sys.argv[1], exporters=[])
print(ours())
import sqlite3
print(ours())
costinsights.uninstrument()
print([finder for finder in sys.meta_path if "costinsights" in repr(finder)])
"""


def test_every_plugin_waits_for_its_driver() -> None:
    """What a plug-in waits for stands with its entry points, so that it need not be loaded for it."""
    waited_for = {name: driver.value for name, driver in find(DRIVERS).items()}
    assert {name: waited_for.get(name) for name in INSTRUMENTOR_MODULES} == {
        name: instrumentor_of(name).driver for name in INSTRUMENTOR_MODULES
    }


def test_no_plugin_is_loaded_before_its_driver(tmp_path: Path) -> None:
    printed = run_python(LOADED, str(tmp_path / "ledger"), folder=tmp_path)
    assert printed == "[]\n['costinsights_instrumentors.sqlite3']\n[]\n"


def test_every_entry_point_is_a_plugin_here() -> None:
    assert sorted(find(INSTRUMENTORS)) == INSTRUMENTOR_MODULES
