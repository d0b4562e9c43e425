"""Configuration: arguments, then the environment, then a file, in that order of precedence.

A mistake never stops the program. It is one message in `Config.problems`, and the rest is used.
The file is read by `costinsights.configfile`, which is imported only where there is one.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple, cast

from costinsights.attribution import carried_labels, clean_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from costinsights.configfile import Settings
    from costinsights.hosts import Declared
    from costinsights.rules import Rule

FILE = "costinsights.toml"
PYPROJECT = "pyproject.toml"
TAGGING = ("off", "native", "comment")
NONE = "none"
"""The name that stands for no exporter at all."""

_YES = ("true", "1", "yes", "on")
_NO = ("", "false", "0", "no", "off")
VARIABLES = (
    "CONFIG",
    "CONTEXT",
    "DISABLED",
    "DISABLED_INSTRUMENTORS",
    "EXPORTERS",
    "FOLLOW_JOBS",
    "LABELS",
    "LEDGER",
    "PRICE_BOOK",
    "SERVICE",
    "STRICT",
    "TAGGING",
)
_PREFIX = "COSTINSIGHTS_"


class Config(NamedTuple):
    """Everything that can be set; `problems` are the mistakes found, one message each."""

    ledger: str
    exporters: tuple[str, ...] | None = None
    """None where nobody said, which is not the same as none."""
    exporter_options: Mapping[str, Mapping[str, object]] = {}
    labels: Mapping[str, str] = {}
    rules: tuple[Rule, ...] = ()
    capacities: tuple[Mapping[str, object], ...] = ()
    resources: tuple[Declared, ...] = ()
    """What the user says of hosts whose names do not say it."""
    describe: tuple[str, ...] = ()
    """Services that may be asked what the user's databases are, and whose answers are used."""
    price_books: tuple[str, ...] = ()
    settlement: Mapping[str, Mapping[str, object]] = {}
    """Options of history readers, by system."""
    billing: Mapping[str, Mapping[str, object]] = {}
    """Options of pullers, by their keys."""
    storage: Mapping[str, Mapping[str, object]] = {}
    """Options of who asks how large buckets are, by system."""
    dbt: Mapping[str, bool] = {}
    """What is left behind at the end of a run of dbt's: see `costinsights.dbt.watching`."""
    disabled_instrumentors: frozenset[str] = frozenset()
    """Names of instrumentors, or ``*`` for all that nobody asks for by name."""
    tagging: str = "off"
    follow_jobs: bool = True
    """Whether jobs are asked after in the background that their program does not ask for."""
    service: str = ""
    retention_days: int | None = None
    """Days after which compacted entries may be deleted; None keeps them."""
    path: str | None = None
    """The file in use."""
    problems: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Leave the options of exporters and history readers out: they may hold secrets."""
        shown = self._asdict()
        shown["exporter_options"] = dict.fromkeys(self.exporter_options, "…")
        shown["settlement"] = dict.fromkeys(self.settlement, "…")
        shown["billing"] = dict.fromkeys(self.billing, "…")
        shown["storage"] = dict.fromkeys(self.storage, "…")
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def default_ledger() -> str:
    """Return where the ledger is when nobody says: the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # the specification says to ignore one that is relative
        state = os.path.expanduser("~/.local/state")
    if not os.path.isabs(state):
        # An account that is in no list of users and has no home, as containers run them.
        from tempfile import gettempdir

        return os.path.join(gettempdir(), f"costinsights-{os.getuid()}", "ledger")
    return os.path.join(state, "costinsights", "ledger")


def is_disabled() -> bool:
    """Tell whether the environment switches everything off."""
    return (
        os.environ.get("COSTINSIGHTS_DISABLED", "").strip().lower() in _YES
        # OpenTelemetry knows the one word only.
        or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    )


def load(
    *,
    ledger: str | None = None,
    exporters: object = None,
    attribution: object = None,
    tagging: str | None = None,
    price_book: object = None,
    config: object = None,
) -> Config:
    """Return the configuration in force. Never raises: mistakes are in `problems`.

    `attribution` is a mapping of labels, a rule (a `Rule`, or a mapping with ``labels`` that is
    itself a mapping, and ``match`` and ``name``), or a sequence of such. `config` is the path of
    a file, or a mapping like one; it stands in place of the file that would be found.
    """
    problems: list[str] = []
    try:
        return _load(ledger, exporters, attribution, tagging, price_book, config, problems)
    except Exception as error:  # noqa: BLE001  the program runs on, whatever it was given
        problems.append(f"the configuration is not used, because of {type(error).__name__} in it")
        return Config(default_ledger(), service=program_name(), problems=tuple(problems))


def _load(
    ledger: str | None,
    exporters: object,
    attribution: object,
    tagging: str | None,
    price_book: object,
    config: object,
    problems: list[str],
) -> Config:
    file, path = _file(config, problems)
    _check_variables(problems)
    labels, rules = _attribution(attribution, problems)
    service = _service() or file.get("service") or program_name()
    rules = (*rules, *file.get("rules", ()))
    if rules:
        from costinsights.rules import applicable

        rules = applicable(rules, service)
    return Config(
        ledger=_absolute(ledger or _variable("LEDGER")) or file.get("ledger") or default_ledger(),
        exporters=_first(_names(exporters), _names(_variable("EXPORTERS")), file.get("exporters")),
        exporter_options=file.get("exporter_options", {}),
        labels=clean_labels(
            {
                **file.get("labels", {}),
                **_listed_labels(problems),
                **labels,
                # What the parent process was doing when it started this one.
                **carried_labels(os.environ),
            }
        ),
        rules=rules,
        capacities=file.get("capacities", ()),
        resources=file.get("resources", ()),
        describe=file.get("describe", ()),
        price_books=_first(
            _price_books(price_book, "instrument(price_book=…)", problems),
            _price_books(
                _variable("PRICE_BOOK").split(os.pathsep), "COSTINSIGHTS_PRICE_BOOK", problems
            ),
            file.get("price_books"),
        )
        or (),
        settlement=file.get("settlement", {}),
        billing=file.get("billing", {}),
        storage=file.get("storage", {}),
        dbt=file.get("dbt", {}),
        disabled_instrumentors=frozenset(
            _first(_names(_variable("DISABLED_INSTRUMENTORS")), file.get("disabled_instrumentors"))
            or ()
        ),
        tagging=_tagging(tagging, "instrument", problems)
        or _tagging(_variable("TAGGING"), "COSTINSIGHTS_TAGGING", problems)
        or file.get("tagging")
        or "off",
        follow_jobs=_follow_jobs(problems, file.get("follow_jobs", True)),
        service=service,
        retention_days=file.get("retention_days"),
        path=path,
        problems=tuple(problems),
    )


# --- the file -----------------------------------------------------------------------------------


def _file(config: object, problems: list[str]) -> tuple[Settings, str | None]:
    if config is None and (named := _variable("CONFIG")):
        config = named
        said_by = "COSTINSIGHTS_CONFIG: "
    else:
        said_by = ""
    if config is None:
        for name in (FILE, PYPROJECT):
            if os.path.isfile(name):
                from costinsights import configfile

                found = configfile.read(os.path.abspath(name), problems)
                if found is not None:
                    return found, os.path.abspath(name)
        return {}, None
    from costinsights import configfile

    if isinstance(config, (str, os.PathLike)):
        path = _absolute(os.fspath(cast("str | os.PathLike[str]", config)))
        return configfile.read(path, problems, said_by=said_by) or {}, path
    return configfile.of_mapping(config, "instrument(config=…)", problems), None


# --- the environment ----------------------------------------------------------------------------


def _variable(name: str) -> str:
    return os.environ.get(_PREFIX + name, "").strip()


def _check_variables(problems: list[str]) -> None:
    said = _variable("DISABLED").lower()
    if said not in _YES and said not in _NO:
        problems.append("COSTINSIGHTS_DISABLED is neither true nor false, so nothing is disabled")
    for variable in os.environ:
        if variable.startswith(_PREFIX) and variable[len(_PREFIX) :] not in VARIABLES:
            # Others may well have variables of that prefix: only a likely slip is worth a word.
            suggestion = nearest(variable[len(_PREFIX) :], VARIABLES)
            if suggestion:
                problems.append(f"{variable} is not a setting; did you mean {_PREFIX}{suggestion}?")


def _listed_labels(problems: list[str]) -> dict[str, str]:
    """Read ``team=growth,job=nightly``."""
    labels: dict[str, str] = {}
    for number, pair in enumerate(_words(_variable("LABELS")), 1):
        key, sign, value = pair.partition("=")
        if sign and key.strip():
            labels[key.strip()] = value.strip()
        else:
            problems.append(f"COSTINSIGHTS_LABELS: item {number} is not key=value")
    return labels


def _service() -> str:
    """Return the service's name as our variable has it, else as OpenTelemetry's have it."""
    service = _variable("SERVICE") or os.environ.get("OTEL_SERVICE_NAME", "").strip()
    if service:
        return service
    for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name":
            value = value.strip()
            if "%" not in value:
                return value
            from urllib.parse import unquote

            return unquote(value)
    return ""


def program_name() -> str:
    """Return what this program is called: its file's name, or its module's under ``-m``."""
    path = sys.argv[0] if getattr(sys, "argv", None) else ""
    if path == "-m" and "-m" in sys.orig_argv[:-1]:  # not yet found, as in sitecustomize
        return sys.orig_argv[sys.orig_argv.index("-m") + 1]
    folder, name = os.path.split(path)
    if name in ("", "-", "-c", "-m"):
        return "python"
    if name == "__main__.py":
        name = os.path.basename(folder)
    return name.removesuffix(".py") or "python"


# --- arguments ----------------------------------------------------------------------------------


def _attribution(given: object, problems: list[str]) -> tuple[dict[str, object], tuple[Rule, ...]]:
    if given is None:
        return {}, ()
    from collections.abc import Mapping

    from costinsights import configfile
    from costinsights.rules import Rule

    place = "instrument(attribution=…)"
    labels: dict[str, object] = {}
    rules: list[Rule] = []
    for item in _items(given):
        if isinstance(item, Rule):
            rules.append(item)
            continue
        table = cast("Mapping[str, object]", item)
        if not isinstance(item, Mapping):
            problems.append(f"{place}: {configfile.kind(item)} is neither labels nor a rule")
        elif isinstance(table.get("labels"), Mapping):
            rules += configfile.rules_of([table], place, problems)
        else:
            labels.update(configfile.labels_of(table, place, problems))
    return labels, tuple(rules)


def _price_books(given: object, place: str, problems: list[str]) -> tuple[str, ...] | None:
    if given is None:
        return None
    found: list[str] = []
    said = False
    for path in _items(given):
        if not path:
            continue
        said = True
        absolute = _absolute(os.fspath(cast("str", path)))
        if os.path.isfile(absolute):
            found.append(absolute)
        else:
            problems.append(f"{place}: there is no file {absolute}")
    return tuple(found) if said else None


def _tagging(given: object, place: str, problems: list[str]) -> str | None:
    if not given:
        return None
    if given in TAGGING:
        return given
    problems.append(f"{place}: {not_tagging(given)}")
    return None


def _follow_jobs(problems: list[str], otherwise: bool) -> bool:
    said = _variable("FOLLOW_JOBS").lower()
    if not said:
        return otherwise
    if said not in _YES and said not in _NO:
        problems.append("COSTINSIGHTS_FOLLOW_JOBS is neither true nor false")
        return otherwise
    return said in _YES


def not_tagging(given: object) -> str:
    """Say what is wrong with a way of tagging that there is not."""
    suggestion = nearest(given, TAGGING) if isinstance(given, str) else None
    return f"tagging must be one of {', '.join(TAGGING)}" + (
        f"; did you mean {suggestion}?" if suggestion else ""
    )


def _items(given: object) -> Iterable[object]:
    """Take a list apart; anything that is no list stands for itself."""
    if isinstance(given, (list, tuple, set, frozenset)):
        return cast("Iterable[object]", given)
    return (given,)


def _names(given: object) -> tuple[str, ...] | None:
    """Read a comma list, or a sequence of them; None where nothing was said."""
    if given is None or given == "":
        return None
    texts = [given] if isinstance(given, str) else cast("Iterable[str]", given)
    names = tuple(name for text in texts for name in _words(text))
    return () if names == (NONE,) else names


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _absolute(path: str) -> str:
    """Fix a path now: the program may change its directory before the path is used."""
    if not path:
        return ""
    path = os.path.expanduser(path)
    try:
        return os.path.abspath(path)
    except OSError:
        return path  # the directory that the program stands in has been deleted


def _first(*given: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return next((one for one in given if one is not None), None)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that somebody who wrote `word` may have meant, or None."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(known), n=1, cutoff=0.7)), None)
