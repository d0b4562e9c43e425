"""Azure Data Factory, by azure-mgmt-datafactory. There is no official resource."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("azure-mgmt-datafactory", "azure-identity"):
    from azure.identity import ClientSecretCredential, DefaultAzureCredential
    from azure.mgmt.datafactory import DataFactoryManagementClient

if TYPE_CHECKING:
    from collections.abc import Generator

    from azure.core.credentials import TokenCredential


class DataFactoryResource(Resource):
    """Data Factory's client, and every pipeline run has its cost.

    ::

        with data_factory.get_client() as client:
            client.pipelines.create_run("my-group", "my-factory", "my_pipeline")
    """

    subscription_id: str = Field(description="The subscription that the factory is in.")
    tenant_id: str | None = Field(
        default=None, description="The service principal's tenant, with client_id and _secret."
    )
    client_id: str | None = Field(
        default=None,
        description="The service principal; where none is said, Azure's default credential is "
        "used: the environment, a managed identity, the command line's login …",
    )
    client_secret: str | None = Field(
        default=None, description='Its secret: best as EnvVar("AZURE_CLIENT_SECRET").'
    )
    additional_parameters: dict[str, Any] = Field(
        default={},
        description="More arguments of DataFactoryManagementClient, such as base_url.",
    )

    @contextmanager
    def get_client(self) -> Generator[DataFactoryManagementClient]:
        """Hand out azure-mgmt-datafactory's client, and close it after the ``with``."""
        switch_on()
        with DataFactoryManagementClient(
            self._credential(), self.subscription_id, **self.additional_parameters
        ) as client:
            yield client

    def _credential(self) -> TokenCredential:
        if self.tenant_id and self.client_id and self.client_secret:
            return ClientSecretCredential(self.tenant_id, self.client_id, self.client_secret)
        return DefaultAzureCredential()
