"""Units as FOCUS wants them, the same from Python and from SQL."""

from __future__ import annotations

import re

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costinsights.billing.units import AMAZON, MICROSOFT, unit, unit_sql

UNITS = {
    "GB-Mo": "GB-Months",
    "GB-Month": "GB-Months",
    "GB-Months": "GB-Months",
    "GB": "GB",
    "Requests": "Requests",
    "Hrs": "Hours",
    "DPU-Hour": "DPU-Hours",
    "Lambda-GB-Second": "Lambda GB Second",
    "vCPU-Hours": "vCPU-Hours",
    "Second": "Seconds",
    "API Calls": "API Calls",
    "1 GB/Month": "GB-Months",
    "1 Hour": "Hours",
    "10K": "10000 Units",
    "10 K": "10000 Units",
    "1M": "1000000 Units",
    "100": "100 Units",
    "1": "Units",
    "1/Month": "Units-Months",
    "1 GB": "GB",
    "100 GB": "100 GB",
    "100 Hours": "100 Hours",
    "byte-seconds": "B-Seconds",
    "gibibyte month": "GiB-Months",
    "gibibyte": "GiB",
    "requests": "requests",
    "tebibyte": "TiB",
    "DBU": "DBU",
    "€/§": "Units",
    "": None,
    None: None,
}
# FOCUS's own pattern, as its validator 2.2.1 puts it together.
SIZES = "[KMGTPE]?i?[bB]"
PLURALS = "Years|Months|Days|Hours|Minutes|Seconds"
COUNT = r"[A-Za-z][A-Za-z0-9]*(?:\s+[A-Za-z][A-Za-z0-9]*)*"
FORMAT = re.compile(
    rf"({SIZES}|{PLURALS}|{COUNT})|({SIZES}|{COUNT})-({PLURALS})|[0-9]+ ({SIZES}|{PLURALS}|{COUNT})"
)


@pytest.mark.parametrize("text", UNITS)
def test_a_units_form(text: str | None) -> None:
    assert unit(text) == UNITS[text]


def test_the_same_in_sql() -> None:
    for known in (AMAZON, MICROSOFT):
        query = f"SELECT t, {unit_sql('t', known)} FROM (SELECT unnest(?) AS t)"
        assert duckdb.execute(query, [[*known, "Other", None]]).fetchall() == [
            *((text, unit(text)) for text in known),
            ("Other", "Other"),
            (None, None),
        ]


@pytest.mark.parametrize("text", [*AMAZON, *MICROSOFT])
def test_what_is_known_needs_another_form(text: str) -> None:
    assert unit(text) != text


@given(
    st.text("GBMKihrsmonthreqDPU-/ 0159_é", max_size=16)
    | st.sampled_from([text for text in UNITS if text])
)
def test_any_text_becomes_a_unit_of_focus(text: str) -> None:
    found = unit(text)
    assert found is None or FORMAT.fullmatch(found), (text, found)
    assert unit(found) == found
