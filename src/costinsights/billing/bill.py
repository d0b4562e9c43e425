"""The bill as tables of DuckDB: every published slice, each charge of the provider's once.

    with open_bill("ledger") as bill:
        bill.connection.execute("SELECT x_UsageKind, sum(BilledCost) FROM bill GROUP BY 1")

The same money may have been pulled twice: a bucket's lines from Cost Explorer, and all of S3 in an
export. Of two sources that have lines of one system on one account's day, that counts which has
more of it: an export before an API, everything before a part. Within one source a slice stands
once, because it replaces itself.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from costinsights.billing import slices as manifests
from costinsights.billing.columns import COLUMNS, TYPES
from costinsights.guard import suppressed
from costinsights.ledger.columns import quoted
from costinsights.ledger.live import literal
from costinsights.ledger.store import connect, unglobbed
from costinsights.ledger.writer import LedgerError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from duckdb import DuckDBPyConnection

    from costinsights.billing.slices import Manifest, Published

ATTEMPTS = 5
_SAME_MONEY = "ProviderName, BillingAccountId, x_System, CAST(ChargePeriodStart AS DATE)"


class Bill:
    """See `open_bill`."""

    def __init__(self, connection: DuckDBPyConnection, manifest: Manifest) -> None:
        self.connection = connection
        """A DuckDB with the view ``bill``: one FOCUS row a line of the bill, with the columns of
        `costinsights.billing.columns` and whatever else the sources have."""
        self.manifest = manifest

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query gives."""
        with suppressed():
            return self.connection.execute(query).fetchall()


@contextmanager
def open_bill(directory: str) -> Generator[Bill]:
    """Open the bill of the ledger at `directory` for queries, as it is now.

    Raises:
        LedgerError: it is damaged, or of a newer version.
        ImportError: DuckDB is not installed.
    """
    with TemporaryDirectory(prefix="costinsights-", ignore_cleanup_errors=True) as scratch:
        connection = connect(scratch)
        try:
            with suppressed():
                manifest = attach(connection, directory)
            yield Bill(connection, manifest)
        finally:
            connection.close()


def check(directory: str) -> tuple[int, list[str]]:
    """Look at every slice of the bill; return how many there are, and what is damaged.

    Raises:
        LedgerError: the manifest cannot be read by this version at all.
        ImportError: DuckDB is not installed.
    """
    import duckdb

    damage: list[str] = []
    manifest = manifests.load(directory)
    place = manifests.folder(directory)
    with TemporaryDirectory(prefix="costinsights-") as scratch:
        connection = connect(scratch)
        try:
            for one in manifest.slices:
                path = os.path.join(place, one.path)
                try:
                    with suppressed():
                        damage += _damage(connection, one, path, place)
                except FileNotFoundError:
                    damage.append(f"{path} is missing: pull {one.slice.told()} with --restate")
                except duckdb.Error as error:
                    damage.append(f"{path} cannot be read: {str(error).splitlines()[0]}")
        finally:
            connection.close()
    return len(manifest.slices), damage


def _damage(
    connection: DuckDBPyConnection, one: Published, path: str, place: str
) -> Generator[str]:
    size = os.stat(path).st_size
    if size != one.size:
        yield f"{path} has {size} bytes instead of {one.size}"
        return
    sums = connection.execute(
        f"SELECT BillingCurrency, sum(BilledCost)::VARCHAR, count(*) FROM {files([one], place)} "
        "GROUP BY 1"
    ).fetchall()
    billed = {str(currency): str(amount) for currency, amount, _ in sums}
    rows = sum(count for *_, count in sums)
    if (billed, rows) != (one.last.billed, one.last.rows):
        yield f"{path} is not what was pulled: {rows} rows instead of {one.last.rows}"


def attach(connection: DuckDBPyConnection, directory: str) -> Manifest:
    """Create the view ``bill`` in a DuckDB; return what it is made of.

    Raises:
        LedgerError: the bill is damaged, or of a newer version.
    """
    place = manifests.folder(directory)
    for _ in range(ATTEMPTS):
        manifest = manifests.load(directory)
        paths = {one.path: os.path.join(place, one.path) for one in manifest.slices}
        missing = [path for path in paths.values() if not os.path.exists(path)]
        if not missing:
            connection.execute(f"CREATE OR REPLACE VIEW bill AS {_rows(manifest, place)}")
            return manifest
        if manifests.load(directory).generation == manifest.generation:
            raise LedgerError(f"{missing[0]} is missing: pull its slice again with --restate")
    raise LedgerError(f"{place} kept changing while it was read: try again")


def _rows(manifest: Manifest, place: str) -> str:
    filled = [one for one in manifest.slices if one.last.rows]
    if not filled:
        nothing = ", ".join(
            f"CAST(NULL AS {TYPES[column.kind]}) AS {quoted(column.name)}" for column in COLUMNS
        )
        return f"SELECT {nothing} WHERE false"
    layers: dict[tuple[int, str, str], list[Published]] = {}
    for one in filled:
        layers.setdefault((-one.rank, one.slice.source, one.slice.wanted), []).append(one)
    if len(layers) == 1:
        return f"SELECT * FROM {files(filled, place)}"
    parts = [
        f"SELECT *, {number} AS layer FROM {files(layers[key], place)}"
        for number, key in enumerate(sorted(layers))
    ]
    every = " UNION ALL BY NAME ".join(parts)
    return (
        f"SELECT * EXCLUDE (layer) FROM ({every}) "
        f"QUALIFY layer = min(layer) OVER (PARTITION BY {_SAME_MONEY})"
    )


def files(published: Sequence[Published], place: str) -> str:
    """Return the SQL source of slices' own rows, whatever other sources say of the same money."""
    listed = ", ".join(literal(unglobbed(os.path.join(place, one.path))) for one in published)
    return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
