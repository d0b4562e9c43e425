"""What a charge is: the record that the ledger keeps and that exporters and reports read.

Two shapes of the same fact live here. `Charge` is the whole record, documented field by field in
``docs/ledger.md``. The ``*Line`` structs are its compact form on disk, where everything that
repeats (a statement's text, a resource, an attribution, a price) stands once a segment and is
referred to by number.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

Basis = Literal["estimated", "metered", "allocated", "billed", "unknown"]

BASES: tuple[Basis, ...] = get_args(Basis)

# How much a figure can be trusted, for choosing between two entries of one charge.
BASIS_RANK: dict[Basis, int] = {
    "unknown": 0,
    "estimated": 1,
    "allocated": 2,
    "metered": 3,
    "billed": 4,
}

# Amounts are counted in whole 10⁻¹⁵ of a currency. On disk they are integers up to what every
# reader of JSON takes for one, 9,223 of the currency; beyond that they are decimal text.
DECIMALS = 15
MAX_INTEGER = 2**63


def decimal_text(units: int) -> str:
    """Write whole 10⁻¹⁵ units as a decimal: ``0.000000003955555``."""
    whole, rest = divmod(abs(units), 10**DECIMALS)
    return f"{'-' if units < 0 else ''}{whole}.{rest:015d}"


class Resource(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a call went: never a user name, never a password."""

    address: str | None = None
    port: int | None = None
    namespace: str | None = None
    service: str | None = None
    region: str | None = None


class StatementInfo(msgspec.Struct, frozen=True):
    """A statement without its literals: the text is redacted and at most 16 KiB."""

    fingerprint: str
    summary: str
    text: str


class PriceInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """The price line that an amount was made with."""

    key: str
    unit_price: str
    unit: str
    source: str
    as_of: str
    book: str


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a call failed: the exception's type and SQLSTATE, never its message."""

    type: str
    sqlstate: str | None = None


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One measured call, or one billed line, priced or honestly unknown.

    ``amount`` is a decimal string in ``currency``; ``None`` means that no price is known, never
    that the call was free. ``duration_ns`` is the time spent inside the driver.
    """

    charge_id: str
    revision: int = 0
    system: str
    resource: Resource
    operation: str
    statement: StatementInfo | None
    started_at: str
    ended_at: str
    duration_ns: int
    usage: dict[str, int | float | str]
    rows: int | None
    amount: str | None
    currency: str | None
    basis: Basis
    price: PriceInfo | None
    attribution: dict[str, str]
    tag: str | None = None
    vendor_id: str | None = None
    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    trace_flags: int = 1
    error: ErrorInfo | None = None
    partial: bool = False
    service: str
    host: str
    pid: int
    instrumentor: str


# --- The compact form on disk -------------------------------------------------------------------
# One-letter names because the ledger's budget is 300 bytes an entry; docs/ledger.md explains them.


class HeaderLine(msgspec.Struct, frozen=True, tag_field="k", tag="h"):
    """The first line of each segment: who writes it."""

    format: int
    process: str
    service: str
    host: str
    pid: int
    started_at: int
    library: str


class StatementLine(msgspec.Struct, frozen=True, tag_field="k", tag="s"):
    """A statement's shape, once a segment."""

    i: int
    fingerprint: str
    operation: str
    summary: str
    text: str


class ResourceLine(msgspec.Struct, frozen=True, tag_field="k", tag="r", omit_defaults=True):
    """Where calls go, and by which instrumentor."""

    i: int
    system: str
    instrumentor: str
    address: str | None = None
    port: int | None = None
    namespace: str | None = None
    service: str | None = None
    region: str | None = None


class AttributionLine(msgspec.Struct, frozen=True, tag_field="k", tag="a"):
    """Who calls are for."""

    i: int
    labels: dict[str, str]


class PriceLineRef(msgspec.Struct, frozen=True, tag_field="k", tag="p"):
    """The price line that amounts were made with."""

    i: int
    key: str
    unit_price: str
    unit: str
    currency: str
    source: str
    as_of: str
    book: str


class EntryLine(msgspec.Struct, tag_field="k", tag="e", omit_defaults=True):
    """One entry. The usual fields stand first: the recorder gives them by position.

    n: number of the charge in its process; t: start, ns since the epoch; d: time in the driver,
    ns; r, a, s, p: the resource, attribution, statement and price it refers to, 0 for none;
    w: rows; f: share of the resource's capacity, 10⁻⁶ ns; m: amount, as a whole number of 10⁻¹⁵
    of the currency or as decimal text; b: basis where it does not follow from the amount;
    u: further meters; o: operation where the statement does not give it; x: W3C traceparent;
    e: error type and SQLSTATE; v: revision; l: rows were left unread; y: wall time, ns, where it
    is longer than d; c: whole charge id, of another process's charge; g: tag; i: vendor's id.
    """

    n: int
    t: int
    d: int
    r: int
    a: int
    s: int = 0
    p: int = 0
    w: int | None = None
    f: int = 0
    m: int | str | None = None
    b: Basis | None = None
    u: dict[str, int | float | str] | None = None
    o: str | None = None
    x: str | None = None
    e: tuple[str, str | None] | None = None
    v: int = 0
    l: bool = False  # noqa: E741  one letter a field, like its neighbours
    y: int = 0
    c: str | None = None
    g: str | None = None
    i: str | None = None


class LossLine(msgspec.Struct, frozen=True, tag_field="k", tag="x"):
    """Entries that could not be written before the disk came back, per reason."""

    at: int
    dropped: dict[str, int]


Line = (
    HeaderLine
    | StatementLine
    | ResourceLine
    | AttributionLine
    | PriceLineRef
    | EntryLine
    | LossLine
)
