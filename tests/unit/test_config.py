from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from timeit import repeat
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costinsights import config
from costinsights.config import Config, is_disabled, load
from costinsights.configfile import KEYS, MAX_BYTES
from costinsights.rules import Rule
from costinsights.tomllines import line_of, lines_of

EVERYTHING = """\
ledger = "ledger"
exporters = ["jsonl", "otlp"]
tagging = "native"
price_books = ["own.toml"]
disabled_instrumentors = ["duckdb"]
service = "nightly-etl"
retention_days = 90

[labels]
team = "growth"
tier = 1

[[capacity]]
name = "warehouse"
host = "db.example"
price = "1.20"
currency = "USD"

[[rule]]
name = "orders"
match = { namespace = "orders_*", port = 5432, operation = ["SELECT", "COPY"] }
labels = { asset = "orders", owner = "o" }

[[rule]]
labels = { team = "platform" }

[exporter.otlp]
endpoint = "http://collector:4318"
headers = { authorization = "s3cr3t" }
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program stands in a folder of its own."""
    folder = tmp_path / "program"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(text: str, name: str = "costinsights.toml") -> Path:
    path = Path.cwd() / name
    path.write_text(text, encoding="utf-8")
    return path


def problem(found: Config) -> str:
    """Return the one message that there is."""
    assert len(found.problems) == 1, found.problems
    return found.problems[0]


# --- precedence ---------------------------------------------------------------------------------


def test_nothing_is_set() -> None:
    found = load()
    assert found.problems == ()
    assert found.ledger == str(Path.home() / ".local/state/costinsights/ledger")
    assert found.exporters is None
    assert (found.tagging, found.path, found.retention_days) == ("off", None, None)
    assert (found.labels, found.rules, found.price_books) == ({}, (), ())


def test_a_file_says_everything(empty_folder: Path) -> None:
    write(EVERYTHING)
    write("", "own.toml")
    found = load()
    assert found.problems == ()
    assert found.path == str(empty_folder / "costinsights.toml")
    assert found.ledger == str(empty_folder / "ledger")
    assert found.exporters == ("jsonl", "otlp")
    assert found.exporter_options == {
        "otlp": {
            "endpoint": "http://collector:4318",
            "headers": {"authorization": "s3cr3t"},
        }
    }
    assert found.tagging == "native"
    assert found.price_books == (str(empty_folder / "own.toml"),)
    assert found.disabled_instrumentors == {"duckdb"}
    assert found.service == "nightly-etl"
    assert found.retention_days == 90
    assert found.labels == {"team": "growth", "tier": "1"}
    assert [capacity["name"] for capacity in found.capacities] == ["warehouse"]
    assert [(rule.name, rule.match, rule.labels) for rule in found.rules] == [
        (
            "orders",
            {"namespace": ("orders_*",), "port": ("5432",), "operation": ("SELECT", "COPY")},
            {"asset": "orders", "owner": "o"},
        ),
        ("#2", {}, {"team": "platform"}),
    ]


def test_the_environment_comes_before_the_file(empty_folder: Path) -> None:
    write(EVERYTHING)
    write("", "own.toml")
    write("", "theirs.toml")
    os.environ.update(
        COSTINSIGHTS_LEDGER="elsewhere",
        COSTINSIGHTS_EXPORTERS=" console ,memory,",
        COSTINSIGHTS_LABELS="team=sales, job = nightly,",
        COSTINSIGHTS_TAGGING="comment",
        COSTINSIGHTS_PRICE_BOOK="theirs.toml",
        COSTINSIGHTS_DISABLED_INSTRUMENTORS=" psycopg , *",
        COSTINSIGHTS_SERVICE="bi",
    )
    found = load()
    assert found.problems == ()
    assert found.ledger == str(empty_folder / "elsewhere")
    assert found.exporters == ("console", "memory")
    assert found.labels == {"team": "sales", "tier": "1", "job": "nightly"}
    assert found.tagging == "comment"
    assert found.price_books == (str(empty_folder / "theirs.toml"),)
    assert found.disabled_instrumentors == {"psycopg", "*"}
    assert found.service == "bi"


def test_arguments_come_before_the_environment(empty_folder: Path) -> None:
    write("")
    write("", "mine.toml")
    os.environ.update(
        COSTINSIGHTS_LEDGER="elsewhere",
        COSTINSIGHTS_EXPORTERS="console",
        COSTINSIGHTS_LABELS="team=sales,job=nightly",
        COSTINSIGHTS_TAGGING="comment",
        COSTINSIGHTS_PRICE_BOOK="missing.toml",
    )
    found = load(
        ledger="here",
        exporters=("jsonl",),
        attribution={"team": "growth"},
        tagging="off",
        price_book=Path("mine.toml"),
    )
    assert found.ledger == str(empty_folder / "here")
    assert found.exporters == ("jsonl",)
    assert found.labels == {"team": "growth", "job": "nightly"}
    assert found.tagging == "off"
    assert found.price_books == (str(empty_folder / "mine.toml"),)


def test_the_scope_of_the_parent_process_comes_before_all_other_labels() -> None:
    os.environ["COSTINSIGHTS_CONTEXT"] = '{"asset":"orders","team":"parent"}'
    os.environ["COSTINSIGHTS_LABELS"] = "team=sales,job=nightly"
    found = load(attribution={"asset": "all", "region": "eu"})
    assert found.labels == {
        "asset": "orders",
        "team": "parent",
        "job": "nightly",
        "region": "eu",
    }


@pytest.mark.parametrize("none", ["none", " none ", "none,"])
def test_none_stands_for_no_exporter(none: str) -> None:
    write('exporters = ["jsonl"]')
    os.environ["COSTINSIGHTS_EXPORTERS"] = none
    assert load().exporters == ()
    assert load(exporters=(none,)).exporters == ()
    del os.environ["COSTINSIGHTS_EXPORTERS"]
    write(f'exporters = "{none.strip(" ,")}"')
    assert load().exporters == ()


def test_exporters_given_as_objects_alone_leave_no_names() -> None:
    os.environ["COSTINSIGHTS_EXPORTERS"] = "jsonl"
    assert load(exporters=()).exporters == ()


def test_an_empty_variable_says_nothing() -> None:
    write(EVERYTHING.replace('price_books = ["own.toml"]\n', ""))
    before = load()
    for name in config.VARIABLES:
        os.environ[f"COSTINSIGHTS_{name}"] = " "
    after = load()
    assert after.problems == ()
    assert repr(after).replace(repr(after.rules), "") == repr(before).replace(
        repr(before.rules), ""
    )


# --- where the file is --------------------------------------------------------------------------


def test_a_file_named_by_the_argument_comes_before_one_named_by_the_environment() -> None:
    write('service = "found"')
    write('service = "environment"', "e.toml")
    write('service = "argument"', "a.toml")
    assert load().service == "found"
    os.environ["COSTINSIGHTS_CONFIG"] = "e.toml"
    assert load().service == "environment"
    assert load(config="a.toml").service == "argument"
    assert load(config=Path("a.toml")).service == "argument"
    assert load(config={"service": "mapping"}).service == "mapping"


def test_pyproject_is_read_where_there_is_no_file_of_ours(empty_folder: Path) -> None:
    write('[tool.costinsights]\nledger = "l"\nlabels.team = "growth"', "pyproject.toml")
    found = load()
    assert (found.path, found.problems) == (str(empty_folder / "pyproject.toml"), ())
    assert found.ledger == str(empty_folder / "l")
    assert found.labels == {"team": "growth"}
    write("")
    assert load().labels == {}


@pytest.mark.parametrize(
    "text",
    [
        '[project]\nname = "x"\ndependencies = ["costinsights"]',
        '[project]\nname = "x',  # broken, but it does not speak of us
        'tool = 1\nname = "costinsights"',
        "# costinsights\n= broken",
    ],
)
def test_a_pyproject_that_says_nothing_about_us_is_nobodys_business(text: str) -> None:
    write(text, "pyproject.toml")
    assert load() == Config(config.default_ledger(), service=load().service)


def test_paths_in_a_file_count_from_its_folder_and_all_others_from_here(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "own.toml").write_text("")
    (folder / "c.toml").write_text('ledger = "../state"\nprice_books = "own.toml"')
    found = load(config=folder / "c.toml")
    assert found.ledger == str(tmp_path / "state")
    assert found.price_books == (str(folder / "own.toml"),)
    assert load(config={"ledger": "state"}).ledger == str(Path.cwd() / "state")
    assert load(ledger="~/l").ledger == str(Path.home() / "l")


def test_a_file_may_come_through_a_pipe_or_be_nothing() -> None:
    write('service = "found"')
    os.environ["COSTINSIGHTS_CONFIG"] = os.devnull
    assert load().service != "found"
    read, write_ = os.pipe()
    os.write(write_, b'service = "piped"')
    os.close(write_)
    os.environ["COSTINSIGHTS_CONFIG"] = f"/dev/fd/{read}"
    try:
        assert load().service == "piped"
    finally:
        os.close(read)


def test_several_price_books_are_separated_like_paths(empty_folder: Path) -> None:
    write("", "a.toml")
    write("", "b.toml")
    os.environ["COSTINSIGHTS_PRICE_BOOK"] = os.pathsep.join(["a.toml", "b.toml"])
    books = (str(empty_folder / "a.toml"), str(empty_folder / "b.toml"))
    assert load().price_books == books
    assert load(price_book=["b.toml", "a.toml"]).price_books == books[::-1]


# --- the ledger's place -------------------------------------------------------------------------


def test_the_ledger_is_in_the_users_state_folder() -> None:
    os.environ["XDG_STATE_HOME"] = "/var/state"
    assert load().ledger == "/var/state/costinsights/ledger"
    os.environ["XDG_STATE_HOME"] = "relative/is/ignored"
    assert load().ledger == str(Path.home() / ".local/state/costinsights/ledger")


def test_an_account_without_a_home_has_a_ledger_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What expanduser does for a user id that is in no list, as containers have them.
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    found = load().ledger
    assert os.path.isabs(found)
    assert str(os.getuid()) in found


# --- the service --------------------------------------------------------------------------------


def test_the_service_is_named_by_the_nearest_source() -> None:
    program = load().service
    assert program == config.program_name()
    write('service = "file"')
    assert load().service == "file"
    os.environ["OTEL_RESOURCE_ATTRIBUTES"] = "a=b, service.name = resource%20%C3%A9 ,c=d"
    assert load().service == "resource é"
    os.environ["OTEL_SERVICE_NAME"] = "otel"
    assert load().service == "otel"
    os.environ["COSTINSIGHTS_SERVICE"] = "ours"
    assert load().service == "ours"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["nightly.py"], "nightly"),
        (["folder/nightly.py", "--flag"], "nightly"),
        (["-m", "package.module"], "module"),
        (["-m", "package"], "package"),
        (["-c", "import site; exec(open('shout.py').read())"], "python"),
        (["tool"], "tool"),
    ],
)
def test_a_service_without_a_name_is_called_like_its_program(
    arguments: list[str], name: str, empty_folder: Path
) -> None:
    shout = "from costinsights.config import load; print(load().service)"
    (empty_folder / "folder").mkdir()
    (empty_folder / "package").mkdir()
    for path in (
        "nightly.py",
        "folder/nightly.py",
        "package/module.py",
        "package/__main__.py",
        "package/__init__.py",
        "tool",
        "shout.py",
    ):
        (empty_folder / path).write_text("" if path.endswith("__init__.py") else shout)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == name


def test_a_program_that_is_not_found_yet_has_a_name_already(empty_folder: Path) -> None:
    """As under opentelemetry-instrument, which switches us on before the program is looked up."""
    (empty_folder / "sitecustomize.py").write_text(
        "from costinsights.config import load; print(load().service)"
    )
    (empty_folder / "nightly.py").write_text("")
    for arguments, name in ((["-m", "nightly"], "nightly"), (["nightly.py"], "nightly")):
        done = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | {"PYTHONPATH": str(empty_folder)},
            capture_output=True,
            check=True,
            text=True,
        )
        assert done.stdout.strip() == name


# --- off ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["true", "TRUE", " true ", "1", "yes", "on"])
def test_everything_is_switched_off(value: str) -> None:
    os.environ["COSTINSIGHTS_DISABLED"] = value
    assert is_disabled()


@pytest.mark.parametrize("value", ["", "false", "0", "no", "off", "False"])
def test_nothing_is_switched_off(value: str) -> None:
    os.environ["COSTINSIGHTS_DISABLED"] = value
    assert not is_disabled()
    assert load().problems == ()


def test_opentelemetrys_switch_knows_one_word() -> None:
    os.environ["OTEL_SDK_DISABLED"] = "1"
    assert not is_disabled()
    os.environ["OTEL_SDK_DISABLED"] = "True"
    assert is_disabled()


# --- attribution as an argument -----------------------------------------------------------------


def test_attribution_takes_labels_rules_and_both_in_a_list() -> None:
    rule = Rule("orders", {"namespace": "orders"}, {"asset": "orders"})
    written = {"name": "rest", "match": {"system": "*sql"}, "labels": {"team": "platform"}}
    assert load(attribution=rule).rules == (rule,)
    assert [found.name for found in load(attribution=written).rules] == ["rest"]
    found = load(attribution=[{"team": "growth", "tier": 1, "none": None}, rule, written])
    assert found.problems == ()
    assert found.labels == {"team": "growth", "tier": "1"}
    assert [rule.name for rule in found.rules] == ["orders", "rest"]


def test_rules_given_in_code_come_before_those_of_the_file() -> None:
    write('[[rule]]\nname = "file"\nlabels = { team = "a" }')
    found = load(attribution=[{"name": "code", "labels": {"team": "b"}}])
    assert [rule.name for rule in found.rules] == ["code", "file"]


def test_rules_about_another_program_are_left_out() -> None:
    write(EVERYTHING.replace("namespace =", 'service = "bi", namespace ='))
    write("", "own.toml")
    assert [rule.name for rule in load().rules] == ["#2"]
    os.environ["COSTINSIGHTS_SERVICE"] = "BI"
    assert [rule.name for rule in load().rules] == ["orders", "#2"]


@pytest.mark.parametrize(
    ("given_attribution", "message"),
    [
        ("growth", "text is neither labels nor a rule"),
        (7, "a number is neither labels nor a rule"),
        ({"team": ["growth"]}, "the label 'team' must be text, not a list"),
        ({"labels": {}}, "the rule '#1' gives no labels"),
        ({"labels": {"a": "b"}, "mach": {}}, "unknown key rule.mach; did you mean rule.match?"),
        (
            {"labels": {"a": "b"}, "match": {"host": "h"}},
            "unknown key match.host; known are system,",
        ),
    ],
)
def test_a_mistake_in_attribution_says_where_it_was_given(
    given_attribution: object, message: str
) -> None:
    found = load(attribution=given_attribution, ledger="used")
    assert problem(found).startswith(f"instrument(attribution=…): {message}")
    assert (found.labels, found.rules) == ({}, ())
    assert found.ledger.endswith("used")


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('exporter_ = "x"', 1, "unknown key exporter_; did you mean exporter?"),
        ("\n\nexportres = []", 3, "unknown key exportres; did you mean exporters?"),
        ("qwertz = 1", 1, "unknown key qwertz; known are capacity, dbt, describe, disabled_instr"),
        ("ledger = 5", 1, "ledger must be text, not a number"),
        ('ledger = ""', 1, "ledger is empty"),
        ("ledger = true", 1, "ledger must be text, not true or false"),
        ("ledger = 2026-11-22", 1, "ledger must be text, not a date"),
        ("exporters = [1]", 1, "exporters must be text, not a number"),
        ("exporters = 1", 1, "exporters must be a list of texts, not a number"),
        ('tagging = "nativ"', 1, "one of off, native, comment; did you mean native?"),
        ("tagging = []", 1, "tagging must be one of off, native, comment"),
        ("retention_days = 0", 1, "retention_days must be a whole number of days, 1 or more"),
        ("retention_days = 1.5", 1, "retention_days must be a whole number"),
        ("retention_days = true", 1, "retention_days must be a whole number"),
        ("[dbt]\ntabel = false", 2, "unknown key dbt.tabel; did you mean dbt.table?"),
        ("[dbt]\ncosts = 1", 2, "dbt.costs must be true or false"),
        ("dbt = true", 1, "dbt must be a table, not true or false"),
        ('labels = "team"', 1, "labels must be a table, not text"),
        ('[labels]\na = "b"\nteam = ["x"]', 3, "the label 'team' must be text, not a list"),
        ('price_books = [\n  "nowhere.toml",\n]', 1, "there is no file "),
        ('[rule]\nlabels = { a = "b" }', 1, "write [[rule]], with two brackets"),
        ("[capacity]\nprice = 1", 1, "write [[capacity]], with two brackets"),
        ("exporter.otlp = 1", 1, "exporter.otlp must be a table, not a number"),
        (
            '[[rule]]\nlabels = { a = "b" }\n\n[[rule]]\n# no labels\nname = "x"',
            4,
            "the rule 'x' gives no labels",
        ),
        (
            '[[rule]]\nname = "x"\nlables = { a = "b" }',
            3,
            "unknown key rule.lables; did you mean rule.labels?",
        ),
        (
            '[[rule]]\nlabels = { a = "b" }\n[rule.match]\nsystem = "x"\nsytem = "y"',
            5,
            "unknown key match.sytem; did you mean match.system?",
        ),
        (
            '[[rule]]\nlabels = { a = "b" }\nmatch = { sytem = "y" }',
            3,
            "unknown key match.sytem; did you mean match.system?",
        ),
        (
            '[[rule]]\nlabels = { a = "b" }\nmatch = { port = 1.5 }',
            3,
            "match.port must be a pattern or a list of them, not a number",
        ),
        (
            '[[rule]]\n[rule.labels]\na = "b"\nc = [1]',
            4,
            "the label 'c' must be text, not a list",
        ),
        (
            '[[capacity]]\nhost = "a"\nprice = "1"\ncurrency = "USD"\n\n[[capacity]]\nprice = 1.5',
            7,
            "[[capacity]]: price must be text in quotes",
        ),
        ('a = "b\nc = 1', 1, "is not TOML: "),
        ('a = """\n\n', 3, "is not TOML: Unterminated string (at its end)"),
        ("a = 1\na = 2\n", 2, "is not TOML: Cannot overwrite a value (column 6)"),
    ],
)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "pyproject"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_mistake_is_one_message_with_file_and_line(
    text: str, line: int, message: str, shared: bool, newline: str
) -> None:
    service, name = 'service = "used"\n', "costinsights.toml"
    if shared:
        text = re.sub(r"(?m)^(\[\[?)", r"\1tool.costinsights.", text)
        service = f"[tool.costinsights]\n{service}"
        name = "pyproject.toml"
    text = f"{service}{text}"
    path = Path.cwd() / name
    path.write_bytes(text.replace("\n", newline).encode())
    found = load()
    told = problem(found)
    assert told.startswith(f"{path}:{line + service.count(chr(10))}: "), told
    assert message in told
    assert found.service == ("used" if "not TOML" not in told else config.program_name())


def test_several_mistakes_are_several_messages_and_the_rest_is_used() -> None:
    path = write(
        'ledger = 5\nservice = "used"\ntagging = "of"\n[labels]\na = []\nteam = "growth"\n'
        '[[rule]]\nnam = "x"\nlabels = { a = "b" }\n[[rule]]\nlabels = { a = "b" }\n'
    )
    found = load()
    assert [told.split(": ")[0] for told in found.problems] == [
        f"{path}:{line}" for line in (1, 3, 5, 8)
    ]
    assert (found.service, found.labels) == ("used", {"team": "growth"})
    assert [rule.name for rule in found.rules] == ["#2"]
    assert found.ledger == config.default_ledger()


def test_a_capacity_with_a_mistake_is_left_out_and_the_others_stay() -> None:
    good = '[[capacity]]\nhost = "%s"\nprice = "1"\ncurrency = "USD"\n'
    write(good % "a" + '[[capacity]]\nhost = "b"\n' + good % "c")
    found = load()
    assert ":5: [[capacity]]: " in problem(found)
    assert [capacity["host"] for capacity in found.capacities] == ["a", "c"]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("COSTINSIGHTS_TAGGING", "nativ", "COSTINSIGHTS_TAGGING: tagging must be one of"),
        ("COSTINSIGHTS_LABELS", "team=a,,job", "COSTINSIGHTS_LABELS: item 2 is not key=value"),
        ("COSTINSIGHTS_LABELS", "=a", "COSTINSIGHTS_LABELS: item 1 is not key=value"),
        ("COSTINSIGHTS_PRICE_BOOK", "nowhere", "COSTINSIGHTS_PRICE_BOOK: there is no file /"),
        ("COSTINSIGHTS_CONFIG", "nowhere", "COSTINSIGHTS_CONFIG: /"),
        ("COSTINSIGHTS_CONFIG", ".", "COSTINSIGHTS_CONFIG: /"),
        ("COSTINSIGHTS_DISABLED", "maybe", "COSTINSIGHTS_DISABLED is neither true nor false"),
        ("COSTINSIGHTS_EXPORTER", "x", "did you mean COSTINSIGHTS_EXPORTERS?"),
        ("COSTINSIGHTS_LEGDER", "x", "did you mean COSTINSIGHTS_LEDGER?"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    variable: str, value: str, message: str
) -> None:
    os.environ[variable] = value
    found = load(ledger="used")
    assert message in problem(found)
    assert found.ledger.endswith("used")


def test_a_variable_of_somebody_elses_is_no_mistake() -> None:
    os.environ["COSTINSIGHTS_PG_DSN"] = "postgresql://localhost"
    assert load().problems == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tagging": "native "}, "instrument: tagging must be one of off, native, comment"),
        ({"price_book": "nowhere"}, "instrument(price_book=…): there is no file /"),
        ({"config": "nowhere"}, "nowhere: No such file or directory"),
        ({"config": 5}, "instrument(config=…): a number is neither a path nor a mapping"),
        (
            {"config": {"ledgr": "x"}},
            "instrument(config=…): unknown key ledgr; did you mean ledger?",
        ),
    ],
)
def test_a_mistake_in_an_argument_says_which(arguments: dict[str, Any], message: str) -> None:
    assert message in problem(load(**arguments))


def test_a_file_that_cannot_be_text_is_refused_with_its_line() -> None:
    path = Path.cwd() / "costinsights.toml"
    path.write_bytes(b'a = "b"\nc = "\xff"\n')
    assert problem(load()) == f"{path}:2: is not UTF-8 text"


def test_a_file_that_is_far_too_long_is_refused() -> None:
    path = write("#" * (MAX_BYTES + 1))
    assert problem(load()) == f"{path}: is longer than {MAX_BYTES} bytes"


def test_a_file_that_is_nested_too_deeply_is_refused() -> None:
    write(f"a = {'[' * 100_000}")
    assert "nested too deeply" in problem(load()) or "is not TOML" in problem(load())


def test_what_nobody_thought_of_costs_the_program_nothing() -> None:
    class Hostile(dict[str, object]):
        def items(self) -> Any:
            raise RuntimeError("hostile")

    found = load(config=Hostile(ledger="x"))
    assert "RuntimeError" in problem(found)
    assert found.ledger == config.default_ledger()


@given(st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_file_breaks_the_program(text: str) -> None:
    path = Path.cwd() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = load(config=path)
    assert all(told.startswith(str(path)) for told in found.problems)


_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["ledger", "exporters", "labels", "rule", "exporter", "capacity", "x"]),
        _values,
    )
)
def test_no_mapping_breaks_the_program(given_config: dict[str, object]) -> None:
    for told in load(config=given_config).problems:
        assert told.startswith("instrument(config=…): ")


# --- secrets ------------------------------------------------------------------------------------


def test_a_secret_is_in_no_message_and_no_repr() -> None:
    secret = "s3cr3t"
    templates = [
        '[exporter.otlp]\nheaders = {{ authorization = "{0}" }}\n',
        '[exporter.otlp]\nheaders = "{0}"\nheaders = 1\n',
        'exporter = "{0}"\n',
        'exporter.otlp = "{0}"\n',
        'exporters = [["{0}"]]\n',
        'tagging = "{0}"\n',
        'retention_days = "{0}"\n',
        '[labels]\na = ["{0}"]\n',
        '[[rule]]\nname = ["{0}"]\n',
        '[[rule]]\nlabels = {{ a = ["{0}"] }}\n',
        '[[rule]]\nmatch = "{0}"\n',
        '[[rule]]\nlabels = {{ a = "b" }}\nmatch = {{ system = {{ a = "{0}" }} }}\n',
        'unknown = "{0}"\n',
        'ledger = "{0}\n',
        "ledger = {0}\n",
        'ledger = "\\{0}"\n',
    ]
    for template in templates:
        path = write(template.format(secret))
        found = load()
        assert all(told.startswith(str(path)) for told in found.problems)
        assert secret not in repr(found)
        assert secret not in str(found)
        assert secret not in str(found.problems)
    for variable in ("LABELS", "TAGGING", "DISABLED"):
        os.environ[f"COSTINSIGHTS_{variable}"] = secret
    assert secret not in str(load().problems)


# --- the lines of a TOML text -------------------------------------------------------------------


def test_lines_are_found_past_everything_that_toml_allows() -> None:
    text = '''\
# comment with = and [brackets]
a = 1
"quoted key" = """
[not.a.table]
b = 2
"""                           # 6
b = [ 1, # ] comment
  "]", '[', """
"""]
c = { d = 1, e = [2] }        # 10
'lit' = \'\'\'
"""\'\'\'
f.g . "h" = 3                 # 13

[ t . u ] # comment [x]
k = "a \\" # not a comment"
  [[ r ]]
  k = 1                       # 18
  [r.s]
  k = 2
[[r]]
k = 3                         # 22
[[r.q]]
k = 4
e = """"four quotes""""
last = 'no line feed' '''
    lines = lines_of(text)
    assert {path: line for path, line in lines.items() if len(path) == 1} == {
        ("a",): 2,
        ("quoted key",): 3,
        ("b",): 7,
        ("c",): 10,
        ("lit",): 11,
        ("f",): 13,
        ("t",): 15,
        ("r",): 17,
    }
    assert lines["f", "g", "h"] == 13
    assert lines["t", "u", "k"] == 16
    assert lines["r", 0, "k"] == 18
    assert lines["r", 0, "s", "k"] == 20
    assert lines["r", 1, "k"] == 22
    assert lines["r", 1, "q", 0, "k"] == 24
    assert lines["r", 1, "q", 0, "last"] == 26
    assert line_of(lines, ("c", "e", 0)) == 10
    assert line_of(lines, ("nowhere",)) == 1


@given(st.text("ab=.#[]{}\"'\n\\ ", max_size=40))
def test_walking_through_any_text_ends(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in lines_of(text).values())


# --- what it costs ------------------------------------------------------------------------------


def test_loading_without_a_file_imports_nothing_and_takes_less_than_a_millisecond() -> None:
    assert min(repeat(load, number=10, repeat=10)) < 10 * 0.001
    program = (
        "import sys; from costinsights.config import load; before = set(sys.modules); load();"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == ""


def test_a_good_file_needs_no_line_numbers() -> None:
    write('ledger = "l"\n[labels]\nteam = "growth"')
    program = (
        "import sys; from costinsights.config import load; found = load(); assert found.labels;"
        "print('costinsights.tomllines' in sys.modules, 'difflib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "False False"


# --- what the documentation says ----------------------------------------------------------------


def test_the_documentation_names_every_key_and_every_variable() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    for key in KEYS:
        assert f"`{key}`" in page or f"[{key}" in page, key
    for name in config.VARIABLES:
        assert f"`COSTINSIGHTS_{name}" in page, name
