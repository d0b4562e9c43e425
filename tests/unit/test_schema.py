"""The published JSON Schema says exactly what a record has, and every record keeps to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costinsights import schema
from costinsights.ledger.columns import COLUMNS
from costinsights.ledger.reader import read_ledger
from costinsights.records import BASES, Charge, ErrorInfo, PriceInfo, Resource, StatementInfo
from tests.ledgers import Program

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = schema.charge()
CHECKER: Any = jsonschema.Draft202012Validator(SCHEMA)


def fields(kind: type[msgspec.Struct]) -> list[str]:
    return list(kind.__struct_fields__)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_it_has_every_field_and_no_other() -> None:
    properties = SCHEMA["properties"]
    assert list(properties) == fields(Charge)
    assert SCHEMA["required"] == fields(Charge)
    assert list(properties["resource"]["properties"]) == fields(Resource)
    assert list(properties["statement"]["properties"]) == fields(StatementInfo)
    assert list(properties["price"]["properties"]) == fields(PriceInfo)
    assert list(properties["error"]["properties"]) == fields(ErrorInfo)
    assert properties["basis"]["enum"] == list(BASES)


def test_every_field_is_explained() -> None:
    assert all("description" in field for field in SCHEMA["properties"].values())


def example(tmp_path: Path) -> dict[str, Any]:
    program = Program(tmp_path)
    program.call(labels={"asset": "a"}, error=("builtins.ValueError", None))
    program.close()
    (charge,) = read_ledger(str(tmp_path))
    found: dict[str, Any] = json.loads(msgspec.json.encode(charge))
    CHECKER.validate(found)
    return found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", 0.1),
        ("amount", "1e-7"),
        ("amount", None),  # its currency is still there
        ("currency", "dollars"),
        ("started_at", "2026-11-22 12:00:00"),
        ("duration_ns", -1),
        ("basis", "guessed"),
        ("trace_id", "0"),
        ("rows", -1),
        ("attribution", {"asset": "a"}),  # who decided?
        ("usage", {"time_ns": None}),
        ("charge_id", ""),
    ],
)
def test_it_refuses_what_is_none(tmp_path: Path, field: str, value: object) -> None:
    record = example(tmp_path)
    record[field] = value
    assert not CHECKER.is_valid(record)


@pytest.mark.parametrize("field", fields(Charge))
def test_it_misses_every_field(tmp_path: Path, field: str) -> None:
    record = example(tmp_path)
    del record[field]
    assert not CHECKER.is_valid(record)


@given(
    amount=st.none() | st.integers(-(10**22), 10**22),
    meters=st.none() | st.dictionaries(st.text(), st.integers() | st.text(), max_size=3),
    rows=st.none() | st.integers(0, 2**62),
    labels=st.dictionaries(st.text(), st.text(), max_size=3),
    duration=st.integers(0, 2**40),
)
def test_whatever_is_written_keeps_to_it(
    tmp_path_factory: pytest.TempPathFactory,
    amount: int | None,
    meters: dict[str, int | str] | None,
    rows: int | None,
    labels: dict[str, str],
    duration: int,
) -> None:
    ledger = tmp_path_factory.mktemp("ledger")
    program = Program(ledger)
    program.call(amount=amount, rows=rows, labels=labels, duration=duration, u=meters)
    program.close()
    (charge,) = read_ledger(str(ledger))
    CHECKER.validate(json.loads(msgspec.json.encode(charge)))


def test_the_documentation_has_every_field_and_column() -> None:
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
    for name in [*SCHEMA["properties"], *(column.name for column in COLUMNS)]:
        assert f"`{name}`" in page, name
