"""One table of a price file being read: its fields are taken out one by one and checked.

A reader takes every field that it knows and then calls `finish`, which refuses what is left: a
misspelt field must not pass in silence where it would have changed a price.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, cast

from costinsights.pricing.currencies import CURRENCIES

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_TEXT = 2000
_WHOLE_DIGITS = 15
_DECIMALS = 18
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_KEY = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ.-/+:@")


class FieldError(ValueError):
    """A field that is refused; `field` is its name, or None where the whole table is at fault."""

    def __init__(self, field: str | None, message: str) -> None:
        self.field = field
        super().__init__(message)


def exact_decimal(value: object) -> Decimal:
    """The number that `value` writes out, digit for digit. Raises ValueError for anything else."""
    if isinstance(value, (bool, int, float)):
        raise ValueError(  # noqa: TRY004  one kind of error for the one caller's message
            'must be text in quotes, such as "0.44", so that no digit is lost'
        )
    if not isinstance(value, str):
        raise ValueError('must be a number as text, such as "0.44"')  # noqa: TRY004
    whole, point, decimals = value.removeprefix("-").partition(".")
    if not (whole.isascii() and whole.isdigit() and decimals.isascii()) or (
        point and not decimals.isdigit()
    ):
        raise ValueError(f'{value[:40]!r} is not a plain decimal number such as "0.44"')
    if len(whole) > _WHOLE_DIGITS or len(decimals) > _DECIMALS:
        raise ValueError(
            f"has more than {_WHOLE_DIGITS} digits before or {_DECIMALS} after the point"
        )
    return Decimal(value)


class Fields:
    """The fields of one table."""

    def __init__(self, table: Mapping[str, object]) -> None:
        self._left = dict(table)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self) -> tuple[str, ...]:
        """What has not been taken yet."""
        return tuple(self._left)

    def take(self, name: str) -> object:
        """The raw value, or None where the field is absent (TOML knows no null)."""
        return self._left.pop(name, None)

    def finish(self, known: str) -> None:
        """Refuse whatever is left; `known` are the names to offer instead."""
        for name in self._left:
            raise FieldError(name, f"unknown field {name!r}; the fields are {known}")

    def text(self, name: str, default: str | None = None) -> str:
        """Printable text; required where there is no default."""
        value = self.take(name)
        if value is None:
            if default is None:
                raise FieldError(None, f"the field {name!r} is missing")
            return default
        return _text(name, value)

    def optional_text(self, name: str) -> str | None:
        """Printable text, or None."""
        return self.text(name) if name in self else None

    def word(self, name: str, default: str | None = None) -> str:
        """A meter, system or dimension: lower case letters, digits, underscores, dots."""
        value = self.text(name, default)
        return value if value == default else as_word(name, value)

    def key(self, name: str) -> str:
        """A name for people and command lines, without blanks."""
        value = self.text(name)
        if not _KEY.issuperset(value):
            raise FieldError(name, f"{name} {value!r} may hold letters, digits and . _ - / + : @")
        return value

    def currency(self, name: str) -> str:
        """A code of ISO 4217."""
        value = self.text(name)
        if value not in CURRENCIES:
            raise FieldError(
                name, f"currency {value!r} is not a code of ISO 4217, three capital letters"
            )
        return value

    def as_of(self, name: str, default: str | None = None) -> str:
        """A date as exact as its source: a day, a month, a year, two years, or `unknown`."""
        value = self.text(name, default)
        if value != "unknown" and not _is_as_of(value):
            raise FieldError(
                name,
                f"{name} {value!r} is not a date: write 2026-04-30, 2026-04, 2026, 2023-2024 "
                "or unknown",
            )
        return value

    def day(self, name: str) -> str:
        """A day, or empty."""
        value = self.text(name, "")
        if value and not is_day(value):
            raise FieldError(name, f"{name} {value!r} is not a day such as 2026-04-30")
        return value

    def flag(self, name: str) -> bool:
        """True or false; absent is false."""
        value = self.take(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise FieldError(name, f"{name} must be true or false")

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; absent is empty."""
        value = self.take(name)
        return () if value is None else _texts(name, value)

    def number(self, name: str) -> Decimal:
        """A decimal number as text, zero or more."""
        value = self.optional_number(name)
        if value is None:
            raise FieldError(None, f"the field {name!r} is missing")
        return value

    def optional_number(self, name: str, *, signed: bool = False) -> Decimal | None:
        """A decimal number as text; below zero only where it is `signed`."""
        value = self.take(name)
        if value is None:
            return None
        try:
            number = exact_decimal(value)
        except ValueError as error:
            raise FieldError(name, f"{name} {error}") from None
        if number.is_signed() and not (signed and number):
            raise FieldError(name, f"{name} {value!r} is negative")
        return number

    def positive(self, name: str) -> Decimal | None:
        """A decimal number as text, more than zero."""
        value = self.optional_number(name)
        if value is not None and not value:
            raise FieldError(name, f"{name} must be more than 0")
        return value

    def table(self, name: str) -> Mapping[str, object]:
        """A table inside the table; absent is empty."""
        value = self.take(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise FieldError(name, f"{name} must be a table")
        return cast("dict[str, object]", value)

    def tables(self, name: str) -> list[Mapping[str, object]]:
        """A list of tables, at least one."""
        value = self.take(name)
        if not isinstance(value, list):
            raise FieldError(name, f"{name} must be a list of tables")
        items = cast("list[object]", value)
        if not items or not all(isinstance(item, dict) for item in items):
            raise FieldError(name, f"{name} must be a list of tables")
        return cast("list[Mapping[str, object]]", items)

    def dims(self, name: str) -> dict[str, tuple[str, ...]]:
        """Dimension to the values that fit: one text or several."""
        return {
            as_word(name, dim): _texts(name, [value] if isinstance(value, str) else value)
            for dim, value in self.table(name).items()
        }


def as_word(name: str, value: str) -> str:
    """`value` if it may name a meter, a system or a dimension. Raises FieldError otherwise."""
    if not value[:1].isalpha() or not _LOWER.issuperset(value.replace(".", "")):
        raise FieldError(
            name, f"{name} {value!r} may hold small letters, digits, underscores and dots"
        )
    return value


def region_slug(region: str) -> str:
    """A region as it stands at the end of a key: `EU multi-region` becomes `eu-multi-region`."""
    letters = "".join(char if char.isascii() and char.isalnum() else " " for char in region.lower())
    return "-".join(letters.split())


def newest_of(as_of: str) -> str:
    """The last day, month or year that an as-of date names; empty for `unknown`."""
    if as_of == "unknown":
        return ""
    return as_of[5:] if _is_span(as_of) else as_of


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise FieldError(name, f"{name} must be text in quotes")
    if not value or value.isspace():
        raise FieldError(name, f"{name} is empty")
    if len(value) > _LONGEST_TEXT:
        raise FieldError(name, f"{name} is longer than {_LONGEST_TEXT} characters")
    if not value.isprintable():  # a terminal would obey an escape sequence
        raise FieldError(name, f"{name} holds characters that cannot be printed")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise FieldError(name, f"{name} must be a list of texts")
    items = cast("list[object]", value)
    if not items:
        raise FieldError(name, f"{name} is empty")
    return tuple(_text(name, item) for item in items)


def _is_span(text: str) -> bool:
    return len(text) == 9 and _is_year(text[:4]) and text[4] == "-" and _is_year(text[5:])


def _is_as_of(text: str) -> bool:
    if _is_span(text):
        return text[:4] <= text[5:]
    if len(text) == 4:
        return _is_year(text)
    return is_day(text + "-01") if len(text) == 7 else is_day(text)


def _is_year(text: str) -> bool:
    return text.isascii() and text.isdigit() and "1990" <= text <= "2999"


def is_day(text: str) -> bool:
    """Whether `text` is a day such as 2026-04-30."""
    from datetime import date

    if len(text) != 10 or not _is_year(text[:4]) or text[4] + text[7] != "--":
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
