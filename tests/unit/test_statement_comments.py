"""Attribution from comments: dbt's, and sqlcommenter's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights import comments
from costinsights.statement import LONGEST_READ, parse

DBT = {
    "app": "dbt",
    "dbt_version": "1.10.2",
    "profile_name": "shop",
    "target_name": "prod",
    "node_id": "model.shop.orders",
}
FROM_DBT = {
    "rule": "dbt",
    "asset": "orders",
    "dbt.node_id": "model.shop.orders",
    "dbt.target": "prod",
}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ("postgresql", "/* {} */ SELECT 1"),
        ("postgresql", "\n  /*{}*/\nSELECT 1"),
        ("snowflake", "SELECT 1\n/* {} */"),
        ("snowflake", "SELECT 1 /* {} */;"),
        ("aws.athena", "-- {}\nSELECT 1"),
        ("aws.athena", "-- /* {} */\nSELECT 1"),
        ("gcp.bigquery", "# {}\nSELECT 1"),
        ("", "/* {} */ SELECT 1"),
        ("postgresql", '/* run by: {} and then {{ some " junk */ SELECT 1'),
        ("postgresql", "/* a */ SELECT /* team='x' */ 1 /* {} */"),
    ],
)
def test_dbts_comment(system: str, text: str) -> None:
    read = parse(text.replace("{}", json.dumps(DBT), 1), system)
    assert read.comment == FROM_DBT
    assert read.fingerprint == parse("SELECT 1", system).fingerprint


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {**DBT, "invocation_id": "5a6b", "team": "finance", "job": "nightly", "run": "r1"},
            {**FROM_DBT, "dbt.invocation_id": "5a6b", "team": "finance", "job": "nightly", "run": "r1"},
        ),
        ({"app": "dbt", "target_name": "dev", "connection_name": "master"}, {"rule": "dbt", "dbt.target": "dev"}),
        ({"node_id": "model.shop.orders"}, {"rule": "dbt", "asset": "orders", "dbt.node_id": "model.shop.orders"}),
        (
            {"node_id": "test.shop.not_null_orders_id.cf6c17daed"},
            {"rule": "dbt", "asset": "not_null_orders_id", "dbt.node_id": "test.shop.not_null_orders_id.cf6c17daed"},
        ),
        (
            {"node_id": "source.shop.raw.payments"},
            {"rule": "dbt", "asset": "raw.payments", "dbt.node_id": "source.shop.raw.payments"},
        ),
        ({"node_id": "orders", "app": "dbt"}, {"rule": "dbt", "asset": "orders", "dbt.node_id": "orders"}),
        (
            {"app": "dbt", "node_id": "model.a." + "b" * 400, "team": "x\x00\n\u202ey"},
            {"rule": "dbt", "asset": "b" * 248, "dbt.node_id": "model.a." + "b" * 248, "team": "xy"},
        ),
        # nothing of dbt's in it
        ({"app": "other", "asset": "x"}, None),
        ({"about": "dbt", "node_id": 5}, None),
        ({"app": "dbt", "email": "a@b.c", "password": "x", "node_id": {"a": 1}}, {"rule": "dbt"}),
    ],
)  # fmt: skip
def test_fields_of_dbts_comment(fields: dict[str, object], expected: dict[str, str] | None) -> None:
    assert parse(f"/* {json.dumps(fields)} */ SELECT 1", "postgresql").comment == expected


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("/*asset='orders',team='a b'*/", {"asset": "orders", "team": "a b", "rule": "sqlcommenter"}),
        ("-- job='nightly'", {"job": "nightly", "rule": "sqlcommenter"}),
        (
            (
                "/*action='index',application='shop',controller='users',db_driver='psycopg%3A3',"
                "framework='django%3A5.1',partition='2026-01-01',route='%5Epolls%2F',run='r1'*/"
            ),
            {
                "action": "index",
                "application": "shop",
                "controller": "users",
                "db_driver": "psycopg:3",
                "framework": "django:5.1",
                "partition": "2026-01-01",
                "route": "^polls/",
                "run": "r1",
                "rule": "sqlcommenter",
            },
        ),
        ("/*db_driver='psycopg%%3A3'*/", {"db_driver": "psycopg:3", "rule": "sqlcommenter"}),
        ("/*team='it\\'s'*/", {"team": "it's", "rule": "sqlcommenter"}),
        (f"/*traceparent='{TRACEPARENT}',x='y'*/", {"traceparent": TRACEPARENT, "rule": "sqlcommenter"}),
        ("/*traceparent='00-xyz'*/", None),
        ("/*team='" + "x" * 300 + "'*/", {"team": "x" * 256, "rule": "sqlcommenter"}),
        ("/*team='a%00%0Ab%E2%80%AEc'*/", {"team": "abc", "rule": "sqlcommenter"}),
        ("/*team=''*/", None),
        ("/*AIRFLOW_CTX_DAG_EMAIL='a@b.c',password='x'*/", None),
        ("/*WHERE team='x' AND 1*/", None),
        ("/*team=x*/", None),
        ("/* an ordinary comment */", None),
        ("/**/", None),
        ("--", None),
        # in front of a text that only looks like a comment
        (", '/*team=''x''*/'", None),
        (", $$/*team='x'*/$$", None),
    ],
)  # fmt: skip
def test_sqlcommenter(comment: str, expected: dict[str, str] | None) -> None:
    assert parse("SELECT 1 " + comment, "postgresql").comment == expected


def test_the_earlier_comment_counts() -> None:
    text = "/*team='a'*/ SELECT 1 /*team='b',job='c'*/"
    assert parse(text, "mysql").comment == {"team": "a", "rule": "sqlcommenter"}


def test_there_are_at_most_sixteen_keys() -> None:
    known = [*comments._ATTRIBUTION, *sorted(comments._LABELS)]  # pyright: ignore[reportPrivateUsage]
    pairs = ",".join(f"{key}='x'" for key in known)
    assert len(known) > comments.MOST_KEYS
    found = parse(f"SELECT 1 /*{pairs}*/", "mysql").comment
    assert found is not None
    assert len(found) == comments.MOST_KEYS


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("/* " + json.dumps(DBT) + " */", FROM_DBT),
        (" /*team='x'*/ ;\n", {"team": "x", "rule": "sqlcommenter"}),
        ("\n-- team='x'", {"team": "x", "rule": "sqlcommenter"}),
        ("team='x'*/", None),
        ("", None),
    ],
)
def test_the_last_comment_of_a_statement_too_long_to_read(
    end: str, expected: dict[str, str] | None
) -> None:
    text = "SELECT a" + ", b" * LONGEST_READ + end
    assert parse(text, "snowflake").comment == expected


@pytest.mark.parametrize(
    "body",
    [
        "dbt " + "{" * 100_000,
        'dbt {"node_id": ' + "[" * 8000,
        '{"app": "dbt", "node_id": "' + "x" * 10_000,
        '{"app": "dbt", "node_id": "\ud800"}',
        "a='" * 5000,
        "a='b'," * 2000 + "!",
        "a='" + "\\" * 8000,
        "team='%" + "%" * 5000 + "'",
    ],
)
def test_a_comment_made_to_break_the_reader(body: str) -> None:
    read = parse(f"SELECT 1 /*{body}*/", "postgresql")
    assert read.text in ("SELECT ?", "SELECT ? …")
    assert not read.comment or set(read.comment) <= {"rule", "team"}


@settings(deadline=None)
@given(
    st.text(), st.dictionaries(st.sampled_from([*DBT, "team", "run"]), st.text() | st.integers())
)
def test_whatever_is_in_a_comment_comes_out_bounded(junk: str, fields: dict[str, str]) -> None:
    for body in (junk, json.dumps(fields), f"{junk}{json.dumps(fields)}", f"team='{junk}'"):
        found = comments.attribution([f"/*{body}*/", f"--{body}"])
        if found is not None:
            assert found["rule"] in ("dbt", "sqlcommenter")
            assert len(found) <= comments.MOST_KEYS
            assert all(len(value) <= comments.LONGEST_VALUE for value in found.values())
            assert all(value.isprintable() for value in found.values())
