"""The configuration file: ``costinsights.toml``, or ``[tool.costinsights]`` of ``pyproject.toml``.

Each mistake is one message with file and line, and what is wrong is left out; the rest is used.
A message names keys and never repeats a value, for a value may be somebody's secret.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, cast

from costinsights.config import NONE, PYPROJECT, TAGGING, nearest, not_tagging
from costinsights.rules import FIELDS, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.hosts import Declared
    from costinsights.tomllines import Path

MAX_BYTES = 1 << 20


class Settings(TypedDict, total=False):
    """What a file says, checked; a key that is not there was not said."""

    ledger: str
    exporters: tuple[str, ...]
    exporter_options: Mapping[str, Mapping[str, object]]
    labels: Mapping[str, object]
    rules: tuple[Rule, ...]
    capacities: tuple[Mapping[str, object], ...]
    resources: tuple[Declared, ...]
    describe: tuple[str, ...]
    price_books: tuple[str, ...]
    settlement: Mapping[str, Mapping[str, object]]
    billing: Mapping[str, Mapping[str, object]]
    storage: Mapping[str, Mapping[str, object]]
    dbt: Mapping[str, bool]
    disabled_instrumentors: tuple[str, ...]
    tagging: str
    follow_jobs: bool
    service: str
    retention_days: int


class Mistake(ValueError):
    """Something in the file is not as it should be; `path` leads to it from where it was found."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


def read(path: str, problems: list[str], *, said_by: str = "") -> Settings | None:
    """Read the file at `path`; None where it says nothing about us or cannot be read at all.

    `said_by` names who asked for the file, for the message about one that is not there.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        problems.append(f"{said_by}{path}: {error.strerror or type(error).__name__}")
        return None
    shared = os.path.basename(path) == PYPROJECT
    if shared and b"costinsights" not in content:
        return None
    if len(content) > MAX_BYTES:
        problems.append(f"{said_by}{path}: is longer than {MAX_BYTES} bytes")
        return None
    try:
        document, text = _parse(content)
    except Mistake as mistake:
        # A pyproject.toml is other tools' as well: one that merely names us is not ours to judge.
        if not shared or b"tool.costinsights" in content:
            problems.append(f"{path}:{mistake.path[0]}: {mistake}")
        return None
    prefix: Path = ()
    table: Mapping[str, object] = document
    if shared:
        prefix = ("tool", "costinsights")
        ours: object = None
        if isinstance(tools := document.get("tool"), Mapping):
            ours = cast("Mapping[str, object]", tools).get("costinsights")
        if ours is None:
            return None
        if not isinstance(ours, Mapping):
            problems.append(f"{path}: tool.costinsights is not a table")
            return None
        table = cast("Mapping[str, object]", ours)
    return _Reader(_Places(path, text, prefix), os.path.dirname(path), problems).settings(table)


def of_mapping(config: object, place: str, problems: list[str]) -> Settings:
    """Read a mapping that is like a file; `place` is where the messages say that it stands."""
    if not isinstance(config, Mapping):
        problems.append(f"{place}: {kind(config)} is neither a path nor a mapping")
        return {}
    table = cast("Mapping[str, object]", config)
    return _Reader(lambda _: place, "", problems).settings(table)


def rules_of(given: Iterable[object], place: str, problems: list[str]) -> list[Rule]:
    """Read rules that are given as mappings, leaving out those with a mistake."""
    return _Reader(lambda _: place, "", problems).rules(list(given), ())


def labels_of(given: object, place: str, problems: list[str]) -> Mapping[str, object]:
    """Read labels that are given as a mapping, leaving out those with a mistake."""
    return _Reader(lambda _: place, "", problems).labels(given, ())


def _parse(content: bytes) -> tuple[dict[str, object], str]:
    if sys.version_info >= (3, 11):
        from tomllib import loads
    else:
        from tomli import loads
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Mistake("is not UTF-8 text", line) from None
    # The parser counts lines in line feeds alone.
    text = text.replace("\r\n", "\n")
    try:
        return loads(text), text
    except ValueError as error:
        # "Expected '=' after a key in a key/value pair (at line 3, column 8)"
        message, _, place = str(error).rpartition(" (at ")
        number, _, column = place.removeprefix("line ").removesuffix(")").partition(", ")
        if number.isdigit():
            raise Mistake(f"is not TOML: {message} ({column})", int(number)) from None
        raise Mistake(f"is not TOML: {message} (at its end)", text.count("\n") + 1) from None
    except RecursionError:
        raise Mistake("is nested too deeply", 1) from None


class _Places:
    """Says where a key stands in the file. The lines are only counted once there is a mistake."""

    def __init__(self, path: str, text: str, prefix: Path) -> None:
        self._path, self._text, self._prefix = path, text, prefix
        self._lines: Mapping[Path, int] | None = None

    def __call__(self, path: Path) -> str:
        from costinsights.tomllines import line_of, lines_of

        if self._lines is None:
            self._lines = lines_of(self._text)
        return f"{self._path}:{line_of(self._lines, (*self._prefix, *path))}"


class _Reader:
    """Reads the tables; `place` turns the path of a key into the beginning of a message."""

    def __init__(self, place: Callable[[Path], str], folder: str, problems: list[str]) -> None:
        self._place = place
        self._folder = folder
        self._problems = problems

    def settings(self, table: Mapping[str, object]) -> Settings:
        settings: Settings = {}
        for key, value in table.items():
            try:
                self._set(settings, key, value)
            except Mistake as mistake:
                self._say(mistake, (key,))
        return settings

    def _say(self, mistake: Mistake, path: Path) -> None:
        self._problems.append(f"{self._place((*path, *mistake.path))}: {mistake}")

    def _set(self, settings: Settings, key: str, value: object) -> None:
        if key == "ledger":
            settings["ledger"] = self._path(key, value)
        elif key == "service":
            settings["service"] = _text(key, value)
        elif key == "tagging":
            if value not in TAGGING:
                raise Mistake(not_tagging(value))
            settings["tagging"] = value
        elif key == "follow_jobs":
            if not isinstance(value, bool):
                raise Mistake("follow_jobs must be true or false")
            settings["follow_jobs"] = value
        elif key == "retention_days":
            if type(value) is not int or value < 1:
                raise Mistake("retention_days must be a whole number of days, 1 or more")
            settings["retention_days"] = value
        elif key == "exporters":
            names = _names(key, value)
            settings["exporters"] = () if names == (NONE,) else names
        elif key == "disabled_instrumentors":
            settings["disabled_instrumentors"] = _names(key, value)
        elif key == "describe":
            settings["describe"] = _names(key, value)
        elif key == "price_books":
            settings["price_books"] = self._price_books(key, value)
        elif key == "labels":
            settings["labels"] = self.labels(_table(key, value), (key,))
        elif key == "exporter":
            settings["exporter_options"] = self._options(key, _table(key, value))
        elif key == "settle":
            settings["settlement"] = self._options(key, _table(key, value))
        elif key == "pull":
            settings["billing"] = self._options(key, _table(key, value))
        elif key == "storage":
            settings["storage"] = self._options(key, _table(key, value))
        elif key == "dbt":
            settings["dbt"] = self._switches(key, _table(key, value), DBT_KEYS)
        elif key == "rule":
            settings["rules"] = tuple(self.rules(_tables(key, value), (key,)))
        elif key == "capacity":
            settings["capacities"] = self._capacities(_tables(key, value))
        elif key == "resource":
            settings["resources"] = self._resources(_tables(key, value))
        else:
            raise _unknown("", key, KEYS)

    def labels(self, given: object, path: Path) -> Mapping[str, object]:
        labels: dict[str, object] = {}
        for key, value in _table("labels", given).items():
            if value is None or isinstance(value, (str, int, float)):
                labels[str(key)] = value
            else:
                self._say(Mistake(f"the label {key!r} must be text, not {kind(value)}", key), path)
        return labels

    def rules(self, given: Sequence[object], path: Path) -> list[Rule]:
        rules: list[Rule] = []
        for number, item in enumerate(given):
            try:
                rules.append(_rule(number, _table("rule", item)))
            except Mistake as mistake:
                # One that is half understood would give the cost to somebody else: it is left out.
                self._say(mistake, (*path, number))
        return rules

    def _options(
        self, kind: str, tables: Mapping[str, object]
    ) -> Mapping[str, Mapping[str, object]]:
        options: dict[str, Mapping[str, object]] = {}
        for name, value in tables.items():
            try:
                options[name] = _table(f"{kind}.{name}", value)
            except Mistake as mistake:
                self._say(mistake, (kind, name))
        return options

    def _switches(
        self, kind: str, table: Mapping[str, object], known: Sequence[str]
    ) -> Mapping[str, bool]:
        switches: dict[str, bool] = {}
        for key, value in table.items():
            try:
                switches[key] = _switch(kind, key, value, known)
            except Mistake as mistake:
                self._say(mistake, (kind,))
        return switches

    def _capacities(self, given: Sequence[object]) -> tuple[Mapping[str, object], ...]:
        # Imported here, because it brings the price book along, and few files need it.
        from costinsights.pricing.entries import read_entry
        from costinsights.pricing.fields import FieldError

        capacities: list[Mapping[str, object]] = []
        for number, item in enumerate(given):
            try:
                table = _table("capacity", item)
                try:
                    read_entry(table, number + 1, "", 0)
                except FieldError as error:
                    field = (error.field,) if error.field else ()
                    raise Mistake(f"[[capacity]]: {error}", *field) from None
                capacities.append(table)
            except Mistake as mistake:
                self._say(mistake, ("capacity", number))
        return tuple(capacities)

    def _resources(self, given: Sequence[object]) -> tuple[Declared, ...]:
        # Imported here for the same reason.
        from costinsights.declared import read
        from costinsights.pricing.fields import FieldError

        resources: list[Declared] = []
        for number, item in enumerate(given):
            try:
                try:
                    resources.append(read(_table("resource", item), number + 1))
                except FieldError as error:
                    field = (error.field,) if error.field else ()
                    raise Mistake(f"[[resource]]: {error}", *field) from None
            except Mistake as mistake:
                self._say(mistake, ("resource", number))
        return tuple(resources)

    def _price_books(self, key: str, value: object) -> tuple[str, ...]:
        found: list[str] = []
        for item in [value] if isinstance(value, str) else _list(key, value):
            path = self._path(key, item)
            if os.path.isfile(path):
                found.append(path)
            else:
                self._say(Mistake(f"there is no file {path}"), (key,))
        return tuple(found)

    def _path(self, key: str, value: object) -> str:
        """Read a path: one that is relative counts from the file's own folder."""
        if isinstance(value, os.PathLike):
            value = os.fspath(cast("os.PathLike[str]", value))
        path = os.path.expanduser(_text(key, value))
        return os.path.abspath(os.path.join(self._folder, path))


KEYS = (
    "capacity",
    "dbt",
    "describe",
    "disabled_instrumentors",
    "exporter",
    "exporters",
    "follow_jobs",
    "labels",
    "ledger",
    "price_books",
    "pull",
    "resource",
    "retention_days",
    "rule",
    "service",
    "settle",
    "storage",
    "tagging",
)
DBT_KEYS = ("costs", "table")
_RULE_KEYS = ("labels", "match", "name")


def _rule(number: int, table: Mapping[str, object]) -> Rule:
    for key in table:
        if key not in _RULE_KEYS:
            raise _unknown("rule.", key, _RULE_KEYS)
    name = table.get("name")
    name = f"#{number + 1}" if name is None else _text("name", name)
    match: dict[str, tuple[str, ...]] = {}
    for field, value in _table("match", table.get("match", {}), "match").items():
        if field not in FIELDS:
            mistake = _unknown("match.", field, FIELDS)
            mistake.path = ("match", field)
            raise mistake
        patterns = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else [value]
        for pattern in patterns:
            if not isinstance(pattern, (str, int)) or isinstance(pattern, bool):
                raise Mistake(
                    f"match.{field} must be a pattern or a list of them, not {kind(pattern)}",
                    "match",
                    field,
                )
        match[field] = tuple(str(pattern) for pattern in patterns)
    labels = _table("labels", table.get("labels", {}), "labels")
    if not labels:
        raise Mistake(f"the rule {name!r} gives no labels")
    for key, value in labels.items():
        if not isinstance(value, (str, int, float)):
            raise Mistake(f"the label {key!r} must be text, not {kind(value)}", "labels", str(key))
    return Rule(name, match, labels)


def _unknown(prefix: str, key: str, known: Sequence[str]) -> Mistake:
    suggestion = nearest(str(key), known)
    hint = f"did you mean {prefix}{suggestion}?" if suggestion else f"known are {', '.join(known)}"
    return Mistake(f"unknown key {prefix}{key}; {hint}", *(() if not prefix else (key,)))


def _switch(kind: str, key: str, value: object, known: Sequence[str]) -> bool:
    if key not in known:
        raise _unknown(f"{kind}.", key, known)
    if not isinstance(value, bool):
        raise Mistake(f"{kind}.{key} must be true or false", key)
    return value


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise Mistake(f"{key} must be text, not {kind(value)}")
    if not value.strip():
        raise Mistake(f"{key} is empty")
    return value.strip()


def _names(key: str, value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else _list(key, value)
    return tuple(_text(key, item) for item in items)


def _list(key: str, value: object) -> Sequence[object]:
    if not isinstance(value, (list, tuple)):
        raise Mistake(f"{key} must be a list of texts, not {kind(value)}")
    return cast("Sequence[object]", value)


def _table(key: str, value: object, *path: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise Mistake(f"{key} must be a table, not {kind(value)}", *path)
    return cast("Mapping[str, object]", value)


def _tables(key: str, value: object) -> Sequence[object]:
    if not isinstance(value, (list, tuple)):
        raise Mistake(f"write [[{key}]], with two brackets: there may be several")
    return cast("Sequence[object]", value)


def kind(value: object) -> str:
    """Name the kind of a value in TOML's words, without showing it."""
    if isinstance(value, bool):
        return "true or false"
    for types, word in _KINDS:
        if isinstance(value, types):
            return word
    return f"a {type(value).__name__}"


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "text"),
    ((int, float), "a number"),
    (Mapping, "a table"),
    ((list, tuple), "a list"),
)
