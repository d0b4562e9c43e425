"""Price files: what comes with the package is complete, and what is malformed is refused."""

from __future__ import annotations

import os
import random
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights.pricing import PriceBook, PriceBookError, PriceLine, builtin
from costinsights.pricing.fields import exact_decimal, newest_of, region_slug
from costinsights.pricing.files import parse
from tests.examples import examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD = """\
# Our own rates, agreed in April.

[[price]]
key = "own.glue/us-east-1"
provider = "aws"
service = "AWS Glue"
system = "aws.glue"
meter = "dpu_seconds"
dims = { execution_class = "standard" }
defaults = ["execution_class"]
region = "us-east-1"
unit = "DPU-Hour"
price = "0.396"
currency = "USD"
as_of = "2026-04-01"
source = "contract 4711"

[[price]]
key = "own.scan.first/us-east-1"
provider = "own"
service = "Scanner"
system = "scanner"
meter = "scanned_bytes"
region = "us-east-1"
unit = "TB"
unit_scale = "1099511627776"
minimum = "10485760"
increment = "1048576"
tier_from = "0"
tier_to = "10"
price = "5.00"
currency = "EUR"
as_of = "2026"
source = "contract 4711"

[[price]]
key = "own.scan.next/us-east-1"
provider = "own"
service = "Scanner"
system = "scanner"
meter = "scanned_bytes"
region = "us-east-1"
unit = "TB"
unit_scale = "1099511627776"
minimum = "10485760"
increment = "1048576"
tier_from = "10"
price = "4.00"
currency = "EUR"
as_of = "2026"
source = "contract 4711"

[[rule]]
name = "own.scanner"
system = "scanner"
meter = "scanned_bytes"
terms = [{ meter = "files" }, { meter = "file_bytes", minimum = "131072" }]
source = "contract 4711"

[[discount]]
name = "agreement"
key = "aws.athena.*"
multiplier = "0.88"
source = "contract 4711"
as_of = "2026-04"

[[capacity]]
name = "orders"
system = "postgresql"
host = "db-*.example.com"
port = 5432
price = "0.178"
currency = "USD"
"""


def load(tmp_path: Path, text: str | bytes, name: str = "own.toml") -> PriceBook:
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return PriceBook.load(file)


def refusal(tmp_path: Path, text: str | bytes) -> PriceBookError:
    with pytest.raises(PriceBookError) as caught:
        load(tmp_path, text)
    return caught.value


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


# What comes with the package


def built_in_lines() -> tuple[PriceLine, ...]:
    return PriceBook.load().lines()


def test_every_line_says_all_that_it_must() -> None:
    lines = built_in_lines()
    assert len(lines) >= 244
    for line in lines:
        where = line.key
        for field in ("provider", "service", "sku", "system", "meter", "region", "unit", "source"):
            assert getattr(line, field), (where, field)
        assert line.currency == "USD", where
        assert line.price.is_finite(), where
        assert line.price > 0 or line.free, where
        assert line.as_of != "unknown" or line.unsourced, where


def test_keys_tell_the_provider_the_service_and_the_region() -> None:
    for line in built_in_lines():
        service, _, region = line.key.partition("/")
        assert service.startswith(f"{line.provider}."), line.key
        assert service.startswith(f"{line.resource_service or line.system}."), line.key
        assert region == region_slug(line.region), line.key


def test_a_system_named_after_a_provider_stands_in_its_file_alone() -> None:
    """`lines(system="aws.glue")` parses aws.toml and no other file."""
    for line in built_in_lines():
        for system in (line.system, line.resource_service or "", *line.also):
            first = system.partition(".")[0]
            assert first not in builtin.PROVIDERS or first == line.provider, line.key


def test_every_rule_makes_a_meter_that_is_priced_in_the_end() -> None:
    book = PriceBook.load()
    priced = {line.meter for line in book.lines()}
    inputs = {term.meter for rule in book.rules() for term in rule.terms}
    for rule in book.rules():
        assert rule.meter in priced | inputs, rule.name


def test_lines_without_a_source_are_listed_but_nothing_is_priced_from_them() -> None:
    unsourced = [line for line in built_in_lines() if line.unsourced]
    assert {line.key for line in unsourced} == {
        "aws.emr_serverless.storage/us-east-1",
    }
    quote = PriceBook.load().quote("aws.emr_serverless", {"storage_gb_hours": 5}, "us-east-1")
    assert quote.amount is None
    assert "has no source" in quote.reason


def test_the_newest_date_is_found_without_parsing() -> None:
    raw = b"\0".join(builtin.content(name) for name in builtin.PROVIDERS)
    parsed = max(newest_of(line.as_of) for line in built_in_lines())
    assert builtin.newest_as_of(raw) == parsed == "2026-10-09"


def test_the_file_that_the_other_tests_spoil_is_good(tmp_path: Path) -> None:
    book = load(tmp_path, GOOD)
    glue = book.get("own.glue/us-east-1")
    assert glue is not None
    assert glue.price == Decimal("0.396")
    assert book.quote("scanner", {"scanned_tb": 12}, "us-east-1").amount == Decimal("58.00")


# What is refused, and where

REFUSED = {
    "no key": ('key = "own.glue/us-east-1"\n', "", "[[price]]", "the field 'key' is missing"),
    "no price": ('price = "0.396"\n', "", "[[price]]", "the field 'price' is missing"),
    "no currency": (
        'price = "0.396"\ncurrency = "USD"',
        'price = "0.396"',
        "[[price]]",
        "the field 'currency' is missing",
    ),
    "no date": ('as_of = "2026-04-01"\n', "", "[[price]]", "the field 'as_of' is missing"),
    "no source": (
        'as_of = "2026-04-01"\nsource = "contract 4711"',
        'as_of = "2026-04-01"',
        "[[price]]",
        "the field 'source' is missing",
    ),
    "key taken": (
        '"own.scan.next/us-east-1"',
        '"own.glue/us-east-1"',
        'key = "own.glue/us-east-1"\nprovider = "own"',
        "is taken by",
    ),
    "negative": ('"0.396"', '"-0.396"', 'price = "-0.396"', "is negative"),
    "NaN": ('"0.396"', '"NaN"', 'price = "NaN"', "not a plain decimal number"),
    "Infinity": ('"0.396"', '"Infinity"', 'price = "Inf', "not a plain decimal number"),
    "1e400": ('"0.396"', '"1e400"', 'price = "1e400"', "not a plain decimal number"),
    "too long": ('"0.396"', f'"1{"0" * 400}"', 'price = "1000', "more than 15 digits"),
    "comma": ('"0.396"', '"0,396"', 'price = "0,396"', "not a plain decimal number"),
    "blank": ('"0.396"', '" 0.396"', 'price = " 0.396"', "not a plain decimal number"),
    "other digits": ('"0.396"', '"٣"', "price =", "not a plain decimal number"),
    "float": ('"0.396"', "0.396", "price = 0.396", "must be text in quotes"),
    "float nan": ('"0.396"', "nan", "price = nan", "must be text in quotes"),
    "integer": ('"0.396"', "1", "price = 1", "must be text in quotes"),
    "true": ('"0.396"', "true", "price = true", "must be text in quotes"),
    "list": ('"0.396"', '["0.396"]', "price = [", "must be a number as text"),
    "zero": ('"0.396"', '"0"', 'price = "0"', "say free = true"),
    "free": ('price = "0.396"', 'price = "0.396"\nfree = true', "price = ", "needs price 0"),
    "unit": ('"DPU-Hour"', '"DPU-Hours"', "unit =", "did you mean 'DPU-Hour'?"),
    "unit of another meter": ('"DPU-Hour"', '"GB"', "unit =", "needs a meter that ends in"),
    "GB for GiB": (
        'unit_scale = "1099511627776"\nminimum = "10485760"\nincrement = "1048576"\ntier_from = "0"',
        'tier_from = "0"',
        'unit = "TB"',
        "is ambiguous",
    ),
    "wrong scale": (
        'unit_scale = "1099511627776"',
        'unit_scale = "1024"',
        'unit = "TB"',
        "is ambiguous",
    ),
    "currency": ('currency = "USD"', 'currency = "USDT"', "currency", "ISO 4217"),
    "small currency": ('currency = "USD"', 'currency = "usd"', "currency", "ISO 4217"),
    "no such currency": ('currency = "USD"', 'currency = "UDS"', "currency", "ISO 4217"),
    "date": ('"2026-04-01"', '"2026-02-30"', "as_of", "is not a date"),
    "TOML date": ('"2026-04-01"', "2026-04-01", "as_of", "must be text in quotes"),
    "unknown field": ('meter = "dpu', 'metre = "x"\nmeter = "dpu', "metre", "unknown field 'metre'"),
    "unknown table": ("[[rule]]", "[[rules]]", "[[rules]]", "unknown table 'rules'"),
    "plain table": ("[[discount]]", "[discount]", "[discount]", "write [[discount]]"),
    "region of the key": (
        'region = "us-east-1"',
        'region = "us-east-2"',
        "key =",
        "is written 'us-east-2'",
    ),
    "escape sequence": ('"AWS Glue"', '"\\u001b[31mGlue"', "service", "cannot be printed"),
    "empty": ('"AWS Glue"', '" "', "service", "service is empty"),
    "long": ('"AWS Glue"', f'"{"x" * 3000}"', "service", "longer than"),
    "tiers overlap": ('tier_from = "10"', 'tier_from = "9"', 'key = "own.scan.next', "overlaps"),
    "tier order": ('tier_to = "10"', 'tier_to = "0.0"', "tier_to", "must be more than 0"),
    "combine": ('meter = "scanned_bytes"\nterms', 'meter = "scanned_bytes"\ncombine = "mean"\nterms', "combine", "combine must be one of"),
    "terms": ('terms = [{ meter = "files" }', 'terms = [{ metre = "files" }', "terms", "unknown field"),
    "term of nothing": ('{ meter = "files" }', "{}", "terms", "has a meter, or a dimension"),
    "multiplier": ('"0.88"', '"12"', "multiplier", 'a discount of 12 % is "0.88"'),
    "no multiplier": ('"0.88"', '"0"', "multiplier", "must be more than 0"),
    "discount twice": (
        "[[capacity]]",
        '[[discount]]\nname = "agreement"\nkey = "aws.*"\nmultiplier = "0.9"\n\n[[capacity]]',
        'name = "agreement"\nkey = "aws.*"',
        "the name 'agreement' is taken by",
    ),
    "discount on all": ('key = "aws.athena.*"\n', "", "[[discount]]", "say what it applies to"),
    "discount on none": ('"aws.athena.*"', '"aws.athina.*"', "[[discount]]", "matches no price line"),
    "capacity of nothing": (
        'system = "postgresql"\nhost = "db-*.example.com"\nport = 5432\n',
        "",
        "[[capacity]]",
        "say what runs on it",
    ),
    "capacity port": ("5432", "70000", "port", "from 1 to 65535"),
    "capacity price": ('"0.178"', '"0"', 'price = "0"', "nothing to share"),
    "capacity line": (
        'price = "0.178"\ncurrency = "USD"',
        'line = "aws.nothing"',
        "[[capacity]]",
        "no price line has the key 'aws.nothing'",
    ),
    "capacity line and price": (
        'price = "0.178"',
        'price = "0.178"\nline = "aws.rds.mysql.db.m5.large.single_az/us-east-1"',
        'price = "0.178"',
        "either line or price",
    ),
    "capacity by the month": (
        'price = "0.178"\ncurrency = "USD"',
        'line = "aws.s3.standard.storage/us-east-1"',
        "[[capacity]]",
        "is not an hour",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_file_line_and_reason(tmp_path: Path, case: str) -> None:
    old, new, at, reason = REFUSED[case]
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    error = refusal(tmp_path, text)
    assert reason in error.message
    assert error.line == line_of(text, at)
    assert str(error).startswith(f"{tmp_path / 'own.toml'}:{error.line}: ")


def test_validity_may_follow_but_not_overlap(tmp_path: Path) -> None:
    first, rest = GOOD.split("[[price]]", 2)[1:]
    old = first.replace('as_of = "2026-04-01"', 'valid_to = "2026-04-01"\nas_of = "2026-04-01"')
    new = first.replace("own.glue/", "own.glue.new/").replace(
        'as_of = "2026-04-01"', 'valid_from = "2026-04-01"\nas_of = "2026-04-01"'
    )
    del rest
    good = f"[[price]]{old}[[price]]{new.replace('0.396', '0.4')}"
    book = load(tmp_path, good)
    prices = [
        book.quote("aws.glue", {"dpu_hours": 1}, "us-east-1", at=day).amount
        for day in ("2026-03-31", "2026-04-01")
    ]
    assert prices == [Decimal("0.396"), Decimal("0.40")]
    error = refusal(tmp_path, good.replace('valid_to = "2026-04-01"', 'valid_to = "2026-04-02"'))
    assert "overlaps" in error.message
    error = refusal(tmp_path, good.replace('valid_to = "2026-04-01"\n', ""))
    assert "overlaps" in error.message
    backwards = good.replace(
        'valid_to = "2026-04-01"', 'valid_to = "2026-04-01"\nvalid_from = "2026-05-01"'
    )
    assert "too early" in refusal(tmp_path, backwards).message


def test_not_utf8(tmp_path: Path) -> None:
    error = refusal(tmp_path, GOOD.encode().replace(b"AWS Glue", b"AWS Gl\xfce"))
    assert error.message == "is not UTF-8 text"
    assert error.line == line_of(GOOD, "AWS Glue")


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ('price = "0.396"', 'price = "0.396', 'price = "0.396'),
        ("[[rule]]", "[[rule]", "[[rule]"),
        ('price = "0.396"', 'price = "0.396"\nprice = "0.4"', 'price = "0.4"'),
    ],
)
def test_not_toml(tmp_path: Path, old: str, new: str, at: str) -> None:
    text = GOOD.replace(old, new, 1)
    error = refusal(tmp_path, text)
    assert "is not TOML" in error.message
    assert error.line == line_of(text, at)


def test_deep_nesting_and_huge_numbers_are_refused(tmp_path: Path) -> None:
    for text in ("x = " + "[" * 100_000, "[[price]]\nprice = " + "9" * 100_000):
        error = refusal(tmp_path, text)
        assert error.line >= 1


def test_lines_are_counted_past_texts_that_look_like_headers(tmp_path: Path) -> None:
    tricky = "\n[[price]]\n"
    text = GOOD.replace('"AWS Glue"', f"'''{tricky}'''", 1).replace(
        "# Our own", "#[[price]] # Our own\r\n#", 1
    )
    error = refusal(tmp_path, text)  # a text with a line break cannot be printed in one
    assert error.line == line_of(text, "service =")
    text = GOOD.replace("# Our own", "# [[price]]\n# '''", 1).replace('"4.00"', '"4,00"')
    assert refusal(tmp_path, text).line == line_of(text, '"4,00"')


def test_inline_tables_are_refused_where_they_stand(tmp_path: Path) -> None:
    error = refusal(tmp_path, '\n\nprice = [{ key = "a" }]\n')
    assert (error.line, "missing" in error.message) == (3, True)
    assert refusal(tmp_path, "\nprice = 1\n").line == 2
    assert refusal(tmp_path, "\nprice = [1]\n").line == 2


def test_a_file_of_100_mb_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "huge.toml"
    with file.open("wb") as sparse:
        sparse.truncate(100 * 2**20)
    with pytest.raises(PriceBookError, match="is larger than 8 MiB"):
        PriceBook.load(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, reason in (
        (tmp_path / "missing.toml", "No such file"),
        (tmp_path, "regular file|Is a directory"),
        (fifo, "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
    ):
        with pytest.raises(PriceBookError, match=reason) as caught:
            PriceBook.load(path)
        assert caught.value.path == str(path)


def test_an_empty_file_is_good(tmp_path: Path) -> None:
    assert len(load(tmp_path, "").lines()) == len(built_in_lines())


# Mutations

Mutation = tuple[str, "Callable[[random.Random, list[str]], list[str]]"]


def _tables(lines: list[str]) -> list[int]:
    return [number for number, line in enumerate(lines) if line.startswith("[[")]


def _fields(lines: list[str]) -> list[int]:
    return [number for number, line in enumerate(lines) if " = " in line]


def _drop_a_field(rng: random.Random, lines: list[str]) -> list[str]:
    at = rng.choice([n for n in _fields(lines) if not lines[n].startswith(MEANINGFUL)])
    return [*lines[:at], *lines[at + 1 :]]


def _write_a_field_twice(rng: random.Random, lines: list[str]) -> list[str]:
    at = rng.choice(_fields(lines))
    return [*lines[: at + 1], *lines[at:]]


def _misspell_a_field(rng: random.Random, lines: list[str]) -> list[str]:
    at = rng.choice(_fields(lines))
    name, _, value = lines[at].partition(" = ")
    cut = rng.randrange(len(name))
    return [*lines[:at], f"{name[:cut]}_{name[cut:]} = {value}", *lines[at + 1 :]]


def _spoil_a_value(rng: random.Random, lines: list[str]) -> list[str]:
    at = rng.choice([n for n in _fields(lines) if lines[n].split(" = ")[0] in SPOILT])
    name = lines[at].split(" = ")[0]
    return [*lines[:at], f"{name} = {rng.choice(SPOILT[name])}", *lines[at + 1 :]]


def _cut_the_file(rng: random.Random, lines: list[str]) -> list[str]:
    at = rng.choice(_fields(lines))
    return [*lines[:at], lines[at][: rng.randrange(1, len(lines[at]))]]


def _break_the_syntax(rng: random.Random, lines: list[str]) -> list[str]:
    text = "\n".join(lines)
    at = rng.choice([n for n, char in enumerate(text) if char in '"[]={}'])
    return (text[:at] + text[at + 1 :]).split("\n")


def _repeat_a_table(rng: random.Random, lines: list[str]) -> list[str]:
    starts = [*_tables(lines), len(lines)]
    at = rng.randrange(len(starts) - 1)
    return [*lines, *lines[starts[at] : starts[at + 1]]]


def _reorder_the_fields(rng: random.Random, lines: list[str]) -> list[str]:
    starts = [*_tables(lines), len(lines)]
    at = rng.randrange(len(starts) - 1)
    body = lines[starts[at] + 1 : starts[at + 1]]
    rng.shuffle(body)
    return [*lines[: starts[at] + 1], *body, *lines[starts[at + 1] :]]


def _add_what_means_nothing(rng: random.Random, lines: list[str]) -> list[str]:
    at = rng.randrange(len(lines))
    return [*lines[:at], rng.choice(["", "# [[price]]", "\t", "   # price = 1"]), *lines[at:]]


BAD_NUMBERS = [
    '"-1"', '"NaN"', '"Infinity"', '"-Infinity"', '"1e400"', '"1E5"', '"0x10"', '"1_000"', '"+1"',
    '".5"', '"5."', '"1,5"', '""', '"one"', "0.5", "1", "nan", "inf", "true", "[]", "{}", "1979-05-27",
]  # fmt: skip
SPOILT = {
    "price": [*BAD_NUMBERS, '"0"', '"0.00"'],
    "multiplier": [*BAD_NUMBERS, '"0"', '"88"'],
    "minimum": [*BAD_NUMBERS, '"0"'],
    "increment": [*BAD_NUMBERS, '"0"'],
    "unit_scale": [*BAD_NUMBERS, '"0"', '"1024"', '"1000000"'],
    "unit": ['"tb"', '"PB"', '"MiB "', '"hours"', "1", '"credit"', '"request"'],
    "currency": ['"usd"', '"US"', '"USDT"', '"ZZZ"', '"$"', "1", '"XXX"'],
    "as_of": ['"yesterday"', '"2026-13"', '"01/04/2026"', '"26"', "2026", "2026-04-01", '"2026-W01-1"'],
    "key": ['""', '"a b"', '"\\u0000"', "1", '"own.glue/eu-west-1"'],
    "port": ["0", "-1", "65536", '"5432"', "5432.0", "true"],
    "terms": ["[]", "{}", '"x"', "[1]", '[{ meter = "a", dimension = "b" }]', '[{ dimension = "b" }]'],
    "dims": ['"x"', "[]", "{ execution_class = 1 }", "{ execution_class = [] }", '{ "A B" = "x" }'],
    "defaults": ['"execution_class"', '["other"]', "[1]", "[]"],
}  # fmt: skip
MUTATIONS = [
    _drop_a_field,
    _write_a_field_twice,
    _misspell_a_field,
    _spoil_a_value,
    _cut_the_file,
    _break_the_syntax,
    _repeat_a_table,
    _reorder_the_fields,
    _add_what_means_nothing,
]
# Without these a file is good and means something else.
MEANINGFUL = ("defaults", "minimum", "increment")


def _totals(book: PriceBook) -> list[object]:
    capacity = book.capacity_for("postgresql", "db-1.example.com", 5432, "orders")
    return [
        book.quote("aws.glue", {"dpu_hours": 7}, "us-east-1").amount,
        book.quote("scanner", {"scanned_tb": 12}, "us-east-1").amount,
        book.quote("scanner", {"files": 9, "file_bytes": 1}, "us-east-1").amount,
        book.quote("aws.athena", {"data_scanned_tb": 3}, "us-east-1").amount,
        None if capacity is None else capacity.units(10**18),
    ]


def test_hundreds_of_mutants_are_refused_or_change_nothing(tmp_path: Path) -> None:
    rng = random.Random(4711)
    totals = _totals(load(tmp_path, GOOD))
    assert None not in totals
    refusals: list[PriceBookError] = []
    last_line = same = 0
    for number in range(650):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        lines = GOOD.split("\n")
        mutant = mutate(rng, list(lines))
        try:
            book = load(tmp_path, "\n".join(mutant))
        except PriceBookError as error:
            refusals.append(error)
            last_line = max(last_line, len(mutant) + 1)
            continue
        assert _totals(book) == totals, (mutate.__name__, number)
        same += 1
    assert len(refusals) >= 400
    assert same >= 100
    assert {error.path for error in refusals} == {str(tmp_path / "own.toml")}
    assert all(1 <= error.line <= last_line for error in refusals)


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_hold_nothing(content: bytes) -> None:
    lines: dict[str, PriceLine] = {}
    refused_at = 1
    try:
        lines.update(parse("x.toml", content, layer=1).lines)
    except PriceBookError as error:
        refused_at = error.line
    assert refused_at >= 1
    assert not lines


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(max_size=40))
def test_a_number_is_exactly_what_is_written(text: str) -> None:
    try:
        number = exact_decimal(text)
    except ValueError:
        return
    assert f"{number:f}" == text


@settings(max_examples=examples(50), deadline=None)
@given(st.decimals(min_value=0, max_value=10**15 - 1, places=18, allow_nan=False))
def test_no_digit_of_a_price_is_lost(price: Decimal) -> None:
    if not price:
        return
    text = GOOD.replace('"0.396"', f'"{price:f}"')
    line = parse("x.toml", text.encode(), layer=1).lines["own.glue/us-east-1"]
    assert line.price_text == f"{price:f}"
