"""S3, by `dagster_aws`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-aws"):
    from dagster_aws.s3 import S3Resource as Official

if TYPE_CHECKING:
    from botocore.client import BaseClient


class S3Resource(Resource, Official):
    """`dagster_aws.s3.S3Resource`, and every request has its cost.

    ::

        s3.get_client().put_object(Bucket="lake", Key="orders", Body=b"...")
    """

    def get_client(self) -> BaseClient:
        """Return boto3's client of S3."""
        switch_on()
        client: BaseClient = super().get_client()
        return client
