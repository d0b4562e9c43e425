"""EMR on EC2, Serverless and on EKS, by boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.dagster.resources.aws import Boto3Resource

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from botocore.client import BaseClient


class EMRResource(Boto3Resource):
    """EMR's clients, and every step and job run has its cost.

    ::

        with emr.get_client() as client:
            client.add_job_flow_steps(JobFlowId="j-1", Steps=[...])
    """

    def get_client(self) -> AbstractContextManager[BaseClient]:
        """Hand out boto3's client of EMR on EC2, and close it after the ``with``."""
        return self._client("emr")

    def get_serverless_client(self) -> AbstractContextManager[BaseClient]:
        """Hand out boto3's client of EMR Serverless, and close it after the ``with``."""
        return self._client("emr-serverless")

    def get_containers_client(self) -> AbstractContextManager[BaseClient]:
        """Hand out boto3's client of EMR on EKS, and close it after the ``with``."""
        return self._client("emr-containers")
