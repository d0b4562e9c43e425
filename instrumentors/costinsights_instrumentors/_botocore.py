"""What the tables of the services behind botocore share: where a client leads to, how to follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from costinsights.instrumentor import address_of
from costinsights.jobs import MOST_PLACES, Follow, place

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from costinsights.jobs import Place, State, Waiting

    Places = dict[tuple[str, str | None, str | None], Place]

TIMEOUT_SECONDS = 20


# Of each client: itself, and where it has led to so far. A client is asked once: each word of it is
# two properties away, and a start should not have to wait for them.
_clients: dict[int, tuple[ref[Any], Places]] = {}


def where(system: str, client: Any, namespace: str | None, service: str | None = None) -> Place:
    """Return where a client of botocore sends its requests, in the region it was made for.

    `namespace` is what shares a price there: a workgroup, a cluster.
    """
    known = _clients.get(id(client))
    if known is None or known[0]() is not client:
        known = _meet(client)
    key, places = (system, namespace, service), known[1]
    found = places.get(key)
    if found is None:
        if len(places) >= MOST_PLACES:
            places.clear()
        meta = client.meta
        address, port = address_of(meta.endpoint_url)
        found = places[key] = place(
            system,
            address=address,
            port=port,
            namespace=namespace,
            region=meta.region_name,
            service=service,
        )
    return found


def _meet(client: Any) -> tuple[ref[Any], Places]:
    key = id(client)
    found = _clients[key] = ref(client, lambda _: _clients.pop(key, None)), {}
    return found


def follow(
    ask: Callable[[Any, Sequence[Waiting]], Iterable[State]], batch: int = 1, requests: int = 1
) -> Follow:
    """Return how the runs of a service are followed: `ask` has a client of boto3's kind."""
    return Follow(_ours, ask, batch, _hang_up, _same, requests)


def _ours(client: Any) -> Any:
    """Make a client like the program's, with the same credentials; it tries nothing twice."""
    from botocore.config import Config
    from botocore.session import Session

    session: Any = Session()
    session._credentials = _credentials(client)
    session.register_component("data_loader", client._loader)
    settings = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=TIMEOUT_SECONDS,
        read_timeout=TIMEOUT_SECONDS,
        max_pool_connections=1,
        user_agent_extra="costinsights",
    )
    meta = client.meta
    return session.create_client(
        meta.service_model.service_name,
        region_name=meta.region_name,
        endpoint_url=meta.endpoint_url,
        verify=getattr(client._endpoint.http_session, "_verify", None),
        config=meta.config.merge(settings),
    )


def _credentials(client: Any) -> Any:
    return client._request_signer._credentials


def _same(client: Any) -> Hashable:
    """Clients with the same credentials, service and endpoint are followed through one of ours."""
    meta = client.meta
    return id(_credentials(client)), meta.service_model.service_name, meta.endpoint_url


def _hang_up(client: Any) -> None:
    client.close()
