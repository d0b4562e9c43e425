"""Snowflake's SQL on DuckDB, as much of it as clients and tests use: the inside of the emulator.

An `Account` holds databases, warehouses and the account's own history; a `Session` runs statements
for one connection and remembers what ``USE`` and ``ALTER SESSION`` changed. What the history says
is what ran here, and what a test put there: `History` is the one place to seed figures.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

from tests.servers.snowflake_results import pa

if TYPE_CHECKING:
    from collections.abc import Sequence

# Kinds of statement, as a response names them ("statementTypeId").
SELECT, SHOW, CALL, MULTIPLE = 0x1000, 0x4400, 0x9000, 0xA000
INSERT, UPDATE, DELETE, MERGE, COPY = 0x3100, 0x3200, 0x3300, 0x3400, 0x3600
ALTER_SESSION, USE, DDL, UPLOAD = 0x4100, 0x4300, 0x6000, 0x7101
TRANSACTIONS = {"BEGIN": 0x5400, "COMMIT": 0x5100, "ROLLBACK": 0x5200}
CHANGES: dict[int, tuple[str, str]] = {
    INSERT: ("number of rows inserted", "numRowsInserted"),
    UPDATE: ("number of rows updated", "numRowsUpdated"),
    DELETE: ("number of rows deleted", "numRowsDeleted"),
    MERGE: ("number of rows inserted", "numRowsInserted"),
}
# These are answered by cloud services alone, and wake no warehouse.
WITHOUT_WAREHOUSE = frozenset(
    (SHOW, ALTER_SESSION, USE, DDL, UPLOAD, *TRANSACTIONS.values(), MULTIPLE)
)

_COMMENTS = re.compile(r"(?s)^\s*(?:/\*.*?\*/\s*)+")
_WAIT = re.compile(r"(?is)^\s*(call|select)\s+system\$wait\s*\(\s*([\d.]+)\s*\)\s*$")
_USE = re.compile(r"(?is)^\s*use\s+(?:(warehouse|database|schema|role)\s+)?([\w.\"]+)\s*$")
_ALTER = re.compile(r"(?is)^\s*alter\s+session\s+(set|unset)\s+(\w+)(?:\s*=\s*(.+?))?\s*$")
_SCAN = re.compile(r"(?is)^\s*select\s+\*\s+from\s+table\(result_scan\('([\w-]+)'\)\)\s*$")
_SHOW = re.compile(r"(?is)^\s*show\s+(?:/\*.*?\*/\s*)?(?:terse\s+)?(\w+)(?:\s+like\s+'([^']*)')?")
_CURRENT = re.compile(r"(?i)\bcurrent_(warehouse|database|schema|role|user|version|session)\(\)")
_STAGE = re.compile(
    r"(?is)^\s*create\s+.*?\bstage\b(?:\s+/\*.*?\*/)?\s+(?:if\s+not\s+exists\s+)?(\S+)"
)
_IDENTIFIER = re.compile(r"(?i)\bidentifier\(([^)]*)\)")
_PUT = re.compile(r"(?is)^\s*put\s+(?:/\*.*?\*/\s*)?'?file://([^'\s]+)'?\s+'?@(\S+?)'?(?:\s+.*)?$")
_NAMED = re.compile(r"(?is)^\s*(create|drop)\s+.*?\b(file\s+format|warehouse)\b")
_COPY = re.compile(
    r"(?is)^\s*copy\s+into\s+(\S+)\s*(?:/\*.*?\*/)?\s*(\([^)]*\))?\s+from\s+\(?.*?'?@([^\s)']+)'?.*$"
)


_WITH_ZONE = (exp.DataType.Type.TIMESTAMPTZ, exp.DataType.Type.TIMESTAMPLTZ)


class SQLError(Exception):
    """What Snowflake answers when a statement fails."""

    def __init__(self, code: str, state: str, message: str) -> None:
        super().__init__(message)
        self.code, self.state = code, state


_SHOWN = {
    "objects": "database_name schema_name name kind is_dynamic is_iceberg is_hybrid",
    "user": "catalog_name schema_name name is_builtin",  # SHOW USER FUNCTIONS
}
CANCELLED = ("000604", "57014", "SQL execution canceled")
ABSENT = "Object '{}' does not exist or not authorized."


@dataclass
class Result:
    """The rows of a statement, and what kind of statement it was."""

    kind: int
    table: Any
    """An Arrow table."""
    stats: dict[str, int] = field(default_factory=dict[str, int])
    upload: dict[str, Any] | None = None


@dataclass
class Warehouse:
    """Compute that is paid for by the second while it runs."""

    size: str = "X-Small"
    state: str = "STARTED"
    resumed: int = 0


_HISTORY = {
    "query_history": """query_id VARCHAR, query_text VARCHAR, query_type VARCHAR, query_tag VARCHAR,
        user_name VARCHAR, role_name VARCHAR, database_name VARCHAR, schema_name VARCHAR,
        warehouse_name VARCHAR, warehouse_size VARCHAR, warehouse_type VARCHAR,
        cluster_number INTEGER, execution_status VARCHAR, error_code VARCHAR,
        start_time TIMESTAMP, end_time TIMESTAMP, total_elapsed_time BIGINT,
        execution_time BIGINT, compilation_time BIGINT, bytes_scanned BIGINT,
        rows_produced BIGINT, partitions_scanned BIGINT, credits_used_cloud_services DOUBLE,
        query_hash VARCHAR, query_parameterized_hash VARCHAR""",
    "query_attribution_history": """query_id VARCHAR, parent_query_id VARCHAR,
        root_query_id VARCHAR, warehouse_id BIGINT, warehouse_name VARCHAR, query_hash VARCHAR,
        query_parameterized_hash VARCHAR, query_tag VARCHAR, user_name VARCHAR,
        start_time TIMESTAMP, end_time TIMESTAMP, credits_attributed_compute DOUBLE,
        credits_used_query_acceleration DOUBLE""",
    "warehouse_metering_history": """start_time TIMESTAMP, end_time TIMESTAMP,
        warehouse_id BIGINT, warehouse_name VARCHAR, credits_used DOUBLE,
        credits_used_compute DOUBLE, credits_used_cloud_services DOUBLE,
        credits_attributed_compute_queries DOUBLE""",
    "metering_daily_history": """service_type VARCHAR, usage_date DATE,
        credits_used_compute DOUBLE, credits_used_cloud_services DOUBLE, credits_used DOUBLE,
        credits_adjustment_cloud_services DOUBLE, credits_billed DOUBLE""",
}


class History:
    """``SNOWFLAKE.ACCOUNT_USAGE``: what ran, and what a test says that it used."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        connection.execute("ATTACH ':memory:' AS snowflake")
        connection.execute("CREATE SCHEMA snowflake.account_usage")
        for name, columns in _HISTORY.items():
            connection.execute(f"CREATE TABLE snowflake.account_usage.{name} ({columns})")
        self.roots: dict[str, str] = {}
        """Of the statements of one text: the id of the whole."""
        self.forbidden: set[str] = set()
        """Views, in lower case, that the role may not see."""

    def add(self, view: str, **values: object) -> None:
        """Put one row into a view; what is not named is NULL."""
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        with self._lock:
            self._connection.cursor().execute(
                f"INSERT INTO snowflake.account_usage.{view} ({names}) VALUES ({marks})",
                list(values.values()),
            )

    def rows(self, view: str) -> list[dict[str, Any]]:
        """Return what a view holds."""
        with self._lock:
            cursor = self._connection.cursor().execute(
                f"SELECT * FROM snowflake.account_usage.{view}"
            )
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def ran(self, query_id: str, start: datetime, seconds: float) -> None:
        """Say when a query of the history ran; `start` is in UTC, without a zone."""
        with self._lock:
            self._connection.cursor().execute(
                "UPDATE snowflake.account_usage.query_history SET start_time = ?, end_time = ?, "
                "execution_time = ? WHERE query_id = ?",
                [start, start + timedelta(seconds=seconds), int(seconds * 1000), query_id],
            )

    def set(self, view: str, **values: object) -> None:
        """Change all rows of a view."""
        names = ", ".join(f"{name} = ?" for name in values)
        with self._lock:
            self._connection.cursor().execute(
                f"UPDATE snowflake.account_usage.{view} SET {names}", list(values.values())
            )

    def attribute(self, query_id: str, used: float, **values: object) -> None:
        """Say what a query of the history used of its warehouse's credits."""
        found = next(row for row in self.rows("query_history") if row["query_id"] == query_id)
        shared = ("query_id", "query_tag", "user_name", "warehouse_name", "start_time", "end_time")
        row: dict[str, object] = {name: found[name] for name in shared}
        row |= {"root_query_id": self.roots.get(query_id, query_id)}
        row |= {"credits_attributed_compute": used, **values}
        self.add("query_attribution_history", **row)

    def meter(
        self, warehouse: str, hour: datetime, used: float, attributed: float, cloud: float = 0
    ) -> None:
        """Say what a warehouse used in an hour, and how much of that is queries'."""
        self.add(
            "warehouse_metering_history",
            start_time=hour,
            end_time=hour + timedelta(hours=1),
            warehouse_name=warehouse,
            credits_used=used + cloud,
            credits_used_compute=used,
            credits_used_cloud_services=cloud,
            credits_attributed_compute_queries=attributed,
        )


class Account:
    """Everything behind one account's host name."""

    def __init__(self, database: str = "SHOP", warehouse: str = "ETL_WH") -> None:
        self.connection = duckdb.connect(":memory:")
        self.history = History(self.connection)
        self.connection.execute(f"ATTACH ':memory:' AS \"{database}\"")
        self.connection.execute(f'CREATE SCHEMA "{database}"."PUBLIC"')
        self.warehouses = {warehouse: Warehouse(), "SMALL_WH": Warehouse("Small")}
        self.results: dict[str, Result] = {}
        self.stages: dict[str, Path] = {}
        self.database, self.warehouse = database, warehouse

    def close(self) -> None:
        """Let go of the data."""
        self.connection.close()


class Session:
    """What one connection has set, and how it runs statements."""

    def __init__(self, account: Account, folder: Path, parameters: dict[str, Any]) -> None:
        self.account, self.folder = account, folder
        self.parameters = parameters
        self.database: str | None = None
        self.schema: str | None = None
        self.warehouse: str | None = None
        self.role, self.user = "ANALYST", "TESTER"
        self._connection = account.connection.cursor()
        self._lock = threading.Lock()  # DuckDB runs one statement a cursor

    def place(self, database: str | None, schema: str | None, warehouse: str | None) -> None:
        """Use what a login asks for, where the account has it."""
        self.database = (database or "").upper() or None
        self.schema = (schema or "").upper() or ("PUBLIC" if database else None)
        name = (warehouse or "").upper()
        self.warehouse = name if name in self.account.warehouses else None

    def run(
        self, text: str, values: Sequence[object] = (), cancelled: threading.Event | None = None
    ) -> Result:
        """Run one statement.

        Raises:
            SQLError: as Snowflake would say it.
        """
        text = _COMMENTS.sub("", text).strip().rstrip(";").strip()
        cancelled = cancelled or threading.Event()
        if found := _WAIT.match(text):
            self._awake()
            if cancelled.wait(float(found[2])):
                raise SQLError(*CANCELLED)
            return _said(SELECT if found[1].lower() == "select" else CALL, "SYSTEM$WAIT", "waited")
        written = _IDENTIFIER.sub(r"\1", _filled(text, values))
        for pattern, command in _COMMANDS:
            if found := pattern.match(written):
                return command(self, found)
        try:
            result = self._query(text, values)
        except SqlglotError as error:
            raise SQLError(
                "001003", "42000", f"SQL compilation error: {str(error).splitlines()[0]}"
            ) from None
        except duckdb.ConstraintException:
            raise SQLError("100072", "22000", "NULL result in a non-nullable column") from None
        except duckdb.CatalogException as error:
            named = re.search(r"with name (\S+)", str(error))
            raise SQLError(
                "002003", "42S02", ABSENT.format(named[1].strip('"') if named else "?")
            ) from None
        except duckdb.Error as error:
            raise SQLError(
                "000904", "42000", f"SQL compilation error: {str(error).splitlines()[0]}"
            ) from None
        if cancelled.is_set():
            raise SQLError(*CANCELLED)
        return result

    def describe(self, text: str) -> Result:
        """Return the columns of what a statement would bring, and none of its rows."""
        tree = sqlglot.parse_one(text, read="snowflake")
        kind = _kind_of(tree)
        if kind != SELECT:
            return Result(kind, _changes(kind, 0).slice(0, 0))
        values = [None] * len(list(tree.find_all(exp.Placeholder)))
        result = self._query(text, values, described=True)
        return Result(kind, result.table.slice(0, 0))

    def _awake(self) -> None:
        """Start the warehouse, as a statement that needs one does."""
        if self.warehouse is None:
            raise SQLError(
                "000606", "57P03", "No active warehouse selected in the current session."
            )
        warehouse = self.account.warehouses[self.warehouse]
        if warehouse.state == "SUSPENDED":
            warehouse.state = "STARTED"
            warehouse.resumed += 1

    def _query(self, text: str, values: Sequence[object], *, described: bool = False) -> Result:
        tree = sqlglot.parse_one(text, read="snowflake")
        kind = _kind_of(tree)
        names = _names_of(tree)
        current = _CURRENT.sub(lambda found: f"'{self._current(found[1])}'", text)
        tree = normalize_identifiers(
            sqlglot.parse_one(current, read="snowflake"), dialect="snowflake"
        )
        for kind_of_time in tree.find_all(exp.DataType):
            if kind_of_time.this in _WITH_ZONE:  # DuckDB would need an extension, and all is UTC
                kind_of_time.set("this", exp.DataType.Type.TIMESTAMP)
        for table in tree.find_all(exp.Table):
            if table.name.lower() in self.account.history.forbidden:
                raise SQLError("002003", "02000", ABSENT.format(table.name))
        if (
            not described
            and kind not in WITHOUT_WAREHOUSE
            and (tree.find(exp.Table) or kind != SELECT)
        ):
            self._awake()
        with self._lock:
            if self.database is not None:
                self._enter()
            done: Any = self._connection.execute(tree.sql("duckdb"), list(values) or None)
            if kind == DDL:
                return _said(kind, "status", "Statement executed successfully.")
            if kind in CHANGES:
                row = done.fetchone()
                return _changed(kind, int(row[0]) if row else 0)
            table = done.to_arrow_table()
        names = names or [name.upper() for name in table.column_names]
        return Result(kind, table.rename_columns(names))

    def _enter(self) -> None:
        """Work in the session's schema; a session may begin in one that is yet to be made."""
        try:
            self._connection.execute(f'USE "{self.database}"."{self.schema}"')
        except duckdb.CatalogException:
            self._connection.execute(f'USE "{self.database}"')

    def _current(self, what: str) -> str:
        if what.lower() == "version":
            return "10.1.0"
        return str(getattr(self, what.lower(), None) or "")

    # -- what is not SQL's --------------------------------------------------------------------------

    def use(self, found: re.Match[str]) -> Result:
        """``USE [WAREHOUSE | DATABASE | SCHEMA | ROLE] name``."""
        kind, name = (found[1] or "schema").lower(), found[2].strip('"').upper()
        if kind == "warehouse" and name not in self.account.warehouses:
            raise SQLError("002043", "02000", ABSENT.format(name))
        if kind == "schema" and "." in name:
            self.database, name = name.split(".", 1)
        setattr(self, kind, name)
        if kind == "database":
            self.schema = "PUBLIC"
        return _said(USE, "status", "Statement executed successfully.")

    def alter(self, found: re.Match[str]) -> Result:
        """``ALTER SESSION SET name = value`` and ``UNSET name``."""
        name, value = found[2].upper(), (found[3] or "").strip()
        if found[1].lower() == "unset":
            self.parameters[name] = ""  # every parameter's default, as far as tests know
        elif value.startswith("'"):
            self.parameters[name] = value[1:-1].replace("''", "'")
        else:
            self.parameters[name] = {"true": True, "false": False}.get(value.lower(), value)
        return _said(ALTER_SESSION, "status", "Statement executed successfully.")

    def show(self, found: re.Match[str]) -> Result:
        """``SHOW WAREHOUSES``, ``PARAMETERS`` and ``OBJECTS``; what else is shown is empty."""
        what, like = found[1].lower(), (found[2] or "%").upper()
        pattern = re.compile(like.replace("%", ".*"))
        if what == "warehouses":
            found_ones = [
                {"name": name, "state": each.state, "type": "STANDARD", "size": each.size}
                for name, each in self.account.warehouses.items()
                if pattern.fullmatch(name)
            ]
            empty = pa.schema([(name, pa.string()) for name in ("name", "state", "type", "size")])
            return Result(SHOW, pa.Table.from_pylist(found_ones, schema=empty))
        if what in _SHOWN:
            named = pa.schema([(name, pa.string()) for name in _SHOWN[what].split()])
            rows = self._objects() if what == "objects" else []
            return Result(SHOW, pa.Table.from_pylist(rows, schema=named))
        rows = [
            {"key": name, "value": str(value), "level": "SESSION"}
            for name, value in self.parameters.items()
            if what == "parameters" and pattern.fullmatch(name)
        ]
        shown = pa.schema([(name, pa.string()) for name in ("name", "key", "value", "level")])
        return Result(SHOW, pa.Table.from_pylist(rows, schema=shown))

    def _objects(self) -> list[dict[str, str]]:
        """Return the tables and views of the session's database."""
        found = self._connection.execute(
            "SELECT table_catalog, table_schema, table_name, table_type "
            "FROM information_schema.tables WHERE table_catalog = ?",
            [self.database],
        ).fetchall()
        no = dict.fromkeys(("is_dynamic", "is_iceberg", "is_hybrid"), "N")
        return [
            {"database_name": place, "schema_name": schema, "name": name, **no}
            | {"kind": "VIEW" if kind == "VIEW" else "TABLE"}
            for place, schema, name, kind in found
        ]

    def transact(self, found: re.Match[str]) -> Result:
        """``BEGIN``, ``COMMIT`` and ``ROLLBACK``; without a transaction they do nothing."""
        word = found[1].upper()
        with suppress(duckdb.TransactionException):
            self._connection.execute("BEGIN" if word == "START" else word)
        kind = TRANSACTIONS["BEGIN" if word == "START" else word]
        return _said(kind, "status", "Statement executed successfully.")

    def scan(self, found: re.Match[str]) -> Result:
        """``SELECT * FROM TABLE(RESULT_SCAN(id))``: the rows of an earlier query."""
        result = self.account.results.get(found[1])
        if result is None:
            raise SQLError("000709", "02000", f"Statement {found[1]} not found")
        return Result(SELECT, result.table)

    def stage(self, found: re.Match[str]) -> Result:
        """``CREATE STAGE``: a folder of this machine."""
        name = _plain(found[1])
        folder = self.account.stages[name] = self.folder / f"stage-{len(self.account.stages)}"
        folder.mkdir(exist_ok=True)
        return _said(DDL, "status", f"Stage area {name} successfully created.")

    def name_only(self, _: re.Match[str]) -> Result:
        """``CREATE FILE FORMAT``: the emulator reads Parquet, whatever it is called."""
        return _said(DDL, "status", "Statement executed successfully.")

    def put(self, found: re.Match[str]) -> Result:
        """``PUT``: tell the client to copy its file into the stage's folder."""
        path, _, rest = found[2].partition("/")
        folder = self.account.stages.get(_plain(path))
        if folder is None:
            raise SQLError("002003", "02000", ABSENT.format(path))
        upload: dict[str, Any] = {
            "command": "UPLOAD",
            "src_locations": [f"/{found[1].lstrip('/')}"],
            "autoCompress": False,
            "sourceCompression": "NONE",
            "overwrite": True,
            "parallel": 1,
            "stageInfo": {"locationType": "LOCAL_FS", "location": f"{folder}/", "creds": {}},
            "encryptionMaterial": None,
        }
        _ = rest
        return Result(UPLOAD, _table({"source": "", "status": ""}), upload=upload)

    def copy(self, found: re.Match[str]) -> Result:
        """``COPY INTO table FROM @stage``: the Parquet files of its folder."""
        self._awake()
        folder = self.account.stages[_plain(found[3].partition("/")[0])]
        if self.database is not None:
            self._connection.execute(f'USE "{self.database}"."{self.schema}"')
        before = self._connection.execute(f"SELECT count(*) FROM {found[1]}").fetchone()
        files = sorted(str(path) for path in folder.iterdir())
        rows = 0
        for path in files:
            self._connection.execute(
                f"INSERT INTO {found[1]} BY NAME SELECT * FROM read_parquet(?)", [path]
            )
        after = self._connection.execute(f"SELECT count(*) FROM {found[1]}").fetchone()
        rows = int(after[0]) - int(before[0]) if before and after else 0
        loaded: dict[str, object] = {
            "file": ",".join(Path(path).name for path in files),
            "status": "LOADED",
            "rows_parsed": rows,
            "rows_loaded": rows,
        }
        return Result(COPY, _table(loaded), {"numRowsInserted": rows})


_COMMANDS = (
    (_USE, Session.use),
    (_ALTER, Session.alter),
    (_SHOW, Session.show),
    (re.compile(r"(?is)^\s*(begin|start|commit|rollback)\b.*$"), Session.transact),
    (_SCAN, Session.scan),
    (_NAMED, Session.name_only),
    (_STAGE, Session.stage),
    (_PUT, Session.put),
    (_COPY, Session.copy),
)


def _filled(text: str, values: Sequence[object]) -> str:
    """Return a command with its bound values in it; they are names."""
    for value in values:
        text = text.replace("?", str(value), 1)
    return text


def _plain(name: str) -> str:
    return name.strip("'@").split(".")[-1].strip('"').upper()


def _kind_of(tree: object) -> int:
    kinds: tuple[tuple[type[object], int], ...] = (
        (exp.Insert, INSERT),
        (exp.Update, UPDATE),
        (exp.Delete, DELETE),
        (exp.Merge, MERGE),
        (exp.Query, SELECT),
    )
    return next((number for kind, number in kinds if isinstance(tree, kind)), DDL)


def _names_of(tree: object) -> list[str]:
    """Return the names that Snowflake gives to the columns; none where a star stands for some."""
    if not isinstance(tree, exp.Query) or any(each.is_star for each in tree.selects):
        return []
    names: list[str] = []
    for each in tree.selects:
        named = each if isinstance(each, exp.Column) else each.args.get("alias")
        quoted = isinstance(named, exp.Column) and named.this.args.get("quoted")
        quoted = quoted or (isinstance(named, exp.Identifier) and named.args.get("quoted"))
        name = each.alias_or_name if named is not None else each.sql("snowflake")
        names.append(name if quoted else name.upper())
    return names


def _table(row: dict[str, object]) -> Any:
    return pa.Table.from_pylist([row])


def _said(kind: int, column: str, text: str) -> Result:
    return Result(kind, _table({column: text}))


def _changes(kind: int, rows: int) -> Any:
    return _table({CHANGES.get(kind, ("status", ""))[0]: rows})


def _changed(kind: int, rows: int) -> Result:
    return Result(kind, _changes(kind, rows), {CHANGES[kind][1]: rows})


def now() -> datetime:
    """Return the emulator's clock: this machine's, as UTC without a zone."""
    return datetime.fromtimestamp(time.time(), timezone.utc).replace(tzinfo=None)
