"""The statement reader: what is kept of a statement, dialect by dialect."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights import _lexer, statement
from costinsights.statement import LONGEST_READ, LONGEST_TEXT, parse

SYSTEMS = ["", *_lexer.DIALECTS]

# --- redacted text --------------------------------------------------------------------------------

REDACTED = [
    # literals of every kind
    ("", "", ""),
    ("", " \t\r\n ", ""),
    ("postgresql", "SELECT 1", "SELECT ?"),
    ("postgresql", "SELECT 'a', 'it''s', ''", "SELECT ?, ?, ?"),
    ("postgresql", "SELECT 'a'\n  'b'", "SELECT ?"),
    ("postgresql", "SELECT N'a', B'01', X'ff', U&'d\\0061', E'it\\'s'", "SELECT ?, ?, ?, ?, ?"),
    ("postgresql", "SELECT $$it's$$, $a$ $$ $a$, a$$b", "SELECT ?, ?, a$$b"),
    ("postgresql", "SELECT 1.5, .5, 1., 1e-5, 1_000, 0xFF, 1.5E+10 x", "SELECT ?, ?, ?, ?, ?, ?, ? x"),
    ("postgresql", "SELECT t1, x2y, a_3, é4 FROM t5", "SELECT t1, x2y, a_3, é4 FROM t5"),
    ("postgresql", "SELECT a-1, a - 1, -1, (-1), a = -1", "SELECT a-?, a - ?, ?, (?), a = ?"),
    ("postgresql", "SELECT DATE '2020-01-01' + INTERVAL '1' DAY", "SELECT DATE ? + INTERVAL ? DAY"),
    ("postgresql", "SELECT true, FALSE, NULL", "SELECT ?, ?, ?"),
    ("postgresql", "a IS NULL AND b IS NOT TRUE OR c = true", "a IS NULL AND b IS NOT TRUE OR c = ?"),
    ("postgresql", "CREATE TABLE t (a int NOT NULL)", "CREATE TABLE t (a int NOT NULL)"),
    ("postgresql", "SELECT 'a'::text, a::int, '{}'::jsonb->>'k'", "SELECT ?::text, a::int, ?::jsonb->>?"),
    ("postgresql", "SELECT a[1], b[1:2], f ? 'k', d #> '{x}'", "SELECT a[?], b[?:?], f ? ?, d #> ?"),
    ("postgresql", 'SELECT "a b", "c""d" FROM "S"."T"', 'SELECT "a b", "c""d" FROM "S"."T"'),
    ("mysql", "SELECT 'it\\'s', \"a\\\"b\", _utf8'x', `n 1`", "SELECT ?, ?, ?, `n 1`"),
    ("mysql", "SELECT 5--1, b'01', 0b1, x'ff'", "SELECT ?-?, ?, ?, ?"),
    ("gcp.bigquery", "SELECT '''it's''', r'\\d', b\"x\", \"a\"", "SELECT ?, ?, ?, ?"),
    ("gcp.bigquery", "SELECT * FROM `p-1.d.t_*` WHERE a = @b", "SELECT * FROM `p-1.d.t_*` WHERE a = @b"),
    ("oracle", "SELECT q'[it's]', nq'!a'!', N'x' FROM emp#", "SELECT ?, ?, ? FROM emp#"),
    ("azure.sql", "SELECT [a b], N'x', $1.50, @p FROM #t", "SELECT [a b], ?, ?, @p FROM #t"),
    ("azure.sql", 'SELECT "n" FROM t WHERE a = "x"', 'SELECT "n" FROM t WHERE a = ?'),
    ("sqlite", 'SELECT "t"."n" FROM "t" WHERE "t"."a" = "x"', 'SELECT "t"."n" FROM "t" WHERE "t"."a" = ?'),
    ("sqlite", 'SELECT 1 WHERE "a"."b" = "c"."d"', 'SELECT ? WHERE "a"."b" = "c"."d"'),
    ("sqlite", 'INSERT INTO "t" ("a", [b]) VALUES ("x", 1)', 'INSERT INTO "t" ("a", [b]) VALUES (?, ?)'),
    ("databricks", "SELECT \"a\", r'\\', 1L, 2.5BD", "SELECT ?, ?, ?, ?"),
    ("snowflake", "SELECT src:a.b::string, $1, $$x$$", "SELECT src:a.b::string, $1, ?"),
    ("duckdb", "SELECT {'a': 1, b: 2}, x['k']", "SELECT {?: ?, b: ?}, x[?]"),
    ("trino", "SELECT U&'\\0041', X'00', \"t$p\"", 'SELECT ?, ?, "t$p"'),
    ("", 'SELECT "a", `b`, \'c\' FROM t', "SELECT ?, `b`, ? FROM t"),
    # comments go, and hints with them
    ("postgresql", "SELECT /* a /* b */ c */ 1 -- d\n, x", "SELECT ? , x"),
    ("mysql", "SELECT /*+ NO_INDEX(t) */ a # b\nFROM t -- c", "SELECT a FROM t"),
    ("mysql", "SELECT /*!40001 SQL_NO_CACHE */ a FROM t", "SELECT a FROM t"),
    ("snowflake", "SELECT a // b\nFROM t", "SELECT a FROM t"),
    ("trino", "SELECT /* a /* b */ c", "SELECT c"),
    ("oracle", "SELECT a/**/b FROM t", "SELECT a b FROM t"),
    # whitespace
    ("postgresql", "  SELECT\ta ,\r\n b\u00a0FROM\n\n t ; ", "SELECT a , b FROM t"),
    # parameters stay, in every style
    ("postgresql", "a=%s AND b=%(b)s AND c=$1 AND d=%b", "a=%s AND b=%(b)s AND c=$1 AND d=%b"),
    ("oracle", "a=:a AND b=:1 AND c=?", "a=:a AND b=? AND c=?"),
    ("sqlite", "a=?1 AND b=@b AND c=$c AND d=?", "a=? AND b=@b AND c=$c AND d=?"),
    # lists
    ("postgresql", "a IN (1, 2,3) AND b IN (%s, %s)", "a IN (?) AND b IN (%s)"),
    ("postgresql", "(a, b) IN ((1, 2), (3, 4))", "(a, b) IN ((?, ?))"),
    ("postgresql", "a IN ('x'::text, 'y'::text)", "a IN (?::text)"),
    ("postgresql", "a IN (SELECT 1, 1)", "a IN (SELECT ?, ?)"),
    ("postgresql", "a = ANY(ARRAY[1, 2, -3])", "a = ANY(ARRAY[?])"),
    ("postgresql", "f(1, 2, 3)", "f(?, ?, ?)"),
    ("postgresql", "INSERT INTO t VALUES (1,'a'),(2,NULL) , (-3,%s)", "INSERT INTO t VALUES (?,?)"),
    ("postgresql", "INSERT INTO t VALUES (1), (now()), (2)", "INSERT INTO t VALUES (?), (now())"),
    ("postgresql", "SELECT * FROM (VALUES (1), (2)) AS v(a)", "SELECT * FROM (VALUES (?)) AS v(a)"),
    ("mysql", "INSERT INTO t VALUES ROW(1,2), ROW(3,4)", "INSERT INTO t VALUES ROW(?,?)"),
    (
        "mysql",
        "INSERT INTO t (a,b) VALUES (1,2),(3,4) ON DUPLICATE KEY UPDATE a=VALUES(a), b=VALUES(b)",
        "INSERT INTO t (a,b) VALUES (?,?) ON DUPLICATE KEY UPDATE a=VALUES(a), b=VALUES(b)",
    ),
    ("trino", "VALUES 1, 2, 3", "VALUES ?"),
    # names that are made up for each call
    ("postgresql", 'SAVEPOINT "s1_x2"', "SAVEPOINT ?"),
    ("postgresql", "ROLLBACK TO SAVEPOINT s1; SELECT a", "ROLLBACK TO SAVEPOINT ?; SELECT a"),
    ("postgresql", 'DECLARE "c1" CURSOR FOR SELECT a FROM t', "DECLARE ? CURSOR FOR SELECT a FROM t"),
    ("postgresql", 'FETCH FORWARD 100 FROM "c1"', "FETCH FORWARD ? FROM ?"),
    ("postgresql", "SELECT a FROM x__dbt_tmp20260101120000123", "SELECT a FROM x__dbt_tmp0"),
    ("spark", "DROP VIEW tmp_550e8400_e29b_41d4_a716_446655440000", "DROP VIEW tmp_0"),
    ("postgresql", "SELECT a FROM events_20260101", "SELECT a FROM events_20260101"),
    # a column may have a name that a secret could follow
    ("postgresql", "SELECT password, token AS t FROM u", "SELECT password, token AS t FROM u"),
    ("postgresql", "a.user_key = b.user_key", "a.user_key = b.user_key"),
    ("postgresql", "SELECT 1 WHERE a.token = b.token", "SELECT ? WHERE a.token = b.token"),
    ("postgresql", "CREATE TABLE u (password varchar(20), token text)", "CREATE TABLE u (password varchar(?), token text)"),
    ("postgresql", "ALTER ROLE bob PASSWORD 'x' VALID UNTIL 'y'", "ALTER ROLE bob PASSWORD ? VALID UNTIL ?"),
    ("oracle", 'ALTER USER bob IDENTIFIED BY "x" REPLACE y', "ALTER USER bob IDENTIFIED BY ? REPLACE ?"),
    ("azure.sql", "CREATE LOGIN b WITH (PASSWORD=x, Y=(TOKEN=z));", "CREATE LOGIN b WITH (PASSWORD=?, Y=(TOKEN=?))"),
    # what has no end is hidden to the end
    ("postgresql", "SELECT a, 'b FROM t", "SELECT a, ?"),
    ("postgresql", "SELECT a, 'b'' FROM t", "SELECT a, ?"),
    ("postgresql", "SELECT a /* b FROM t", "SELECT a"),
    ("postgresql", "SELECT a, $x$ b $$ FROM t", "SELECT a, ?"),
    ("postgresql", 'SELECT a, "b FROM t', "SELECT a, ?"),
    ("azure.sql", "SELECT a, [b FROM t", "SELECT a, ?"),
    # what is no SQL
    ("postgresql", "SELECT\x00a\x01\x02b\x7f", "SELECT a b"),
    ("postgresql", "SELECT \ud800, \u202ea\u200b, 'x\udfff'", "SELECT , a , ?"),
    ("postgresql", "SELECT \u2018a b\u2019, c", "SELECT ?, c"),
    ("postgresql", 'SELECT "a\ud800", "b\nc", "p=x", "u@h"', "SELECT ?, ?, ?, ?"),
    ("postgresql", "SELECT \u0661\u0662 FROM t", "SELECT ? FROM t"),
]  # fmt: skip


@pytest.mark.parametrize(("system", "text", "expected"), REDACTED)
def test_redacted_text(system: str, text: str, expected: str) -> None:
    assert parse(text, system).text == expected


@pytest.mark.parametrize(("system", "text", "expected"), REDACTED)
def test_a_redacted_text_is_its_own_redacted_text(system: str, text: str, expected: str) -> None:
    first = parse(text, system)
    again = parse(first.text, system)
    assert again.text == expected
    assert again.fingerprint == first.fingerprint


# --- where two readings are possible --------------------------------------------------------------

TWO_READINGS = [
    # only the dialect's own reading makes sense
    ("postgresql", r"SELECT '\', a, '\'", "SELECT ?, a, ?"),
    ("postgresql", r"a LIKE 'x\' ESCAPE '\'", "a LIKE ? ESCAPE ?"),
    ("mysql", r"SELECT 'it\'s', a, 'don\'t'", "SELECT ?, a, ?"),
    ("sqlite", r"SELECT 'C:\', a, 'x'", "SELECT ?, a, ?"),
    ("aws.redshift", r"SELECT 'it\'s', a", "SELECT ?, a"),
    ("oracle", r"SELECT replace(a, '\', '/')", "SELECT replace(a, ?, ?)"),
    # only the other one does: the server may be set so, or the text may be broken
    ("postgresql", r"SELECT b, 'it\'s', a", "SELECT b, ?"),
    ("mysql", r"SELECT b, 'C:\', a", "SELECT b, ?"),
    ("mysql", r"SELECT b, 'it\'s a", "SELECT b, ?"),
    # both do, or neither does
    ("postgresql", r"SELECT b, 'x\' -- ', c", "SELECT b, ?"),
    ("mysql", r"SELECT b, 'x\' -- ', c", "SELECT b, ?"),
    ("postgresql", r"SELECT b, 'x\' y \', c", "SELECT b, ?"),
    ("mysql", r"SELECT b, 'x\' y \', c '", "SELECT b, ?"),
    # the same end in both: no question arises
    ("postgresql", r"SELECT 'a\\', b", "SELECT ?, b"),
    # an unknown system gets no benefit of the doubt
    ("", r"SELECT 'it\'s', a", "SELECT ?"),
    ("", r"SELECT '\', a", "SELECT ?"),
    ("", "SELECT '''it's''', a", "SELECT ?"),
    ("", "SELECT q'[it's]', a", "SELECT ?"),
    ("", "SELECT a /* b /* c */ d */ e", "SELECT a ?"),
    ("", "SELECT a --b'\n, c", "SELECT a ?"),
    ("", "SELECT a # b\n, c", "SELECT a , c"),
    ("", "SELECT a -- it's\n, c", "SELECT a , c"),
    ("", "SELECT [it's], a", "SELECT ?"),
    ("", "SELECT a -- b\r'c\n, d", "SELECT a ?"),
    ("mysql", "SELECT a /*! , 'b */ c' */ FROM t", "SELECT a ?"),
]  # fmt: skip


@pytest.mark.parametrize(("system", "text", "expected"), TWO_READINGS)
def test_two_readings_of_a_text(system: str, text: str, expected: str) -> None:
    assert parse(text, system).text == expected


# --- fingerprints ---------------------------------------------------------------------------------

SAME = [
    ["SELECT a FROM t WHERE id=1", "select  A from T\nwhere ID = 'x'", "SELECT a FROM t WHERE id = -2.5e7;"],
    ["a = %s", "a=%(a)s", "a = :a", "a = ?", "a = $1", "a = @a", "a = :1", "a = 5", "a = NULL", "a=TRUE"],
    ["a IN (1)", "a IN (1, 2, 3)", "a in ('x','y')", "a IN (%s, %s)", "a IN (1, NULL, -2)"],
    ["INSERT INTO t (a) VALUES (1)", "INSERT INTO t (a) VALUES (1), (2), (%s)", "insert into t(a)values(1),(2)"],
    ["SELECT /* a */ b -- c", "-- d\nSELECT b", "SELECT /*+ e */ b;"],
    ["SELECT 'a' 'b'", "SELECT 'ab'", "SELECT $$a$$", "SELECT E'a'"],
    ["SELECT a FROM t_1234567890", "SELECT a FROM t_12345678901234"],
    ["SAVEPOINT a1", 'savepoint "b2"'],
    ["", "-- only a comment", "/* only a comment */ ;", "\x00"],
]  # fmt: skip

DIFFERENT = [
    ("SELECT a", "SELECT b"),
    ("SELECT a FROM t", "SELECT a FROM u"),
    ('SELECT "a"', 'SELECT "A"'),
    ("f(1)", "f(1, 2)"),
    ("a IS NULL", "a IS NOT NULL"),
    ("a IS TRUE", "a IS FALSE"),
    ("a = 1", "a < 1"),
    ("a IN (1)", "a IN (b)"),
    ("a - 1", "a + 1"),
    ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1, 2)"),
    ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (now())"),
    ("SELECT a::int", "SELECT a::text"),
    ("SELECT ab", "SELECT a b"),
    ("", "SELECT"),
]


@pytest.mark.parametrize("texts", SAME, ids=lambda texts: texts[0])
def test_the_same_shape_has_the_same_fingerprint(texts: list[str]) -> None:
    assert {parse(text, "postgresql").fingerprint for text in texts} == {
        parse(texts[0], "postgresql").fingerprint
    }


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_another_shape_has_another_fingerprint(one: str, other: str) -> None:
    assert parse(one, "postgresql").fingerprint != parse(other, "postgresql").fingerprint


# A change here is a change of VERSION: ledgers of different versions would not agree.
PINNED = {
    "": "6394e94656ac0e1b",
    "SELECT a FROM t WHERE b = 1": "8f9a3682126663b6",
    "INSERT INTO t VALUES (1, 'x'), (2, 'y')": "cbdf55f4ed8f09e5",
}


@pytest.mark.parametrize(("text", "expected"), PINNED.items())
def test_fingerprints_stay(text: str, expected: str) -> None:
    assert parse(text, "postgresql").fingerprint == expected


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    program = (
        "from costinsights.statement import parse\n"
        "print(parse('SELECT a, b FROM t WHERE c IN (1, 2)', 'mysql').fingerprint)"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in ("0", "1", "4711")
    }
    assert seen == {parse("select a,b from t where c in (9)", "mysql").fingerprint}


# --- operation and summary ------------------------------------------------------------------------

SUMMARIES = [
    ("postgresql", "", "", ""),
    ("postgresql", "-- comment", "", ""),
    ("postgresql", "gibberish it is", "", ""),
    ("postgresql", "SELECT 1", "SELECT", "SELECT"),
    ("postgresql", "select * from Songs, Artists a", "SELECT", "SELECT Songs Artists"),
    (
        "postgresql",
        "INSERT INTO shipping_details (order_id) SELECT order_id FROM orders",
        "INSERT",
        "INSERT shipping_details SELECT orders",
    ),
    (
        "postgresql",
        "SELECT d FROM (SELECT * FROM orders o JOIN customers c ON o.c = c.id)",
        "SELECT",
        "SELECT SELECT orders customers",
    ),
    ("postgresql", "SELECT * FROM a JOIN a b ON 1=1 JOIN c USING (x), d", "SELECT", "SELECT a c d"),
    ("postgresql", "SELECT * FROM (a JOIN b ON 1=1), LATERAL f(x) g", "SELECT", "SELECT a b f"),
    ("postgresql", "SELECT trim(both from x), extract(day from y) FROM t", "SELECT", "SELECT t"),
    ("postgresql", "SELECT a FROM t WHERE b IS DISTINCT FROM c", "SELECT", "SELECT t"),
    ("postgresql", "SELECT a FROM t FOR UPDATE", "SELECT", "SELECT t"),
    ("postgresql", "(SELECT a FROM x) UNION (SELECT b FROM y)", "SELECT", "SELECT x SELECT y"),
    ("postgresql", 'SELECT a FROM "S"."T", "my table"', "SELECT", 'SELECT S.T "my table"'),
    (
        "postgresql",
        "WITH a AS (SELECT * FROM x), b (c) AS (SELECT 1) INSERT INTO t SELECT * FROM a, b, y",
        "INSERT",
        "SELECT x SELECT INSERT t SELECT y",
    ),
    ("postgresql", "WITH RECURSIVE a AS (SELECT 1) SELECT * FROM a", "SELECT", "SELECT SELECT"),
    ("postgresql", "WITH a AS (DELETE FROM t RETURNING *) UPDATE u SET b = 1", "UPDATE", "DELETE t UPDATE u"),
    ("postgresql", "UPDATE ONLY t SET a = 1, b = 2 FROM u WHERE 1=1", "UPDATE", "UPDATE t u"),
    ("postgresql", "DELETE FROM t USING a, b WHERE 1=1", "DELETE", "DELETE t a b"),
    (
        "postgresql",
        "MERGE INTO t USING (SELECT * FROM s) q ON 1=1 WHEN MATCHED THEN UPDATE SET a=1",
        "MERGE",
        "MERGE t SELECT s",
    ),
    ("postgresql", "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 1", "INSERT", "INSERT t"),
    ("mysql", "INSERT IGNORE INTO t SET a=1 ON DUPLICATE KEY UPDATE a=1", "INSERT", "INSERT t"),
    ("mysql", "REPLACE INTO t VALUES (1)", "REPLACE", "REPLACE t"),
    ("mysql", "SELECT replace(a, 'b', 'c'), insert(a, 1, 1, 'b') FROM t", "SELECT", "SELECT t"),
    ("sqlite", "INSERT OR REPLACE INTO t VALUES (1)", "INSERT", "INSERT t"),
    ("postgresql", "CREATE TABLE IF NOT EXISTS s.t AS SELECT a FROM u", "CREATE TABLE", "CREATE TABLE s.t SELECT u"),
    ("postgresql", "create or replace temp view v as select 1", "CREATE VIEW", "CREATE VIEW v SELECT"),
    ("postgresql", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)", "CREATE INDEX", "CREATE INDEX i"),
    ("postgresql", "DROP TABLE IF EXISTS a, b.c CASCADE", "DROP TABLE", "DROP TABLE a b.c"),
    ("postgresql", "ALTER TABLE ONLY t ADD COLUMN a int", "ALTER TABLE", "ALTER TABLE t"),
    ("postgresql", "REFRESH MATERIALIZED VIEW v", "REFRESH MATERIALIZED VIEW", "REFRESH MATERIALIZED VIEW v"),
    ("postgresql", "CREATE USER bob PASSWORD 'x'", "CREATE USER", "CREATE USER"),
    ("postgresql", "GRANT SELECT, INSERT ON TABLE t TO bob", "GRANT", "GRANT t"),
    ("postgresql", "TRUNCATE a, b", "TRUNCATE", "TRUNCATE a b"),
    ("postgresql", "COPY t (a) FROM STDIN", "COPY", "COPY t"),
    ("postgresql", "COPY (SELECT a FROM t) TO STDOUT", "COPY", "COPY SELECT t"),
    ("snowflake", "COPY INTO t FROM @stage", "COPY", "COPY t"),
    ("postgresql", "CALL s.p(1)", "CALL", "CALL s.p"),
    ("oracle", "{? = call p(1)}", "CALL", "CALL p"),
    ("azure.sql", "EXEC @r = dbo.p @a = 1", "EXEC", "EXEC dbo.p"),
    ("azure.sql", "SELECT TOP (1) a FROM [dbo].[My T] CROSS APPLY f(1)", "SELECT", "SELECT dbo.[My T] f"),
    ("azure.sql", ";WITH x AS (SELECT 1 a) UPDATE TOP (5) t SET a=1", "UPDATE", "SELECT UPDATE t"),
    ("azure.sql", "SELECT * FROM db..t, #tmp", "SELECT", "SELECT db..t #tmp"),
    ("gcp.bigquery", "SELECT * FROM `p.d.t`, p-q.d.u, UNNEST(x)", "SELECT", "SELECT p.d.t p-q.d.u"),
    ("databricks", "INSERT OVERWRITE TABLE t SELECT * FROM s LATERAL VIEW f(a) e AS k, v", "INSERT", "INSERT t SELECT s"),
    ("duckdb", "FROM t SELECT a", "SELECT", "SELECT t"),
    ("duckdb", "FROM t", "SELECT", "SELECT t"),
    ("postgresql", "EXPLAIN (ANALYZE, BUFFERS) SELECT a FROM t", "EXPLAIN", "EXPLAIN SELECT t"),
    ("postgresql", "EXPLAIN ANALYZE UPDATE t SET a = 1", "EXPLAIN", "EXPLAIN UPDATE t"),
    ("postgresql", "SET LOCAL work_mem = '1GB'", "SET", "SET work_mem"),
    ("postgresql", "BEGIN; UPDATE t SET a = 1; COMMIT", "BEGIN", "BEGIN UPDATE t COMMIT"),
    ("postgresql", "start transaction", "START TRANSACTION", "START TRANSACTION"),
    ("postgresql", "ROLLBACK TO SAVEPOINT x", "ROLLBACK", "ROLLBACK"),
    ("postgresql", "VALUES (1)", "VALUES", "VALUES"),
    ("postgresql", "TABLE t", "TABLE", "TABLE t"),
    ("postgresql", "VACUUM (FULL) t", "VACUUM", "VACUUM t"),
    # a literal is no target, whatever it looks like
    ("mysql", 'SELECT * FROM "secret"', "SELECT", "SELECT"),
    ("", 'SELECT * FROM "secret"', "SELECT", "SELECT"),
    ("databricks", "SELECT * FROM csv.`s3://b/secret`", "SELECT", "SELECT csv"),
]  # fmt: skip


@pytest.mark.parametrize(("system", "text", "operation", "summary"), SUMMARIES)
def test_operation_and_summary(system: str, text: str, operation: str, summary: str) -> None:
    read = parse(text, system)
    assert (read.operation, read.summary) == (operation, summary)


def test_a_summary_ends_before_the_name_that_does_not_fit() -> None:
    names = [f"table_number_{number}" for number in range(100)]
    summary = parse("SELECT * FROM " + ", ".join(names), "postgresql").summary
    shown = summary.split(" ")[1:]
    assert shown == names[: len(shown)]
    assert 255 - len(" table_number_00") <= len(summary) <= 255


def test_a_summary_never_cuts_a_name_with_a_space_in_it() -> None:
    quoted = [f'"a long name {number:03d}"' for number in range(100)]
    summary = parse("SELECT * FROM " + ", ".join(quoted), "postgresql").summary
    assert summary.count('"') % 2 == 0
    assert summary.endswith('"')
    assert len(summary) <= 255


# --- limits ---------------------------------------------------------------------------------------


def test_a_text_is_cut_at_sixteen_kibibytes_and_not_inside_a_character() -> None:
    text = parse("SELECT " + ", ".join(["ünïcödé_名前"] * 1500), "postgresql").text
    assert len(text.encode()) <= LONGEST_TEXT
    assert len(text.encode()) > LONGEST_TEXT - 16
    assert text.endswith(" …")


def test_a_long_statement_is_known_by_its_beginning() -> None:
    start = "SELECT a FROM t WHERE b IN ("
    long = parse(start + "1, " * LONGEST_READ + "2)", "postgresql")
    assert long.text == "SELECT a FROM t WHERE b IN (?) …"
    assert long.fingerprint == parse(start + "1)", "postgresql").fingerprint
    assert long.summary == "SELECT t"


@pytest.mark.parametrize("rows", [2, 300, 3000, 100_000])
@pytest.mark.parametrize(
    "tail",
    [
        "",
        ";",
        ' ON CONFLICT ("id") DO UPDATE SET name = EXCLUDED.name, n = 5 RETURNING "id"',
        "\nON DUPLICATE KEY UPDATE name = VALUES(name)",
        " RETURNING id",
    ],
)
def test_an_insert_has_one_fingerprint_for_any_number_of_rows(rows: int, tail: str) -> None:
    start = 'INSERT INTO t ("id", name) VALUES '
    one = parse(f"{start}(1, 'a'){tail}", "postgresql")
    many = ", ".join(f"({number}, 'it''s, (a) name')" for number in range(rows))
    assert parse(start + many + tail, "postgresql").fingerprint == one.fingerprint


def test_statements_of_different_shape_differ_before_the_cut() -> None:
    rest = ", c" * LONGEST_READ
    one, other = parse("SELECT a" + rest, "mysql"), parse("SELECT b" + rest, "mysql")
    assert one.fingerprint != other.fingerprint


# --- what is remembered ---------------------------------------------------------------------------


def test_a_text_that_differs_in_its_literals_only_is_not_read_again() -> None:
    one = parse("SELECT 'a' FROM remembered WHERE b = 1", "postgresql")
    assert parse("SELECT 'b' FROM remembered WHERE b = 2e5", "postgresql") is one
    assert parse("SELECT 'b' FROM remembered WHERE b = 2", "mysql") is not one
    assert parse("SELECT 'b' FROM remembered WHERE c = 2", "postgresql") is not one


def test_what_quotes_and_comments_say_is_never_taken_from_another_text() -> None:
    assert parse('SELECT "a" FROM quoted', "postgresql").text == 'SELECT "a" FROM quoted'
    assert parse('SELECT "b" FROM quoted', "postgresql").text == 'SELECT "b" FROM quoted'
    for team in ("x", "y"):
        comment = parse(f"SELECT a FROM quoted /*team='{team}'*/", "postgresql").comment
        assert comment == {"team": team, "rule": "sqlcommenter"}
    assert parse("SELECT a FROM quoted", "postgresql").comment is None


def test_what_is_remembered_is_bounded() -> None:
    for number in range(3 * statement.MOST_REMEMBERED):
        parse(f"SELECT a{number} FROM t", "postgresql")
    parse("SELECT " + ", ".join(f'"{"x" * 200}"' for _ in range(100)), "postgresql")
    remembered = statement._known  # pyright: ignore[reportPrivateUsage]
    assert len(remembered) <= statement.MOST_REMEMBERED
    assert all(sum(map(len, key)) <= statement.LONGEST_REMEMBERED for key in remembered)


# --- whatever happens -----------------------------------------------------------------------------


class Hostile(str):
    """A str whose every method lies or raises."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError

    def __getitem__(self, key: object) -> str:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __contains__(self, key: object) -> bool:
        raise RuntimeError

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        raise RuntimeError


def test_a_subclass_of_str_is_read_as_its_text() -> None:
    read = parse(Hostile("SELECT 'secret' FROM t"), "postgresql")
    assert (read.text, read.summary) == ("SELECT ? FROM t", "SELECT t")
    assert type(read.text) is str


def test_a_failure_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("SELECT 'secret'")

    monkeypatch.setattr(_lexer, "mask", fail)
    read = parse("SELECT 'secret' FROM t", "postgresql")
    monkeypatch.undo()
    assert (read.text, read.operation, read.summary) == ("<redacted:error>", "", "")
    assert read.comment is None
    assert read.fingerprint != parse("", "postgresql").fingerprint
    assert read.fingerprint != parse("<redacted:error>", "postgresql").fingerprint
    assert len(read.fingerprint) == 16


def test_a_statement_says_little_of_itself() -> None:
    read = parse("SELECT 'secret' FROM t", "postgresql")
    assert repr(read) == f"Statement('{read.fingerprint}', 'SELECT t')"
    assert read.number == 0


# Pieces of SQL that mean something to the reader, in senseless order.
SENSELESS_PIECES = r"""
    ' " ` \ $ $$ $a$ -- /* */ /*! # // [ ] ( ) { } ; : :: :a ? % %s %(a)s @ @@ @a = - + . , 1 .5 0x
    e' q'[ r' N' U&' ''' select from with recursive as insert into values value in null true is not
    password identified by key token = update delete merge using on join top create table view or
    replace savepoint declare cursor distinct union grant array exec drop if exists é ’ … x_y
""".split()
INVISIBLE_PIECES = ["\n", "\r", "\x00", "\x01", "\x02", "\ud800", "\u0661", "\u202e", " "]
SENSELESS = st.builds(
    str.join,
    st.sampled_from(["", " "]),
    st.lists(st.sampled_from([*SENSELESS_PIECES, *INVISIBLE_PIECES]), max_size=30),
)


@settings(deadline=None)
@given(st.one_of(st.text(), st.text(st.characters()), SENSELESS), st.sampled_from(SYSTEMS))
def test_any_text_can_be_read(text: str, system: str) -> None:
    read = parse(text, system)
    assert read.text != statement.ERROR_TEXT
    assert len(read.text.encode()) <= LONGEST_TEXT
    assert read.text.isprintable()
    assert read.summary.isprintable()
    assert len(read.summary) <= 255
    assert int(read.fingerprint, 16) >= 0
    assert len(read.fingerprint) == 16
    assert read.operation == read.operation.upper()


VALUES = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(st.characters(exclude_characters="'\\")).map(lambda text: f"'{text}'"),
    st.sampled_from(["%s", "?", ":name", "NULL", "TRUE", "0xFF", "'it''s'", "$$it's$$"]),
)
SHAPES = st.sampled_from(
    [
        ("SELECT a, {} FROM t WHERE b = {} AND c IN ({}, {})", "SELECT t"),
        ("INSERT INTO t (a, b) VALUES ({}, {}), ({}, {})", "INSERT t"),
        ("UPDATE t SET a = {}, b = {} WHERE c BETWEEN {} AND {}", "UPDATE t"),
        ("CALL p({}, {}, {}, {})", "CALL p"),
    ]
)


@settings(deadline=None)
@given(SHAPES, st.lists(VALUES, min_size=8, max_size=8))
def test_values_make_no_difference(shape: tuple[str, str], values: list[str]) -> None:
    pattern, summary = shape
    one = parse(pattern.format(*values[:4]), "postgresql")
    other = parse(pattern.format(*values[4:]), "postgresql")
    assert one.fingerprint == other.fingerprint
    assert one.summary == other.summary == summary
    assert parse(one.text, "postgresql").fingerprint == one.fingerprint


@settings(deadline=None)
@given(
    SHAPES, st.lists(VALUES, min_size=4, max_size=4), st.sampled_from([" ", "\n", " \t ", "/**/"])
)
def test_case_and_spaces_make_no_difference(
    shape: tuple[str, str], values: list[str], space: str
) -> None:
    pattern, _ = shape
    changed = pattern.swapcase().replace(" ", space).replace("=", " = ").replace("(", "( ")
    one = parse(pattern.format(*values), "postgresql")
    other = parse(changed.format(*values), "postgresql")
    assert one.fingerprint == other.fingerprint
    assert one.operation == other.operation
    assert one.summary == other.summary.replace(" T", " t").replace(" P", " p")
