"""Glue, by boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.dagster.resources.aws import Boto3Resource

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from botocore.client import BaseClient


class GlueResource(Boto3Resource):
    """Glue's client, and every job run has its cost.

    ::

        with glue.get_client() as client:
            client.start_job_run(JobName="my_job")

    The charge is there when the run is started, and its amount when it has ended: the program need
    not wait for it (docs/jobs.md).
    """

    def get_client(self) -> AbstractContextManager[BaseClient]:
        """Hand out boto3's client of Glue, and close it after the ``with``."""
        return self._client("glue")
