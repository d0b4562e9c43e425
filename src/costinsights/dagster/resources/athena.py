"""Athena, by `dagster_aws` and by PyAthena."""

from __future__ import annotations

from contextlib import closing, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import Field

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-aws"):
    from dagster_aws.athena import AthenaClientResource as Official

if TYPE_CHECKING:
    from collections.abc import Generator

    from dagster_aws.athena.resources import AthenaClient
    from pyathena.connection import Connection


class AthenaResource(Resource, Official):
    """`dagster_aws.athena.AthenaClientResource`, and every query has its cost.

    ::

        athena.get_client().execute_query("SELECT 1", fetch_results=True)

        with athena.get_connection() as conn:
            conn.cursor().execute("SELECT 1").fetchall()
    """

    region_name: str | None = Field(
        default=None, description="The region, as eu-central-1, of connections."
    )
    s3_staging_dir: str | None = Field(
        default=None, description="Where results of connections go, unless the workgroup says it."
    )
    additional_parameters: dict[str, Any] = Field(
        default={},
        description="More arguments of pyathena.connect(), such as schema_name or role_arn.",
    )

    def get_client(self) -> AthenaClient:
        """Return Dagster's client, which waits for each query; boto3's own is its `client`."""
        switch_on()
        return super().get_client()

    @contextmanager
    def get_connection(self) -> Generator[Connection[Any]]:
        """Hand out PyAthena's connection, and close it after the ``with``."""
        with needed("pyathena"):
            connect: Any = vars(import_module("pyathena"))["connect"]

        switch_on()
        arguments: dict[str, Any] = {
            "work_group": self.workgroup,
            "region_name": self.region_name,
            "s3_staging_dir": self.s3_staging_dir,
            "aws_access_key_id": self.aws_access_key_id,
            "aws_secret_access_key": self.aws_secret_access_key,
            "poll_interval": self.polling_interval,
        }
        with closing(connect(**arguments | self.additional_parameters)) as connection:
            yield connection
