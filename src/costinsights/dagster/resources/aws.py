"""What resources over boto3 have in common where `dagster_aws` has none for the service."""

from __future__ import annotations

from contextlib import closing, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import Field

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("boto3"):
    boto3: Any = import_module("boto3")
    Config: Any = import_module("botocore.config").Config

if TYPE_CHECKING:
    from collections.abc import Generator

    from botocore.client import BaseClient


class Boto3Resource(Resource):
    """Clients of AWS's services, told where and who as `dagster_aws`'s resources are."""

    region_name: str | None = Field(default=None, description="The region, as eu-central-1.")
    max_attempts: int = Field(
        default=5, description="How often a request is made at most, the first time included."
    )
    profile_name: str | None = Field(
        default=None, description="The profile of AWS's configuration that is used."
    )
    endpoint_url: str | None = Field(
        default=None, description="The service's address, where it is not AWS's own."
    )
    aws_access_key_id: str | None = Field(
        default=None, description="The access key's id, unless boto3 finds credentials itself."
    )
    aws_secret_access_key: str | None = Field(
        default=None, description='The access key: best as EnvVar("AWS_SECRET_ACCESS_KEY").'
    )
    aws_session_token: str | None = Field(
        default=None, description="The session's token, where the credentials are temporary."
    )

    @contextmanager
    def _client(self, service: str) -> Generator[BaseClient]:
        """Hand out boto3's client of a service, and close it after the ``with``."""
        switch_on()
        session = boto3.session.Session(
            profile_name=self.profile_name,
            region_name=self.region_name,
            aws_access_key_id=self.aws_access_key_id,
            aws_secret_access_key=self.aws_secret_access_key,
            aws_session_token=self.aws_session_token,
        )
        retries = Config(retries={"max_attempts": self.max_attempts, "mode": "standard"})
        client = session.client(service, endpoint_url=self.endpoint_url, config=retries)
        with closing(client):
            yield client
