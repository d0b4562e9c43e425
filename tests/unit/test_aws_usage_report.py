"""The usage report's binary numbers become the decimals that are meant."""

from __future__ import annotations

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights.billing.columns import MONEY
from costinsights.billing.loading import exact
from tests.examples import examples

# As AWS writes them, of ten decimals; as they may be otherwise; and right beside those.
AS_BILLED = st.integers(-(10**15), 10**15).map(lambda number: number / 1e10)
ANY = st.floats(-1e18, 1e18, allow_nan=False, allow_infinity=False)
BESIDE = AS_BILLED.map(lambda number: number * (1 + 2**-52))


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.one_of(AS_BILLED, ANY, BESIDE), min_size=1, max_size=200))
def test_arithmetic_gives_what_text_gives(numbers: list[float]) -> None:
    connection = duckdb.connect(":memory:")
    try:
        found = connection.execute(
            f"SELECT v, {exact('v', 'DOUBLE')}, CAST(CAST(v AS VARCHAR) AS {MONEY}) "
            "FROM (SELECT unnest(?::DOUBLE[]) AS v)",
            [numbers],
        ).fetchall()
    finally:
        connection.close()
    for number, fast, by_text in found:
        assert fast == by_text, number


def test_other_types_and_nothing() -> None:
    connection = duckdb.connect(":memory:")
    try:
        found = connection.execute(
            f"SELECT {exact('a', 'VARCHAR')}::VARCHAR, {exact('b', 'VARCHAR')}, "
            f"{exact('c', 'FLOAT')}::VARCHAR, {exact('d', 'DECIMAL(20,10)')}::VARCHAR, "
            f"{exact('e', 'DOUBLE')} FROM (SELECT ' 0.1 ' AS a, '' AS b, 0.1::FLOAT AS c, "
            "0.1::DECIMAL(20,10) AS d, NULL::DOUBLE AS e)"
        ).fetchone()
    finally:
        connection.close()
    tenth = "0.100000000000000000"
    assert found == (tenth, None, tenth, "0.1000000000", None)
