"""Dataproc, by `dagster_gcp` and by google-cloud-dataproc."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-gcp[dataproc]"):
    from dagster_gcp import DataprocResource as Official

if TYPE_CHECKING:
    from collections.abc import Generator

    from google.cloud.dataproc_v1 import BatchControllerClient, JobControllerClient

PACKAGE = "google-cloud-dataproc"


class DataprocResource(Resource, Official):
    """`dagster_gcp.DataprocResource` with Google's clients, whose jobs and batches have their cost.

    ::

        with dataproc.get_job_client() as client:
            client.submit_job(project_id=..., region=..., job={...})

    `get_client` is the official one, which does not use google-cloud-dataproc: what it submits has
    no charge.
    """

    api_endpoint: str | None = Field(
        default=None,
        description="The service's address, where it is not REGION-dataproc.googleapis.com:443.",
    )

    @contextmanager
    def get_job_client(self, **more: Any) -> Generator[JobControllerClient]:
        """Hand out google-cloud-dataproc's client of jobs, and close it after the ``with``."""
        with needed(PACKAGE):
            from google.cloud.dataproc_v1 import JobControllerClient

        switch_on()
        with JobControllerClient(client_options=self._options(), **more) as client:
            yield client

    @contextmanager
    def get_batch_client(self, **more: Any) -> Generator[BatchControllerClient]:
        """Hand out google-cloud-dataproc's client of batches, and close it after the ``with``."""
        with needed(PACKAGE):
            from google.cloud.dataproc_v1 import BatchControllerClient

        switch_on()
        with BatchControllerClient(client_options=self._options(), **more) as client:
            yield client

    def _options(self) -> dict[str, str]:
        """A cluster is known in its own region only."""
        address = self.api_endpoint or f"{self.region}-dataproc.googleapis.com:443"
        return {"api_endpoint": address}
