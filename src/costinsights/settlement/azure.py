"""How Azure's REST APIs are asked: with azure-core, by whoever has made its client.

Readers ask through `costinsights.asking.patiently`, and so the client of `client_of` tries
nothing again by itself. Plain HTTP is for tests: azure-core sends no credential's token over it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Table = Mapping[str, Any]

TIMEOUT_SECONDS = 60
NOT_FOUND = 404


def client_of(endpoint: str, lets_in: Any, timeout: float = TIMEOUT_SECONDS) -> Any:
    """Return a `PipelineClient` of azure-core; `lets_in` is the policy that says who we are.

    A policy that knows which one comes next belongs to one client alone.

    Raises:
        ImportError: azure-core is not installed.
    """
    core: Any = import_module("azure.core")
    policies: Any = import_module("azure.core.pipeline.policies")
    transport: Any = import_module("azure.core.pipeline.transport")
    return core.PipelineClient(
        endpoint,
        policies=[policies.UserAgentPolicy("costinsights"), lets_in],
        transport=transport.RequestsTransport(connection_timeout=timeout, read_timeout=timeout),
    )


def token_policy(token: str) -> Any:
    """Return a policy that sends a token as it is."""
    policies: Any = import_module("azure.core.pipeline.policies")
    return policies.HeadersPolicy({"Authorization": f"Bearer {token}"})


def credential_policy(credential: Any, *scopes: str) -> Any:
    """Return a policy that asks a credential of azure-identity for tokens, and keeps them."""
    policies: Any = import_module("azure.core.pipeline.policies")
    return policies.BearerTokenCredentialPolicy(credential, *scopes)


def asking(client: Any, version: str) -> Callable[[str, str, Table | None], Table | None]:
    """Return what asks one API: by method, path and body; None where there is no such thing.

    It raises azure-core's errors, and ValueError where the answer is no table.
    """
    http: Any = import_module("azure.core.rest")

    def ask(method: str, path: str, body: Table | None) -> Table | None:
        url = client.format_url(path)
        request = http.HttpRequest(method, url, params={"api-version": version}, json=body)
        response = client.send_request(request)
        if response.status_code == NOT_FOUND:
            return None
        response.raise_for_status()
        found: object = response.json()
        if not isinstance(found, dict):
            raise ValueError(f"{method} {path.rpartition('/')[2]} gave no table")  # noqa: TRY004  of JSON
        return cast("Table", found)

    return ask
