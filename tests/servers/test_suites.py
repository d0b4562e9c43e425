"""The drivers' own test suites, bare and under us: promise 1 of design.md.

Here run the parts that look closest at connections and cursors; the whole of a suite is run by
`python -m tests.servers.suites.psycopg`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.backends import PSYCOPG_SUITE, unavailable
from tests.processes import Unavailable
from tests.servers.suites.psycopg import SUITES, compare, download

if TYPE_CHECKING:
    from tests.backends import Server

PARTS = {
    "psycopg": ("cursor_common", "cursor_common_async", "cursor_server", "copy", "pipeline"),
    "psycopg2": ("cursor", "connection", "extras_dictcursor", "fast_executemany", "copy", "sql"),
    "asyncpg": ("cursor", "prepare", "execute", "copy", "record"),
}
LEAST = {"psycopg": 400, "psycopg2": 200, "asyncpg": 80}


@pytest.mark.slow
@pytest.mark.parametrize("driver", PARTS)
def test_no_new_failure(driver: str, postgres: Server, tmp_path: Path) -> None:
    if driver == "psycopg":
        if not PSYCOPG_SUITE:
            pytest.skip("psycopg's suite is in its repository only: $COSTINSIGHTS_PSYCOPG_SUITE")
        source = Path(PSYCOPG_SUITE)
    else:
        try:
            source = download(driver, tmp_path)
        except Unavailable as reason:
            unavailable(f"{driver}'s suite", reason)
    parts = [f"tests/test_{part}.py" for part in PARTS[driver]]
    result = compare(SUITES[driver], source, postgres, *parts)
    assert result.differences == {}
    assert result.ours.swallowed == {}
    # Both ran, and we looked on.
    assert list(result.ours.found.values()).count("passed") >= LEAST[driver]
    assert result.bare.calls == 0
    assert result.ours.calls >= LEAST[driver]
