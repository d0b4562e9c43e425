"""Each charge once: chooses among its entries, here and in what has been compacted before.

A charge may have several entries: its later figures, and the same bill imported twice. Of those at
hand the best one is chosen. If an earlier compaction has already written the charge, its row there
stays, and the better figure comes with a *reversal*: the old row again, its measures negated. Sums
over all rows then count each charge once, without looking for it among millions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.ledger.columns import BASIS, ENDED, NAMES, better, listed, quoted, rank

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Only charges of statements are in files of charges, under the ids that processes give.
_OWN_ID = "regexp_full_match(charge_id, '[0-9a-f]{20}-[0-9]+')"

# Straight from the lines, because there may be millions: only what decides is worked out.
_CONTESTED = f"""
CREATE TABLE contested AS
WITH several AS (
    SELECT charge_id FROM lines GROUP BY charge_id HAVING count(*) > 1 OR NOT bool_and(first)
), ranked AS (
    SELECT l.charge_id, l.rowid AS place, l.first,
        row_number() OVER (
            PARTITION BY l.charge_id
            ORDER BY {rank(BASIS)} DESC, l.v DESC, l.t + {ENDED} DESC, l.m DESC, l.rowid
        ) AS nth
    FROM lines l SEMI JOIN several USING (charge_id)
)
SELECT charge_id, place, nth = 1 AS best, first FROM ranked
"""

_LIVE = """
CREATE VIEW live AS
SELECT * FROM entries e WHERE NOT EXISTS (
    SELECT 1 FROM losers WHERE losers.place = e.place
)
"""


def choose(connection: DuckDBPyConnection, charges: str | None, revisions: str | None) -> None:
    """Choose among `entries` and against what is compacted: `charges`, `revisions` (SQL sources).

    Afterwards there are ``losers`` (places of entries that a better one replaces), ``apart``
    (charge ids whose first entry is not here, or that are compacted), ``reversals`` (negated rows,
    as compacted) and the view ``live`` (the entries that count).
    """
    connection.execute(_CONTESTED)
    connection.execute("CREATE TABLE losers AS SELECT place FROM contested WHERE NOT best")
    connection.execute(
        "CREATE TABLE apart AS SELECT charge_id FROM contested "
        "GROUP BY charge_id HAVING NOT bool_or(first)"
    )
    connection.execute(f"CREATE TABLE reversals AS SELECT {listed()} FROM entries LIMIT 0")
    if charges is not None or revisions is not None:
        _compare(connection, charges, revisions)
    connection.execute(_LIVE)


def _compare(connection: DuckDBPyConnection, charges: str | None, revisions: str | None) -> None:
    """Hold what is chosen against what is compacted; the better of the two counts."""
    connection.execute(f"CREATE TABLE stored AS SELECT {listed()} FROM entries LIMIT 0")
    if charges is not None:
        _store(connection, charges, f"SELECT charge_id FROM apart WHERE {_OWN_ID}")
    if revisions is not None:
        _store(connection, revisions, "SELECT charge_id FROM lines")
    connection.execute(
        f"""
        CREATE TABLE current AS
        SELECT {listed()} FROM stored WHERE calls > 0 QUALIFY row_number() OVER (
            PARTITION BY charge_id
            ORDER BY {rank("basis")} DESC, revision DESC, ended_at DESC
        ) = 1
        """
    )
    connection.execute(
        f"""
        CREATE TABLE duel AS
        SELECT e.place, e.charge_id, {better("e", "c")} AS won
        FROM entries e JOIN current c ON c.charge_id = e.charge_id
        WHERE NOT EXISTS (SELECT 1 FROM losers WHERE losers.place = e.place)
        """
    )
    connection.execute("INSERT INTO losers SELECT place FROM duel WHERE NOT won")
    connection.execute(
        "INSERT INTO apart SELECT charge_id FROM duel "
        "WHERE charge_id NOT IN (SELECT charge_id FROM apart)"
    )
    connection.execute(
        f"INSERT INTO reversals SELECT {listed(negated=True)} FROM current "
        "WHERE charge_id IN (SELECT charge_id FROM duel WHERE won)"
    )


def _store(connection: DuckDBPyConnection, source: str, ids: str) -> None:
    columns = ", ".join(f"s.{quoted(name)}" for name in NAMES)
    connection.execute(
        f"INSERT INTO stored SELECT {columns} FROM {source} s WHERE s.charge_id IN ({ids})"
    )
