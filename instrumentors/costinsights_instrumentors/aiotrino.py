"""aiotrino: Trino and Starburst, asynchronously; every statement, with the coordinator's figures.

Measured: as with the `trino` client (see `costinsights_instrumentors.trino`): the query's id, CPU,
scheduled, elapsed and queued time, rows and bytes processed, bytes read and written, peak memory,
rows returned or changed, errors and cancellation. The charge is written when ``execute`` returns and
completed with the page that ends the query.

With ``tagging = "native"`` each statement carries the client tags ``ci:asset=…`` and ``ci:job=…``
beside those of the program.

Not seen: what the client asks of its own accord, queries sent with `aiotrino.client` alone, and the
figures of an error: what is known is what the page before said.
"""

from __future__ import annotations

from costinsights.instrumentor import Hook
from costinsights_instrumentors.trino import TrinoInstrumentor, hooks


class AiotrinoInstrumentor(TrinoInstrumentor):
    name = "aiotrino"
    driver = "aiotrino"
    supports = ("0.3", "1")
    hooks = hooks("aiotrino", "async")
    naming = (Hook("aiotrino.client:TrinoRequest.post", "connect", None),)
