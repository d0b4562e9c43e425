"""The tables of what is supported, made from the plug-ins themselves, so that they cannot lie.

``python -m tests.support_table`` writes them into README.md; a test holds README.md to them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from costinsights.hosts import HOSTS
from costinsights.plugins import HISTORIES, INSTRUMENTORS, PULLERS, find
from costinsights.pricing import PriceBook

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from costinsights.billing.puller import Puller
    from costinsights.instrumentor import DBAPIInstrumentor
    from costinsights.settlement.history import History

README = Path(__file__).parents[1] / "README.md"
BEGIN = (
    "<!-- The tables below are written by  python -m tests.support_table  from the plug-ins. -->"
)
END = "<!-- End of the tables. -->"
MOST = 4
ASYNC = frozenset(("async", "async_generator", "async_context"))
SYNC = frozenset(("call", "generator", "context", "factory"))
PRICED_AS = {"aws.aurora": ("aws.rds",), "azure.database": ("azure.postgresql", "azure.mysql")}
"""Services that the price book has under its own names (see `costinsights.hourly`)."""
OURS = ("costinsights_instrumentors.", "costinsights.")
"""What a stranger's package brings is not ours to list."""


class System(NamedTuple):
    """What there is for one system, or for a service that hosts several."""

    clients: list[str]
    history: type[History] | None


def instrumentors() -> dict[str, type[DBAPIInstrumentor]]:
    """The instrumentors of this distribution, by name."""
    found = sorted(find(INSTRUMENTORS).items())
    return {name: plugin.load() for name, plugin in found if plugin.value.startswith(OURS)}


def histories() -> dict[str, type[History]]:
    """Its history readers, by system."""
    found = sorted(find(HISTORIES).items())
    return {name: plugin.load() for name, plugin in found if plugin.value.startswith(OURS)}


def systems_of(kind: type[DBAPIInstrumentor]) -> tuple[str, ...]:
    """All systems that an instrumentor's calls may go to."""
    return kind.systems or (kind.system,)


def clients() -> str:
    """The table of client libraries."""
    rows = [
        (
            f"`{name}`",
            _coded(systems_of(kind)),
            "yes" if SYNC & _kinds(kind) else "",
            "yes" if ASYNC & _kinds(kind) else "",
            _and_more(["rows", "time", *kind.meters]),
            kind.channel,
            kind.verified,
        )
        for name, kind in instrumentors().items()
    ]
    return _table(
        ("client", "system", "sync", "async", "known at the call", "tag channel", "verified on"),
        rows,
    )


def _kinds(kind: type[DBAPIInstrumentor]) -> set[str]:
    """The kinds of the hooks that are calls, and do not bring the rows of one."""
    return {hook.kind for hook in kind.hooks if hook.fetch is None}


def systems() -> str:
    """The table of systems: how they are priced and settled."""
    book = PriceBook.load()
    found: dict[str, System] = {}
    for name, kind in instrumentors().items():
        for system in systems_of(kind):
            found.setdefault(system, System([], None)).clients.append(name)
    for service in sorted({host.service for host in HOSTS if host.system is None}):
        engines = {
            engine
            for name in PRICED_AS.get(service, (service,))
            for line in book.lines(system=name)
            for engine in (line.system, *line.also)
            if engine in found
        }
        names = [name for engine in sorted(engines) for name in found[engine].clients]
        found[service] = System(list(dict.fromkeys(names)), None)
    for system, history in histories().items():
        clients_of = found[system].clients if system in found else []
        found[system] = System(clients_of, history)
    rows = [
        (f"`{name}`", _coded(sorted(system.clients)), _price(book, name), *_settlement(system))
        for name, system in sorted(found.items())
    ]
    return _table(("system", "clients", "priced", "settled", "settlement verified on"), rows)


def bills() -> str:
    """The table of sources of a bill."""
    found = sorted((key, plugin) for key, plugin in find(PULLERS).items())
    kinds: list[type[Puller]] = [plugin.load() for _, plugin in found]
    rows = [
        (
            _coded(sorted(kind.answers)),
            f"`{kind.system}`",
            ", ".join(sorted(kind.granularities)),
            kind.by_resource,
            kind.verified,
        )
        for kind in kinds
    ]
    names = ("bill", "pulled by", "granularity", "by bucket or storage account", "verified on")
    return _table(names, rows)


def _price(book: PriceBook, system: str) -> str:
    names = PRICED_AS.get(system, (system,))
    priced = [meter for name in names for meter in book.meters(name) if meter.kind == "priced"]
    units = list(dict.fromkeys(unit for meter in priced for unit in meter.units))
    return f"per {_and_more(units, ', ')}" if units else "your own `[[capacity]]`, by the hour"


def _settlement(system: System) -> tuple[str, str]:
    if system.history is None:
        return "", ""
    return f"`costinsights settle {system.history.system}`", system.history.verified


def _coded(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _and_more(words: Sequence[str], separator: str = ", ") -> str:
    more = len(words) - MOST - 1
    if more <= 0:
        return separator.join(words)
    return f"{separator.join(words[:MOST])} and {more + 1} more"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(cell or " " for cell in line) + " |" for line in lines)


def expected(text: str) -> str:
    """README.md's text with the tables as they have to be."""
    tables = f"{BEGIN}\n\n{clients()}\n\n{systems()}\n\n{bills()}\n\n{END}"
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    assert pattern.search(text), f"README.md has no line  {BEGIN}"
    return pattern.sub(lambda _: tables, text)


if __name__ == "__main__":
    README.write_text(expected(README.read_text(encoding="utf-8")), encoding="utf-8")
