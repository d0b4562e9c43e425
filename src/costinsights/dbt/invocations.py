"""The invocation of dbt that this process is in, and what its connections work for.

dbt has one invocation at a time in a process: its flags, its log and the invocation's id are its
modules' own. It is met when its first connection gets a name, which every statement comes after.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from sys import modules
from typing import TYPE_CHECKING, Any

from costinsights import orchestrators
from costinsights.attribution import innermost, within
from costinsights.dbt.nodes import is_node, labels_of
from costinsights.guard import swallow
from costinsights.orchestrators import Context

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from contextvars import Token

    from costinsights.attribution import Scope

RULE = "dbt"
RETRIED = "dbt.retried"
"""The label of what ``dbt retry`` runs again because it failed, and not because it was skipped."""

# How dbt names the connection of a ``run-operation``.
_MACRO = "macro_"
_RETRY = "retry"
# What became of a node that ``dbt retry`` does not run again, or did not run at all.
_NOT_FAILED = ("skipped", "success", "pass", "warn", "no-op")


class Invocation:
    """One command of dbt's: what it is, who runs it, and what its nodes say.

    `running` is click's context of the command, `adapter` the first that it used. `outer` and
    `scope` are the work and the scope in which the program runs dbt; dbt's own threads have none.
    """

    def __init__(self, invocation_id: str, running: Any, adapter: Any) -> None:
        self.id = invocation_id
        self.is_over = False
        config = adapter.config
        # Of `dbt retry` the arguments name what is repeated, and only click what the user wrote.
        self.command = str(running.command_path).partition(" ")[2]
        self.target_path = _target_path(config)
        self.outer = orchestrators.present()
        self.scope: Scope | None = innermost()
        self.labels: dict[str, object] = {
            "dbt.invocation_id": invocation_id,
            "dbt.target": getattr(config, "target_name", None),
            "dbt.project": getattr(config, "project_name", None),
            "dbt.command": self.command,
            **_revision(config),
        }
        self.base = Context(RULE, self.labels)
        self._retried: frozenset[str] = frozenset()
        if self.command == _RETRY:
            self._retried = _failed_before(running.params.get("state") or self.target_path)
        self._nodes: dict[str, Context] = {}

    def of(self, adapter: Any, name: object, node: object) -> Context | None:
        """Return what the connection `name` works for; None where that has not changed."""
        if is_node(node):
            return self.of_node(node, _manifest(adapter))
        if self.command == "run-operation" and str(name).startswith(_MACRO):
            macro = _macro(adapter, str(name).removeprefix(_MACRO))
            if is_node(macro):
                return self.of_node(macro, None)
        present = orchestrators.node.get()
        return None if present is not None and present in self._nodes.values() else self.base

    def of_node(self, node: Any, manifest: Any) -> Context:
        """Return the context of a node: the same object as long as dbt does not forget it."""
        known = self._nodes.get(node.unique_id)
        if known is None:
            labels = {**self.labels, **labels_of(node, manifest)}
            if node.unique_id in self._retried:
                labels[RETRIED] = "true"
            known = self._nodes[node.unique_id] = Context(RULE, labels)
        return known


_present: Invocation | None = None


def present() -> Invocation | None:
    """Return the invocation of this process, also when it has ended; None if there was none."""
    return _present


def met(adapter: Any) -> tuple[Invocation, bool] | None:
    """Return the invocation that `adapter` works in, and whether it is met for the first time.

    None where no command of dbt's runs: others use its adapters as well, Dagster to count rows.
    """
    global _present
    dbt: Any = modules.get("dbt_common.invocation")
    if dbt is None:
        return None  # before dbt 1.8 there is the query comment only
    invocation_id = str(dbt.get_invocation_id())
    if _present is not None and _present.id == invocation_id:
        return None if _present.is_over else (_present, False)
    running = _running()
    if running is None:
        return None
    _present = found = Invocation(invocation_id, running, adapter)
    # For what is sent between two connections; the others' blocks lie over it.
    orchestrators.node.set(found.base)
    return found, True


def leave() -> Invocation | None:
    """Have nothing more charged to the invocation; return it if it was not over before."""
    orchestrators.node.set(None)
    if _present is None or _present.is_over:
        return None
    _present.is_over = True
    return _present


@contextmanager
def working_for(invocation: Invocation, context: Context | None) -> Generator[None]:
    """Charge what this thread sends in the block to `context`, and to who runs dbt."""
    tokens: list[Token[Context | None]] = []
    lent: within | None = None
    if context is not None:
        tokens.append(orchestrators.node.set(context))
    outer = invocation.outer
    # A thread of dbt's own has nobody around it.
    if outer is not None and orchestrators.carried.get() is None:
        tokens.append(orchestrators.carried.set(outer))
    if invocation.scope is not None and innermost() is None:
        lent = within(invocation.scope)
        lent.__enter__()
    try:
        yield
    finally:
        try:
            if lent is not None:
                lent.__exit__()
            for token in reversed(tokens):
                token.var.reset(token)
        except ValueError as error:  # it is left in another context than it was entered in
            swallow("dbt", error)


def begin_hook(adapter: Any, node: Any) -> None:
    """Charge what follows to one of the run's hooks, until the connection has another name."""
    invocation = _present
    if invocation is not None and not invocation.is_over and is_node(node):
        orchestrators.node.set(invocation.of_node(node, _manifest(adapter)))


# --- what dbt says of itself ---------------------------------------------------------------------


def _running() -> Any:
    """Return click's context of the command of dbt's that runs on this thread, or None."""
    click, dbt = modules.get("click"), modules.get("dbt.cli.main")
    if click is None or dbt is None:
        return None
    found = click.get_current_context(silent=True)
    return found if found is not None and found.find_root().command is dbt.cli else None


def _target_path(config: Any) -> str | None:
    path = getattr(config, "project_target_path", None)
    return os.path.abspath(path) if isinstance(path, str) else None


def _revision(config: Any) -> Mapping[str, object]:
    from costinsights.dbt.revision import revision

    return revision(str(getattr(config, "project_root", None) or "."), os.environ)._asdict()


def _manifest(adapter: Any) -> Any:
    return adapter.get_macro_resolver()


def _macro(adapter: Any, name: str) -> Any:
    config = adapter.config
    package, dot, _ = str(getattr(config.args, "macro", "")).partition(".")
    manifest = _manifest(adapter)
    if manifest is None:
        return None
    return manifest.find_macro_by_name(name, config.project_name, package if dot else None)


def _failed_before(folder: object) -> frozenset[str]:
    """Return the nodes that failed in the run that is repeated, from its results in `folder`."""
    from costinsights.dbt.results import read

    results = None if folder is None else read(str(folder))
    if results is None:
        return frozenset()
    return frozenset(
        result.unique_id for result in results.results if result.status not in _NOT_FAILED
    )
