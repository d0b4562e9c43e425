"""Azure Data Lake Storage and Blob Storage, by `dagster_azure`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-azure"):
    from dagster_azure.adls2 import ADLS2Resource as Official

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient
    from azure.storage.filedatalake import DataLakeServiceClient


class ADLSResource(Resource, Official):
    """`dagster_azure.adls2.ADLS2Resource`, and every request has its cost.

    ::

        adls.adls2_client.get_file_client("lake", "orders").upload_data(b"...", overwrite=True)
    """

    @property
    def adls2_client(self) -> DataLakeServiceClient:
        """azure-storage-file-datalake's client."""
        switch_on()
        return super().adls2_client

    @property
    def blob_client(self) -> BlobServiceClient:
        """azure-storage-blob's client."""
        switch_on()
        return super().blob_client
