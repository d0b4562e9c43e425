"""ACME DB: every query of its driver ``acmedb``.

Measured: the time, the rows, and ACME's id of the query, by which ``costinsights settle acmedb``
finds what it was billed.

Not seen: what ACME runs by itself; bytes are in its history only.
"""

from __future__ import annotations

from typing import Any

from costinsights import DBAPIInstrumentor, Hook, Usage


class AcmeDBInstrumentor(DBAPIInstrumentor):
    name = "acmedb"
    system = "acmedb"
    driver = "acmedb"
    supports = ("1.0", "2")
    hooks = (Hook("acmedb:Cursor.execute", leaf=True),)
    facts = {"address": "host", "namespace": "database"}

    def usage(self, cursor: Any, result: Any) -> Usage:
        return Usage(cursor.rowcount, vendor_id=cursor.query_id)
