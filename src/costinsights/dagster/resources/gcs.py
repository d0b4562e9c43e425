"""Cloud Storage, by `dagster_gcp`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-gcp"):
    from dagster_gcp.gcs import GCSResource as Official

if TYPE_CHECKING:
    from google.cloud.storage import Client


class GCSResource(Resource, Official):
    """`dagster_gcp.GCSResource`, and every request has its cost.

    ::

        gcs.get_client().bucket("lake").blob("orders").upload_from_string("...")
    """

    def get_client(self) -> Client:
        """Return google-cloud-storage's client."""
        switch_on()
        return super().get_client()
