"""The REST APIs of the emulator's warehouses: statements, sessions, and the history of queries."""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Any

from tests.servers.databricks_workspace import (
    CHUNK_ROWS,
    OWNER,
    PATIENCE,
    Column,
    Statement,
    moment,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.servers.databricks_workspace import Workspace


class Statements:
    """The Statement Execution API, and what stands beside it under ``/api/2.0/sql``."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def answer(self, method: str, path: str, body: Any, query: Mapping[str, list[str]]) -> Any:
        """Answer a call of the REST API; None for what there is not."""
        parts = path.removeprefix("/api/2.0/sql/").strip("/").split("/")
        match method, parts:
            case "POST", ["sessions"]:
                self._workspace.sessions[f"sea-{len(self._workspace.sessions)}"] = body[
                    "warehouse_id"
                ]
                return {"session_id": list(self._workspace.sessions)[-1]}
            case "DELETE", ["sessions", _] | ["statements", _]:
                return {}
            case "POST", ["statements"]:
                return self._sent(body)
            case "GET", ["statements", statement_id] if found := self._workspace.find(statement_id):
                found.done.wait(0.2)
                return self._answer(found)
            case "POST", ["statements", statement_id, "cancel"] if found := self._workspace.find(
                statement_id
            ):
                found.cancel()
                return {}
            case "GET", ["statements", statement_id, "result", "chunks", chunk]:
                found = self._workspace.find(statement_id)
                return None if found is None else self._chunk(found, int(chunk))
            case "GET", ["warehouses", name] if name in self._workspace.warehouses:
                return {"id": name, "name": name, **self._workspace.warehouses[name]}
            case "GET", ["history", "queries"]:
                return self._history(body or {}, query)
            case _:
                return None

    def _sent(self, body: Mapping[str, Any]) -> dict[str, Any]:
        statement = self._workspace.run(
            body["statement"],
            body["warehouse_id"],
            parameters=[
                (given.get("name"), given.get("value"), given.get("type", "STRING"))
                for given in body.get("parameters", [])
            ],
            tags={tag["key"]: tag.get("value") for tag in body.get("query_tags", [])},
            driver="",
        )
        statement.links = body.get("disposition", "INLINE") == "EXTERNAL_LINKS"
        patience = float(body.get("wait_timeout", "10s").rstrip("s"))
        if not statement.done.wait(patience) and body.get("on_wait_timeout") == "CANCEL":
            statement.cancel()
            statement.done.wait(PATIENCE)
        return self._answer(statement)

    def _answer(self, statement: Statement) -> dict[str, Any]:
        state = statement.state if statement.done.is_set() else "RUNNING"
        if (
            state == "SUCCEEDED"
            and not statement.links
            and statement.rows > self._workspace.most_rows
        ):
            state = "FAILED"
            statement.error = (
                "Inline byte limit exceeded. Statements executed with disposition=INLINE can have a "
                "result size of at most 26214400 bytes: use disposition=EXTERNAL_LINKS"
            )
        status: dict[str, Any] = {"state": state}
        if state == "FAILED":
            status["error"] = {"error_code": "BAD_REQUEST", "message": statement.error}
            status["sql_state"] = "42000"
        answer: dict[str, Any] = {"statement_id": statement.id, "status": status}
        if state == "SUCCEEDED":
            chunks = max(1, -(-statement.rows // CHUNK_ROWS)) if statement.columns else 0
            answer["manifest"] = {
                "format": "ARROW_STREAM" if statement.links else "JSON_ARRAY",
                "schema": {
                    "column_count": len(statement.columns),
                    "columns": [_sea(at, column) for at, column in enumerate(statement.columns)],
                },
                "total_chunk_count": chunks,
                "total_row_count": statement.rows,
                "total_byte_count": 0,
                "truncated": False,
            }
            answer["result"] = self._chunk(statement, 0)
        return answer

    def _chunk(self, statement: Statement, number: int) -> dict[str, Any]:
        start = number * CHUNK_ROWS
        rows = max(0, min(CHUNK_ROWS, statement.rows - start))
        more = number + 1 if start + rows < statement.rows else None
        chunk: dict[str, Any] = {"chunk_index": number, "row_offset": start, "row_count": rows}
        if more is not None:
            chunk["next_chunk_index"] = more
        if not statement.links:
            return {**chunk, "data_array": statement.texts(start, rows) if rows else []}
        return {
            "external_links": [
                {
                    **chunk,
                    "byte_count": 1,
                    "external_link": self._workspace.link(statement, start),
                    "expiration": moment(time_ns() + 900 * 10**9).isoformat(),
                }
            ]
        }

    def _history(self, body: Mapping[str, Any], query: Mapping[str, list[str]]) -> dict[str, Any]:
        """The query history API: of the statements asked for, or of all."""
        asked = [
            *body.get("filter_by", {}).get("statement_ids", []),
            *query.get("filter_by.statement_ids", []),
        ]
        metrics = query.get("include_metrics", ["false"])[0].lower() == "true"
        return {
            "has_next_page": False,
            "res": [
                {
                    "query_id": found.id,
                    "status": "FINISHED" if found.state == "SUCCEEDED" else found.state,
                    "query_text": found.text,
                    "warehouse_id": found.warehouse,
                    "user_name": OWNER,
                    "rows_produced": found.rows,
                    "query_start_time_ms": found.started // 10**6,
                    "query_end_time_ms": found.ended // 10**6,
                    **({"metrics": dict(self._workspace.figures(found))} if metrics else {}),
                }
                for found in self._workspace.statements
                if found.done.is_set() and (not asked or found.id in asked)
            ],
        }


def _sea(position: int, column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": column.name,
        "position": position,
        "type_name": column.sea,
        "type_text": column.sea,
    }
    if column.decimal is not None:
        described["type_precision"], described["type_scale"] = column.decimal
    return described
