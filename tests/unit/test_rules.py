from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costinsights.attribution import overlay
from costinsights.records import Resource
from costinsights.rules import FIELDS, Rule, applicable
from costinsights.statement import parse

RESOURCE = Resource(address="db.growth.example", port=5432, namespace="Orders")
STATEMENT = parse("SELECT id FROM Customers WHERE id = 7", "postgresql")


def fits(match: dict[str, str | list[str]], *, operation: str | None = None) -> bool:
    return Rule("r", match, {"team": "growth"}).matches(
        "postgresql",
        RESOURCE,
        STATEMENT,
        instrumentor="psycopg",
        operation=operation,
        service="nightly-etl",
        user="etl_nightly",
    )


@pytest.mark.parametrize(
    ("field", "yes", "no"),
    [
        ("system", "postgresql", "mysql"),
        ("system", "postgres*", "postgres"),
        ("address", "*.growth.example", "*.example.growth"),
        ("port", "5432", "5433"),
        ("port", "54??", "54?"),
        ("namespace", "orders", "order"),
        ("service", "nightly-*", "daily-*"),
        ("instrumentor", "psycopg", "psycopg2"),
        ("operation", "select", "INSERT"),
        ("summary", "*customers*", "*orders*"),
        ("text", "select*where id = [?]", "*7*"),  # the text is redacted: there is no 7 in it
        ("fingerprint", STATEMENT.fingerprint, "0" * 16),
        ("user", "ETL_*", "etl"),
    ],
)
def test_a_field_fits_its_pattern(field: str, yes: str, no: str) -> None:
    assert fits({field: yes})
    assert not fits({field: no})


def test_every_field_is_tested_above() -> None:
    marks = test_a_field_fits_its_pattern.pytestmark  # type: ignore[attr-defined]  # pytest's own
    assert {parameters[0] for parameters in marks[0].args[1]} == set(FIELDS)


def test_all_fields_must_fit() -> None:
    assert fits({"system": "postgresql", "namespace": "orders"})
    assert not fits({"system": "postgresql", "namespace": "refunds"})


def test_one_of_several_patterns_is_enough() -> None:
    assert fits({"operation": ["INSERT", "SEL*"]})
    assert not fits({"operation": ["INSERT", "UPDATE"]})
    assert not fits({"operation": []})


def test_an_empty_match_fits_every_call() -> None:
    assert fits({})
    assert Rule("rest", {}, {"team": "platform"}).matches("duckdb", Resource(), None)


def test_what_the_method_says_comes_before_what_the_text_says() -> None:
    assert fits({"operation": "COPY"}, operation="COPY")
    assert not fits({"operation": "SELECT"}, operation="COPY")


def test_what_a_call_does_not_have_is_empty_text() -> None:
    for field in ("address", "port", "namespace", "operation", "summary", "text", "fingerprint"):
        assert Rule("r", {field: ""}, {}).matches("duckdb", Resource(), None)
        assert Rule("r", {field: "*"}, {}).matches("duckdb", Resource(), None)
        assert not Rule("r", {field: "?*"}, {}).matches("duckdb", Resource(), None)


def test_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'sytem'.*system, address"):
        Rule("r", {"sytem": "postgresql"}, {})


def test_the_first_rule_that_gives_a_label_wins() -> None:
    rules = [
        Rule("orders", {"namespace": "orders"}, {"asset": "orders"}),
        Rule("elsewhere", {"namespace": "elsewhere"}, {"team": "nobody"}),
        Rule("growth", {"address": "*.growth.*"}, {"asset": "other", "team": "growth"}),
        Rule("rest", {}, {"team": "platform", "tier": "gold"}),
    ]
    found = overlay(
        [
            (f"rule:{rule.name}", rule.labels)
            for rule in rules
            if rule.matches("postgresql", RESOURCE, STATEMENT)
        ]
    )
    assert found == {
        "asset": "orders",
        "team": "growth",
        "tier": "gold",
        "rule": "rule:orders+rule:growth+rule:rest",
    }


def test_what_a_rule_says_of_the_program_is_decided_once() -> None:
    rules = [
        Rule("mine", {"service": ["night*", "day*"], "system": "mysql"}, {"team": "a"}),
        Rule("yours", {"service": "bi"}, {"team": "b"}),
        Rule("everybody's", {"system": "mysql"}, {"team": "c"}),
    ]
    kept = applicable(rules, "Nightly")
    assert [rule.name for rule in kept] == ["mine", "everybody's"]
    assert kept[0].matches("mysql", Resource(), None)
    assert not kept[0].matches("postgresql", Resource(), None)


@given(st.text("ab*?[]!-", max_size=8), st.text("ab[]!-", max_size=8))
def test_patterns_are_shell_globs(pattern: str, value: str) -> None:
    rule = Rule("r", {"namespace": pattern}, {})
    assert rule.matches("x", Resource(namespace=value), None) == fnmatchcase(value, pattern)


@given(st.lists(st.text(max_size=12), max_size=4), st.text(max_size=12))
def test_no_pattern_and_no_value_breaks_a_rule(patterns: list[str], value: str) -> None:
    rule = Rule("r", {"namespace": patterns}, {})
    assert rule.matches("x", Resource(namespace=value), None) in (True, False)


def test_a_hostile_pattern_takes_no_time() -> None:
    rule = Rule("r", {"text": "*a" * 40 + "b"}, {})
    long = parse("SELECT " + ", ".join(["aaaaaaaa"] * 3000), "postgresql")
    assert not rule.matches("postgresql", Resource(), long)


def test_the_documentation_names_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "attribution.md").read_text(encoding="utf-8")
    for field in FIELDS:
        assert f"`{field}`" in page, field
