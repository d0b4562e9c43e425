"""What the tables of the services behind botocore share: where a client leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import address_of
from costinsights.jobs import place

if TYPE_CHECKING:
    from costinsights.jobs import Place


def where(system: str, client: Any, namespace: str | None, service: str | None = None) -> Place:
    """Return where a client of botocore sends its requests, in the region it was made for.

    `namespace` is what shares a price there: a workgroup, a cluster.
    """
    meta = client.meta
    address, port = address_of(meta.endpoint_url)
    return place(
        system,
        address=address,
        port=port,
        namespace=namespace,
        region=meta.region_name,
        service=service,
    )
