"""How rows travel from Snowflake to its clients: JSON text, or Arrow with Snowflake's types in it.

Both come whole in the response, or the first rows in it and the rest in chunks to be fetched.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import datetime, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

# It has no types of its own.
pa: Any = import_module("pyarrow")
pc: Any = import_module("pyarrow.compute")

_TEXT = 16_777_216
"""Characters of a VARCHAR that has no length of its own."""


def rowtype(table: Any) -> list[dict[str, Any]]:
    """Describe the columns as a response does."""
    return [_column(field) for field in table.schema]


def _column(field: Any) -> dict[str, Any]:
    kind, precision, scale, length = _snowflake_type(field.type)
    return {
        "name": field.name,
        "type": kind,
        "precision": precision,
        "scale": scale,
        "length": length,
        "byteLength": length,
        "nullable": True,
        "database": "",
        "schema": "",
        "table": "",
        "collation": None,
    }


def _snowflake_type(kind: Any) -> tuple[str, int | None, int | None, int | None]:
    """Return Snowflake's name of an Arrow type, with precision, scale and length."""
    if pa.types.is_boolean(kind):
        return "boolean", None, None, None
    if pa.types.is_integer(kind):
        return "fixed", 38, 0, None
    if pa.types.is_decimal(kind):
        return "fixed", kind.precision, kind.scale, None
    if pa.types.is_floating(kind):
        return "real", None, None, None
    if pa.types.is_date(kind):
        return "date", None, None, None
    if pa.types.is_timestamp(kind):
        return ("timestamp_ltz" if kind.tz else "timestamp_ntz"), 0, 9, None
    if pa.types.is_binary(kind):
        return "binary", None, None, _TEXT // 2
    return "text", None, None, _TEXT


def as_json(table: Any) -> list[list[str | None]]:
    """Write rows as text, as the JSON format has every value."""
    writers = [_writer(field.type) for field in table.schema]
    return [
        [None if value is None else write(value) for write, value in zip(writers, row, strict=True)]
        for row in zip(*(column.to_pylist() for column in table.columns), strict=True)
    ]


def _writer(kind: Any) -> Callable[[Any], str]:
    if pa.types.is_boolean(kind):
        return _bit
    if pa.types.is_date(kind):
        return _days
    if pa.types.is_timestamp(kind):
        return _seconds
    return bytes.hex if pa.types.is_binary(kind) else str


def _bit(value: bool) -> str:
    return str(int(value))


def _days(value: date) -> str:
    return str(value.toordinal() - 719_163)  # 1970-01-01


def _seconds(value: datetime) -> str:
    aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    return f"{int(aware.timestamp())}.{value.microsecond * 1000:09d}"


def as_arrow(table: Any) -> bytes:
    """Write rows as an Arrow stream; what Snowflake means by a column stands in its metadata."""
    fields: list[Any] = []
    columns: list[Any] = []
    for field, plain in zip(table.schema, table.columns, strict=True):
        kind, precision, scale, length = _snowflake_type(field.type)
        if kind == "fixed" and pa.types.is_integer(field.type):
            column = plain.cast(pa.int64())
        elif kind.startswith("timestamp"):
            column = _struct(plain)
        elif kind == "text":
            column = plain.cast(pa.string())
        else:
            column = plain
        metadata = {
            "logicalType": kind.upper(),
            "precision": str(precision or 38),
            "scale": str(scale or 0),
            "charLength": str(length or 0),
        }
        fields.append(pa.field(field.name, column.type, metadata=metadata))
        columns.append(column)
    schema = pa.schema(fields)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return bytes(sink.getvalue())


def _struct(column: Any) -> Any:
    """Split moments into whole seconds and nanoseconds."""
    micros = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()).combine_chunks()
    seconds = pc.floor(pc.divide(micros.cast(pa.float64()), 1e6)).cast(pa.int64())
    nanos = pc.multiply(pc.subtract(micros, pc.multiply(seconds, 1_000_000)), 1000)
    return pa.StructArray.from_arrays(
        [seconds, nanos.cast(pa.int32())],
        fields=[pa.field("epoch", pa.int64()), pa.field("fraction", pa.int32())],
        mask=pc.is_null(micros),
    )


def body(table: Any, form: str) -> dict[str, Any]:
    """Return the rows as they stand in a response, in "json" or "arrow"."""
    if form == "json":
        return {"queryResultFormat": "json", "rowset": as_json(table)}
    encoded = b64encode(as_arrow(table)).decode() if table.num_rows else ""
    return {"queryResultFormat": "arrow", "rowsetBase64": encoded}


def chunk(table: Any, form: str) -> bytes:
    """Return the rows as a chunk has them: Arrow, or JSON without the outer brackets."""
    if form == "arrow":
        return as_arrow(table)
    return json.dumps(as_json(table))[1:-1].encode()
