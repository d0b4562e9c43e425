"""ACME DB's history: the table ``acme_queries``, which it keeps for 30 days."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from costinsights.records import Resource
from costinsights.settlement.history import MARK, Figure, History, HistoryError, Plan, utc

if TYPE_CHECKING:
    from collections.abc import Iterator

QUERY = f"""
SELECT id, account, text, began, ended, result_rows, bytes FROM acme_queries
WHERE ended >= ? AND began < ? /* {MARK} */
"""


class AcmeDBOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle.acmedb]``."""

    host: str
    user: str = "settlement"
    password: str = ""


class AcmeDBHistory(History):
    """Asks the host itself. What a query scanned is what it is billed for."""

    system = "acmedb"
    retention = timedelta(days=30)
    grants = "GRANT SELECT ON acme_queries TO settlement"
    meters = ("scanned_bytes",)
    verified = "example"
    Options = AcmeDBOptions
    options: AcmeDBOptions
    connection: Any = None

    def open(self) -> None:
        """Connect; the driver is imported here and nowhere else."""
        import acmedb

        self.connection = acmedb.connect(self.options.host, user=self.options.user)

    def close(self) -> None:
        """Hang up."""
        if self.connection is not None:
            self.connection.close()

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what is read. It is free, and there is nothing to wake."""
        return Plan((f"acme_queries of {self.options.host}, {since:%F %R} to {until:%F %R} UTC",))

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield every query whose time overlaps."""
        import acmedb

        cursor = self.connection.cursor()
        self.spend()
        try:
            cursor.execute(QUERY, (since.isoformat(), until.isoformat()))
        except acmedb.Error as error:
            if "permission" in str(error):
                raise self.denied("acme_queries") from None
            raise HistoryError(f"acme_queries cannot be read: {error}") from None
        for id_, account, text, began, ended, rows, scanned in cursor.fetchall():
            yield Figure(
                vendor_id=id_,
                user=account,
                text=text,
                started_at=utc(began),
                ended_at=utc(ended),
                rows=rows,
                meters={"scanned_bytes": scanned},
                billed=("scanned_bytes",),
                resource=Resource(self.options.host),
            )
