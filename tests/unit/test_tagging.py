from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import costinsights
from costinsights.ledger.reader import read_ledger
from costinsights.statement import parse
from costinsights.tagging import (
    MARK,
    MAX_TEXT,
    NATIVE_LIMIT,
    can_carry,
    native_tag,
    tag_in,
    tag_of,
    tagger_for,
    with_comment,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.,=-")
TAG = "ci,asset=orders,job=nightly"

# --- what a tag is ------------------------------------------------------------------------------


def test_off_tags_nothing_and_costs_nothing() -> None:
    assert tagger_for("off") is None


def test_a_tag_says_the_words_it_has() -> None:
    assert tag_of({"asset": "orders", "job": "nightly"}) == TAG
    assert tag_of({"asset": None, "job": "nightly"}) == "ci,job=nightly"
    assert tag_of({"asset": None, "job": ""}) is None


@given(st.text(min_size=1))
def test_a_tag_has_no_sign_that_means_something_to_a_driver(value: str) -> None:
    tag = tag_of({"asset": value})
    assert tag is not None
    assert ALPHABET.issuperset(tag)
    assert len(tag) <= 70


def test_what_stands_for_a_folder_stays_readable() -> None:
    assert tag_of({"asset": "mart/orders daily"}) == "ci,asset=mart.orders_daily"


# --- the name of a connection -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("existing", "name"),
    [
        (None, "ci,job=nightly"),
        ("", "ci,job=nightly"),
        ("my app", "my app,ci,job=nightly"),
        ("x" * 55, "x" * 55 + ",ci,job="),
        ("x" * 59, "x" * 59 + ",ci"),
        ("x" * 60, "x" * 60 + ",ci"),
        ("x" * 61, None),  # the program's own name is never cut
        ("x" * 80, None),
        ("é" * 31, None),  # 62 bytes
        ("my app,ci,job=other", None),  # as a pool that hands on what it was given
        ("ci", None),
    ],
)
def test_the_programs_own_name_stays_and_the_tag_comes_behind_it(
    existing: str | None, name: str | None
) -> None:
    assert native_tag(existing, NATIVE_LIMIT, "ci,job=nightly") == name


@given(st.text(), st.integers(0, 70), st.text(min_size=1))
def test_a_name_is_never_too_long_and_says_its_tag(existing: str, limit: int, job: str) -> None:
    assume(tag_in(existing) is None)
    tag = tag_of({"job": job})
    assert tag is not None
    name = native_tag(existing, limit, tag)
    if name is not None:
        assert name.startswith(existing)
        assert len(name.encode("utf-8", "replace")) <= limit
        found = tag_in(name)
        assert found is not None
        assert tag.startswith(found)


@pytest.mark.parametrize("name", [None, "", "app", "cinema", "app,cinema", "xci,job=a", "app ci"])
def test_a_name_without_a_tag_has_none(name: str | None) -> None:
    assert tag_in(name) is None


def test_a_tag_is_found_in_a_name() -> None:
    assert tag_in("ci") == MARK
    assert tag_in("app,ci") == MARK
    assert tag_in("ci,job=nightly") == "ci,job=nightly"
    assert tag_in("my,app,ci,job=nightly") == "ci,job=nightly"


# --- which statements carry a comment -----------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "  \n select 1",
        "((SELECT 1) UNION (SELECT 2))",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "INSERT INTO t VALUES (%s, %(b)s, ?, :c, $1)",
        "UPDATE t SET a = 'it''s'",
        "DELETE FROM t",
        "MERGE INTO t USING u ON TRUE WHEN MATCHED THEN DELETE",
        "-- first\nSELECT 1 -- second\nFROM t"[9:],
        'SELECT "a" FROM `b`',
        "SELECT 1\n",
    ],
)
def test_a_statement_can_carry_a_comment(text: str) -> None:
    assert can_carry(text)
    tagged = with_comment(text, TAG)
    assert tagged == f"{text} /*{TAG}*/"
    assert with_comment(text.encode(), TAG) == f"{text} /*{TAG}*/".encode()
    assert parse(f"{tagged}", "postgresql").fingerprint == parse(text, "postgresql").fingerprint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        ";",
        "SELECT 1;",
        "SELECT 1; SELECT 2",
        "SELECT ';'",  # told from the end of a statement only by a lexer of the right dialect
        "SELECT 1 -- the end",
        "SELECT 1 # the end",
        "SELECT 1 /* dbt */",
        '/* {"app": "dbt"} */ SELECT 1',
        "SELECT 1 /* open",
        "SELECT 'open",
        'SELECT "open',
        "SELECT `open",
        "SELECT E'\\''",  # an odd number of quotes: a lexer would know better
        "SELECT 1\0",
        "-- nothing",
        "COPY t FROM STDIN",
        "CREATE VIEW v AS SELECT 1",  # the comment would stay with the view
        "CREATE PROCEDURE p() SELECT 1",
        "CALL p()",
        "BEGIN",
        "SET a = 1",
        "VACUUM",
        "LOAD DATA INFILE 'x' INTO TABLE t",
        "EXPLAIN SELECT 1",
        "PREPARE p AS SELECT 1",
        "SELECTED",
        "a > 1",
    ],
)
def test_a_statement_is_left_alone(text: str) -> None:
    assert not can_carry(text)
    assert with_comment(text, TAG) is None
    assert with_comment(text.encode(), TAG) is None


def outcome(connection: sqlite3.Connection, text: str) -> object:
    try:
        return connection.execute(text).fetchall()
    except (sqlite3.Error, ValueError, UnicodeError) as error:
        return type(error)


_pieces = st.sampled_from(
    [
        "SELECT",
        "1",
        "'",
        '"',
        "`",
        "a",
        "FROM t",
        "--",
        "/*",
        "*/",
        ";",
        "\n",
        "(",
        ")",
        ",",
        "[",
        "]",
    ]
)


@given(st.one_of(st.text(), st.lists(_pieces).map(" ".join)))
def test_a_comment_changes_no_outcome(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (7)")
        query = f"SELECT {text}"
        tagged = with_comment(query, TAG)
        if tagged is not None:
            assert isinstance(tagged, str)
            assert outcome(connection, tagged) == outcome(connection, query)
    finally:
        connection.close()


# --- from the program to the engine and to the record -------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Path]:
    """Statements of sqlite3 get comments, and are recorded here."""
    costinsights.instrument("sqlite3", ledger=tmp_path, exporters=[], tagging="comment")
    yield tmp_path
    costinsights.uninstrument()


@pytest.fixture
def connection(ledger: Path) -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    yield made
    made.close()


def seen_by(connection: sqlite3.Connection) -> list[str]:
    """What reaches the engine from now on."""
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    return seen


def tags(ledger: Path) -> list[str | None]:
    return [charge.tag for charge in read_ledger(str(ledger)) if charge.revision == 0]


def test_the_engine_sees_the_comment_and_the_record_says_it(
    connection: sqlite3.Connection, ledger: Path
) -> None:
    seen = seen_by(connection)
    with costinsights.attribute(asset="orders", job="nightly"):
        assert connection.cursor().execute("SELECT 1").fetchall() == [(1,)]
        with costinsights.attribute(asset="refunds"):
            assert connection.cursor().execute("SELECT ?", (2,)).fetchall() == [(2,)]
    assert connection.cursor().execute("SELECT 3").fetchall() == [(3,)]
    assert seen == [
        f"SELECT 1 /*{TAG}*/",
        "SELECT 2 /*ci,asset=refunds,job=nightly*/",
        "SELECT 3",
    ]
    assert tags(ledger) == [TAG, "ci,asset=refunds,job=nightly", None]
    texts = [c.statement.text for c in read_ledger(str(ledger)) if c.statement is not None]
    assert all("ci," not in text for text in texts)


def test_what_carries_no_comment_has_no_tag(connection: sqlite3.Connection, ledger: Path) -> None:
    seen = seen_by(connection)
    with costinsights.attribute(asset="orders"):
        connection.cursor().execute("CREATE TABLE t (a)")
        connection.cursor().executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
        connection.cursor().execute("SELECT 1;").fetchall()
        connection.cursor().executescript("SELECT 1; SELECT 2;")
    assert not any("ci," in text for text in seen)
    assert set(tags(ledger)) == {None}


def test_partition_and_run_are_in_no_comment(connection: sqlite3.Connection, ledger: Path) -> None:
    """They change with every run, and the comment must not."""
    seen = seen_by(connection)
    for run in ("1", "2"):
        with costinsights.attribute(asset="orders", job="nightly", run=run, partition=run):
            connection.cursor().execute("SELECT 1").fetchall()
    assert seen == [f"SELECT 1 /*{TAG}*/"] * 2


def test_labels_of_the_environment_are_in_the_comment(tmp_path: Path) -> None:
    costinsights.instrument(
        "sqlite3",
        ledger=tmp_path,
        exporters=[],
        tagging="comment",
        attribution={"job": "nightly"},
    )
    try:
        connection = sqlite3.connect(":memory:")
        seen = seen_by(connection)
        connection.cursor().execute("SELECT 1").fetchall()
        connection.close()
    finally:
        costinsights.uninstrument()
    assert seen == ["SELECT 1 /*ci,job=nightly*/"]


def test_a_text_that_is_more_than_text_is_left_alone(
    connection: sqlite3.Connection, ledger: Path
) -> None:
    class Text(str):
        __slots__ = ()

    seen = seen_by(connection)
    with costinsights.attribute(asset="orders"):
        connection.cursor().execute(Text("SELECT 1")).fetchall()
        connection.cursor().execute(f"SELECT '{'x' * MAX_TEXT}'").fetchall()
    assert not any("ci," in text for text in seen)
    assert tags(ledger) == [None, None]


def test_by_default_the_engine_sees_what_the_program_sends(tmp_path: Path) -> None:
    costinsights.instrument("sqlite3", ledger=tmp_path, exporters=[])
    try:
        connection = sqlite3.connect(":memory:")
        seen = seen_by(connection)
        with costinsights.attribute(asset="orders", job="nightly"):
            connection.cursor().execute("SELECT 1").fetchall()
        connection.close()
    finally:
        costinsights.uninstrument()
    assert seen == ["SELECT 1"]
    assert tags(tmp_path) == [None]
