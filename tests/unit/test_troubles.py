"""What errors of client libraries ask for: how long to leave the vendor alone."""

from __future__ import annotations

from typing import Any

import pytest
from azure.storage.blob import StorageErrorCode

from costinsights.troubles import trouble_of

LIMIT = "x-ms-ratelimit-microsoft.costmanagement-"


class Response:
    def __init__(self, headers: dict[str, str]) -> None:
        self.status_code = 429
        self.headers = headers


class Throttled(Exception):
    """As azure-core and requests have it: a response with headers."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("429")
        self.response: Any = Response(headers)
        self.error_code: str = ""


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "soon"}, None),
        ({f"{LIMIT}qpu-retry-after": "12", f"{LIMIT}entity-retry-after": "30"}, 30),
        ({"Retry-After": "40", f"{LIMIT}clienttype-retry-after": "9"}, 40),
        ({f"{LIMIT}QPU-Retry-After": "12", f"{LIMIT}tenant-retry-after": "never"}, 12),
        ({f"{LIMIT}qpu-retry-after": "-5"}, 0),
        ({f"{LIMIT}qpu-remaining": "QueriesPerHour:597", f"{LIMIT}qpu-consumed": "2"}, None),
    ],
)
def test_the_longest_of_all_that_a_vendor_asks_for_counts(
    headers: dict[str, str], after: float | None
) -> None:
    found = trouble_of(Throttled(headers))
    assert (found.kind, found.after) == ("throttled", after)


def test_a_code_that_is_an_enumeration_is_said_as_the_vendor_writes_it() -> None:
    error = Throttled({})
    error.error_code = StorageErrorCode.CONDITION_NOT_MET
    assert trouble_of(error).code == "ConditionNotMet"
