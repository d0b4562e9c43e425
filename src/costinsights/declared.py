"""``[[resource]]``: what the user says of a host whose name does not say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from costinsights.hosts import Declared
from costinsights.pricing.fields import FieldError, Fields, as_word, exact_decimal

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS = "name, host, port, database, system, service, region, dimensions, hourly"
_LARGEST_PORT = 65_535


def read(table: Mapping[str, object], number: int) -> Declared:
    """Read one ``[[resource]]`` table. Raises FieldError."""
    fields = Fields(table)
    declared = Declared(
        name=fields.text("name", f"#{number}"),
        hosts=_hosts(fields),
        port=_port(fields),
        database=fields.optional_text("database"),
        system=fields.word("system") if "system" in fields else None,
        service=fields.word("service") if "service" in fields else None,
        region=fields.optional_text("region"),
        dimensions={
            as_word("dimensions", name): _text("dimensions", name, value)
            for name, value in fields.table("dimensions").items()
        },
        hourly={
            as_word("hourly", meter): _number(meter, value)
            for meter, value in fields.table("hourly").items()
        },
        source="[[resource]]",
    )
    fields.finish(FIELDS)
    if not declared.hosts and declared.port is None and declared.database is None:
        raise FieldError(None, "say which resources are meant: host, port or database, or several")
    if not any((declared.system, declared.service, declared.region)) and not (
        declared.dimensions or declared.hourly
    ):
        raise FieldError(
            None, "say what it is: system, service, region, dimensions or hourly, or several"
        )
    return declared


def _hosts(fields: Fields) -> tuple[str, ...]:
    if isinstance(value := fields.take("host"), list):
        return Fields({"host": cast("list[object]", value)}).texts("host")
    return () if value is None else (Fields({"host": value}).text("host"),)


def _port(fields: Fields) -> int | None:
    value = fields.take("port")
    if value is None or (type(value) is int and 0 < value <= _LARGEST_PORT):
        return value
    raise FieldError("port", f"port must be a number from 1 to {_LARGEST_PORT}")


def _text(field: str, name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise FieldError(field, f"{field}.{name} must be text in quotes")
    return value


def _number(meter: str, value: object) -> str:
    text = str(value) if type(value) is int else value
    try:
        number = exact_decimal(text)
    except ValueError as error:
        raise FieldError("hourly", f"hourly.{meter} {error}") from None
    if number <= 0:
        raise FieldError("hourly", f"hourly.{meter} must be more than 0")
    return str(number)
