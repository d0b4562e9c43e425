"""BigQuery, by `dagster_gcp`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-gcp"):
    from dagster_gcp import BigQueryResource as Official

if TYPE_CHECKING:
    from collections.abc import Generator

    from google.cloud.bigquery import Client


class BigQueryResource(Resource, Official):
    """`dagster_gcp.BigQueryResource`, and every job has its cost.

    ::

        with bigquery.get_client() as client:
            client.query_and_wait("SELECT 1")
    """

    @contextmanager
    def get_client(self) -> Generator[Client]:
        """Hand out google-cloud-bigquery's client, for as long as the ``with`` lasts."""
        switch_on()
        with super().get_client() as client:
            yield client
