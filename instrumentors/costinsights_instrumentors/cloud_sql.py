"""Cloud SQL's Python connector: which instance the connections lead to that it opens.

Measured: nothing by itself. The connector opens a driver's connection to an address, or to a socket
of its own making, that does not tell where it leads; with this plug-in the charges of psycopg,
asyncpg and PyMySQL over it say ``/cloudsql/PROJECT:REGION:INSTANCE`` for their address, as they do
at Cloud SQL's own Unix socket: the service is ``gcp.cloud_sql``, the region is known, and a
``[[resource]]`` may name the instance.

The name is kept for each address that the connector was given, up to 4,096 of them, for as long as
the process lives; nothing is asked.

Not seen: statements of pg8000 and pytds, which have no plug-in; connections opened before; the SQL
Data API (``ip_type="sql_data"``); and which of two instances, where different networks of one
process give both the same private address.
"""

from __future__ import annotations

from typing import Any

from costinsights.instrumentor import DBAPIInstrumentor, Hook

PACKAGE = "google.cloud.sql.connector"


class CloudSQLInstrumentor(DBAPIInstrumentor):
    name = "cloud_sql"
    system = "gcp.cloud_sql"
    verified = "emulator: Admin API and proxy of ours, before PostgreSQL and MariaDB"
    driver = PACKAGE
    supports = ("1.0", "2")
    hooks = (
        # What each connection begins with: the instance, and the addresses that it has.
        Hook(
            f"{PACKAGE}.connection_info:ConnectionInfo.get_preferred_ip",
            "connect",
            None,
            optional=True,
        ),
        Hook(
            f"{PACKAGE}.connection_info:ConnectionInfo.get_preferred_ips",
            "connect",
            None,
            optional=True,
        ),
        # psycopg is given a socket of its own, and this passes on what goes through it.
        Hook(f"{PACKAGE}.psycopg:_PsycopgProxy.__enter__", "connect", None, optional=True),
    )

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Keep where an address leads."""
        from costinsights.hosts import leads, led

        (source, *_) = args
        if source is result:
            known = led(source._ip_address)
            if known is not None and known != source._ip_address:
                leads(source.host, known)
            return
        name = source.conn_name
        instance = f"/cloudsql/{name.project}:{name.region}:{name.instance_name}"
        for address in [result] if isinstance(result, str) else result:
            leads(address, instance)
