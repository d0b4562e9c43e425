"""Datasets and tables of the BigQuery emulator: what dbt asks for before and after its statements."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    Resource = dict[str, Any]

# What DuckDB's SQL has not.
_OPTIONS = re.compile(r"(?i)\bOPTIONS\s*\(\s*\)")
_COMMENTS = re.compile(r"(?s)^\s*(?:/\*.*?\*/\s*)+")
_CREATED = re.compile(
    r"(?i)^create\s+(?:or\s+replace\s+)?(schema|table|view)\s+(?:if\s+not\s+exists\s+)?(\S+)"
)
_KINDS = {"schema": "CREATE_SCHEMA", "table": "CREATE_TABLE_AS_SELECT", "view": "CREATE_VIEW"}
ANONYMOUS = "_results"
"""The dataset that the results of queries are in."""


def plain(text: str) -> str:
    """Return a statement without what only BigQuery knows, and its comments' words untouched."""
    return _OPTIONS.sub("", text)


def kind_of(text: str) -> str:
    """Return the kind of a statement as BigQuery names it."""
    found = _CREATED.match(_COMMENTS.sub("", text))
    return "SELECT" if found is None else _KINDS[found[1].lower()]


def made(project: str, text: str, id_: str) -> Resource:
    """Return the table that a statement makes; a query's is one without a name."""
    found = _CREATED.match(_COMMENTS.sub("", text))
    names = [ANONYMOUS, f"anon{id_}"]
    if found is not None and found[1].lower() != "schema":
        names = found[2].replace("`", "").split(".")[-2:]
    return {"projectId": project, "datasetId": names[0], "tableId": names[-1]}


def attach(database: duckdb.DuckDBPyConnection, project: str) -> None:
    """Let `project` be a name that tables can have."""
    database.execute(f"ATTACH IF NOT EXISTS ':memory:' AS \"{project}\"")


def datasets(database: duckdb.DuckDBPyConnection, project: str) -> Resource:
    """Answer datasets.list."""
    rows = database.execute(
        "SELECT schema_name FROM information_schema.schemata WHERE catalog_name = ?", [project]
    ).fetchall()
    return {"datasets": [_dataset(project, name) for (name,) in rows]}


def create(database: duckdb.DuckDBPyConnection, project: str, body: Resource) -> Resource:
    """Answer datasets.insert."""
    name = body["datasetReference"]["datasetId"]
    database.execute(f'CREATE SCHEMA IF NOT EXISTS "{project}"."{name}"')
    return _dataset(project, name)


def tables(database: duckdb.DuckDBPyConnection, project: str, dataset: str) -> Resource:
    """Answer tables.list."""
    rows = database.execute(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_catalog = ? AND table_schema = ?",
        [project, dataset],
    ).fetchall()
    found = (table(database, project, dataset, name) for (name,) in rows)
    return {"tables": [each for each in found if each is not None]}


def table(
    database: duckdb.DuckDBPyConnection, project: str, dataset: str, name: str
) -> Resource | None:
    """Answer tables.get; None where there is no such table."""
    row: Any = ("BASE TABLE",)
    if dataset != ANONYMOUS:
        row = database.execute(
            "SELECT table_type FROM information_schema.tables "
            "WHERE table_catalog = ? AND table_schema = ? AND table_name = ?",
            [project, dataset, name],
        ).fetchone()
    if row is None:
        return None
    return {
        "kind": "bigquery#table",
        "id": f"{project}:{dataset}.{name}",
        "tableReference": {"projectId": project, "datasetId": dataset, "tableId": name},
        "type": "VIEW" if row[0] == "VIEW" else "TABLE",
        "numRows": "0",
        "numBytes": "0",
        "schema": {"fields": []},
    }


def _dataset(project: str, name: str) -> Resource:
    return {
        "kind": "bigquery#dataset",
        "id": f"{project}:{name}",
        "datasetReference": {"projectId": project, "datasetId": name},
        "location": "US",
    }
