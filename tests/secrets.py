"""Statements with a secret in every place where a dialect lets one stand.

Each has a secret of its own that occurs nowhere else, so that a leak names its statement. What is
sent through any part of the package (redaction, ledger, exporters, logs, report) may afterwards be
searched with ``leaks``. The statements are made, not drawn: every run has the same ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SYSTEMS = (
    "aws.athena",
    "aws.redshift",
    "azure.sql",
    "azure.synapse",
    "databricks",
    "dremio",
    "duckdb",
    "gcp.bigquery",
    "mariadb",
    "mysql",
    "oracle",
    "postgresql",
    "presto",
    "snowflake",
    "spark",
    "sqlite",
    "trino",
)

_MYSQL = frozenset(["mysql", "mariadb"])
_TSQL = frozenset(["azure.sql", "azure.synapse"])
_SPARK = frozenset(["databricks", "spark"])
_POSTGRES = frozenset(["postgresql", "duckdb", "aws.redshift"])
_TRINO = frozenset(["trino", "presto", "aws.athena"])
_ESCAPES = _MYSQL | _SPARK | {"gcp.bigquery", "snowflake", "aws.redshift"}
_DOUBLE_QUOTED_TEXT = _MYSQL | _SPARK | {"gcp.bigquery"}
_NESTED_COMMENTS = _POSTGRES | _TSQL | _SPARK
_ALL = frozenset(SYSTEMS)


class Secret(NamedTuple):
    """A statement, the system it is for ("" = not known), and what must not be seen of it."""

    system: str
    text: str
    canary: str
    place: str


def leaks(output: str, secrets: Iterable[Secret]) -> list[Secret]:
    """Those whose secret can be seen in the output, in capital letters or small ones."""
    folded = output.lower()
    # Thousands of secrets, and megabytes to search: those that begin alike are looked for as one.
    beginnings: dict[str, bool] = {}
    found: list[Secret] = []
    for secret in secrets:
        canary = secret.canary.lower()
        beginning = canary[:6]
        if beginning not in beginnings:
            beginnings[beginning] = beginning in folded
        if beginnings[beginning] and canary in folded:
            found.append(secret)
    return found


# Ways to write a literal around {w}, a word, and the systems that read it as one.
_WORDS: dict[str, tuple[str, frozenset[str]]] = {
    "string": ("'{w}'", _ALL),
    "doubled quote": ("'it''s {w}'", _ALL),
    "quotes at both ends": ("'''{w}'''", _ALL),
    "line break": ("'a\n{w}\r\nb'", _ALL),
    "comment signs": ("'-- {w} /* # // {w}'", _ALL),
    "double quotes inside": ("'\"{w}\" `{w}` [{w}]'", _ALL),
    "dollars inside": ("'$$ {w} $a$'", _ALL),
    "backslash at the end": ("'{w}\\\\'", _ALL),
    "typographic quotes": ("'\u2019{w}\u201c'", _ALL),
    "side by side": ("'a' \n '{w}' '{w}'", _ALL),
    "N string": ("N'{w}'", _ALL),
    "date": ("DATE '{w}'", _ALL),
    "timestamp": ("timestamp'{w}'", _ALL),
    "interval": ("INTERVAL '{w}' DAY", _ALL),
    "driver's date": ("{{d '{w}'}}", _ALL),
    "address": ("'https://host/x?sig={w}&se=1'", _ALL),
    "connection": ("'postgresql://user:{w}@host:5432/db'", _ALL),
    "settings": ("'Server=x;Password={w};'", _ALL),
    "escaped quote": ("'it\\'s {w}'", _ESCAPES),
    "escaped backslash": ("'\\\\', '{w}', '\\\\\\'{w}'", _ESCAPES),
    "E string": ("E'it\\'s {w}\\\\'", _POSTGRES),
    "E string, doubled": ("e'a''{w}\\''", _POSTGRES),
    "U& string": ("U&'{w}\\0061'", _POSTGRES | _TRINO),
    "dollar quote": ("$${w} it's$$", _POSTGRES | {"snowflake", "databricks"}),
    "tagged dollar quote": ("$x$ {w} $$ ' $x$", _POSTGRES),
    "double quoted": ('"{w} it\'s ""{w}"""', _MYSQL | _SPARK),
    "double quoted, escaped": ('"a\\"{w}"', _DOUBLE_QUOTED_TEXT),
    "triple": ("'''it's {w}'''", frozenset(["gcp.bigquery"])),
    "triple, double": ('"""{w} "{w}" """', frozenset(["gcp.bigquery"])),
    "raw": ("r'\\d{w}'", _SPARK | {"gcp.bigquery"}),
    "raw, double": ('R"{w}\'"', _SPARK | {"gcp.bigquery"}),
    "bytes": ("b'{w}'", _MYSQL | {"gcp.bigquery"}),
    "raw bytes": ("rb'{w}'", frozenset(["gcp.bigquery"])),
    "character set": ("_utf8mb4'{w}'", _MYSQL),
    "q string": ("q'[it's {w}]'", frozenset(["oracle"])),
    "q string, own sign": ("nQ'!it's {w}!'", frozenset(["oracle"])),
}

# The same for {n}, a number, and {h}, the same in hexadecimal digits.
_NUMBERS: dict[str, tuple[str, frozenset[str]]] = {
    "integer": ("{n}", _ALL),
    "negative": ("-{n}", _ALL),
    "decimal": ("{n}.{n}", _ALL),
    "fraction": (".{n}", _ALL),
    "exponent": ("{n}e-{n}", _ALL),
    "exponent, upper": ("1.{n}E+7", _ALL),
    "hexadecimal": ("0x{h}", _ALL),
    "hexadecimal string": ("X'{h}'", _ALL),
    "grouped": ("1_{n}_000", _POSTGRES),
    "typed": ("{n}BD", _SPARK),
    "money": ("${n}.00", _TSQL),
}

# Where a value may stand. What follows it must still be read as what it is.
_PLACES = (
    "SELECT {} FROM t WHERE a = 1",
    "SELECT * FROM t WHERE a = {} AND b<>{} ORDER BY c",
    "SELECT * FROM t WHERE a IN (1, {},{}) OR b LIKE {}",
    "INSERT INTO t (a, b, c) VALUES ({}, 1, {}), (2, {}, DEFAULT)",
    "UPDATE t SET a={},b = {} WHERE c BETWEEN {} AND {}",
    "CALL p({}, b => {})",
    "WITH x AS (SELECT {} AS y) SELECT f(y, {}) FROM x;",
)

# Secrets with no literal around them, or with one that is no value, and text that never ends.
_STATEMENTS: dict[str, tuple[str, frozenset[str]]] = {
    "comment": ("SELECT a /* {w} it's */ FROM t -- {w}\nWHERE b = 1", _ALL),
    "comment first": ("-- {w} '\n/* {w} */ SELECT 1", _ALL),
    "hint": ("SELECT /*+ INDEX(t {w}) */ a FROM t", _ALL),
    "comment in a comment": ("SELECT /* a /* b */ {w} */ 1", _NESTED_COMMENTS),
    "hash comment": ("SELECT a # {w} it's\nFROM t", _MYSQL | {"gcp.bigquery"}),
    "slash comment": ("SELECT a // {w} it's\nFROM t", frozenset(["snowflake", "dremio"])),
    "code in a comment": ("SELECT /*!50000 '{w} */ {w}', */ 1", _MYSQL),
    "no end, string": ("SELECT * FROM t WHERE a = 'x{w} AND b = 1", _ALL),
    "no end, doubled": ("SELECT * FROM t WHERE a = 'x''{w}''", _ALL),
    "no end, comment": ("SELECT * FROM t /* {w}", _ALL),
    "no end, inner comment": ("SELECT /* /* {w} */ {w}", _NESTED_COMMENTS),
    "no end, name": ('SELECT * FROM "{w}', _ALL),
    "no end, backtick": ("SELECT * FROM `{w} x", _ALL),
    "no end, bracket": ("SELECT * FROM [{w} x", _TSQL | {"sqlite"}),
    "no end, dollar": ("SELECT $$ {w} ' FROM t", _ALL),
    "no end, tag": ("SELECT $x$ {w} $$ $y$", _ALL),
    "no end, E string": ("SELECT E'{w}\\'", _POSTGRES),
    "no end, triple": ("SELECT '''{w}''", frozenset(["gcp.bigquery"])),
    "no end, q string": ("SELECT q'[{w}]", frozenset(["oracle"])),
    "NUL": ("SELECT 'a\x00{w}' , '\x00' || '{w}\x00'", _ALL),
    "surrogate": ("SELECT '\ud800{w}\udfff' FROM t", _ALL),
    "pasted quotes": ("SELECT * FROM t WHERE a = \u2018{w}\u2019", _ALL),
    "IDENTIFIED BY": ("CREATE USER bob IDENTIFIED BY '{w}'", _ALL),
    "IDENTIFIED BY a name": (
        'ALTER USER bob IDENTIFIED BY "{w}" REPLACE {w}',
        frozenset(["oracle"]),
    ),
    "IDENTIFIED BY a word": ("CREATE USER bob IDENTIFIED BY {w};", _ALL),
    "IDENTIFIED BY, in the midst": (
        "GRANT ALL ON x TO bob IDENTIFIED BY {w} WITH GRANT OPTION",
        _ALL,
    ),
    "IDENTIFIED WITH": ("ALTER USER bob IDENTIFIED WITH plugin BY {w}", _MYSQL),
    "PASSWORD": ("ALTER ROLE bob WITH LOGIN PASSWORD '{w}' VALID UNTIL 'x'", _ALL),
    "PASSWORD, a word": ("ALTER ROLE bob PASSWORD {w}", _ALL),
    "PASSWORD, signs": ("alter role bob encrypted password 1{w}!#,{w};-{w}", _ALL),
    "PASSWORD =": ("CREATE LOGIN bob WITH PASSWORD = {w}, CHECK_POLICY = OFF", _ALL),
    "PASSWORD=": ("CREATE LOGIN bob WITH PASSWORD={w}", _ALL),
    "SET PASSWORD": ("SET PASSWORD FOR bob = {w}", _ALL),
    "PASSWORD()": ("SET PASSWORD = PASSWORD('{w}')", _ALL),
    "MASTER_PASSWORD": ("CHANGE MASTER TO MASTER_PASSWORD={w}, MASTER_HOST='h'", _MYSQL),
    "TOKEN": ("SET auth_token = {w}", _ALL),
    "SECRET": ("CREATE SECRET s (TYPE s3, KEY_ID '{w}', SECRET {w})", _ALL),
    "KEY =": ("CREATE CREDENTIAL c WITH ACCOUNT_KEY = {w}, KEY={w}", _ALL),
    "CREDENTIALS": ("COPY t FROM 's3://b/k' CREDENTIALS 'aws_secret_access_key={w}'", _ALL),
    "keys": ("COPY t FROM 's3://b' ACCESS_KEY_ID {w} SECRET_ACCESS_KEY a/{w}+x=", _ALL),
    "address, no quotes": ("COPY t FROM https://b.host/x?sig={w}", _ALL),
    "account, no quotes": ("ATTACH postgres://bob:{w}@host/db AS x", _ALL),
    "account, no scheme": ("ATTACH bob:{w}@host AS x", _ALL),
    "CONNECT": ("CONNECT scott/{w}@db", _ALL),
    "CONNECT, words": ("CONNECT TO h USER bob USING {w}", _ALL),
    "quoted column =": ("UPDATE users SET `Password` = {w} WHERE id = 1", _MYSQL),
    "column =": ("UPDATE users SET password = {w}, seen = 1 WHERE id = 1", _ALL),
    "address in backticks": ("SELECT * FROM csv.`abfss://c@h/x?sig={w}`", _SPARK),
    "setting as a name": ('SELECT * FROM t AS "Password={w}"', _POSTGRES),
    "Hive property": ('ALTER TABLE t SET TBLPROPERTIES ("k"="{w}")', _SPARK | {"aws.athena"}),
    "compared name": ('SELECT * FROM t WHERE a = "{w}" AND b IN ("{w}")', _TSQL | {"sqlite"}),
    "two statements": ("SELECT 1; ALTER ROLE bob PASSWORD {w}; SELECT '{w}'", _ALL),
    "very long": ("INSERT INTO t VALUES " + "('{w}', 1), " * 4000 + "('{w}", _ALL),
}


def secrets() -> Iterator[Secret]:
    """All of them: each literal in each place, for its systems and for one that is not known."""
    number = 0
    for name, (pattern, systems) in {**_WORDS, **_NUMBERS}.items():
        for place in _PLACES:
            for system in ("", *sorted(systems)):
                number += 1
                form = _Form(number)
                text = place.replace("{}", form.of(pattern))
                yield Secret(system, text, form.canary(pattern), f"{name} in {place}")
    for name, (pattern, systems) in _STATEMENTS.items():
        for system in ("", *sorted(systems)):
            number += 1
            form = _Form(number)
            yield Secret(system, form.of(pattern), form.canary(pattern), name)


class _Form:
    """The same secret as a word, a number and hexadecimal digits."""

    def __init__(self, number: int) -> None:
        digits = f"{number:05d}"
        self.word = "Hush" + digits.translate(str.maketrans("0123456789", "bcdfghjklm")) + "hush"
        self.number = "77" + digits + "77"
        self.hexadecimal = "C0DE" + digits + "C0DE"

    def of(self, pattern: str) -> str:
        return pattern.format(w=self.word, n=self.number, h=self.hexadecimal)

    def canary(self, pattern: str) -> str:
        return (
            self.hexadecimal if "{h}" in pattern else self.number if "{n}" in pattern else self.word
        )
