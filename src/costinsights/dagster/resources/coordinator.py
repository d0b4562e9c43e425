"""What Trino and Presto have in common: a coordinator, and how it is reached."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from costinsights.dagster.resources.base import Resource


class CoordinatorResource(Resource):
    """Connections to a coordinator; there is no official resource."""

    host: str = Field(description="The coordinator's host name.")
    port: int = Field(default=8080, description="The coordinator's port.")
    user: str = Field(description="Who asks.")
    password: str | None = Field(
        default=None,
        description='The password, best as EnvVar("TRINO_PASSWORD"); with it https is spoken.',
    )
    catalog: str | None = Field(
        default=None, description="The catalog that names are looked up in."
    )
    schema_name: str | None = Field(
        default=None, description="The schema that names are looked up in."
    )
    http_scheme: str | None = Field(
        default=None, description="http or https; https where there is a password, else http."
    )
    additional_parameters: dict[str, Any] = Field(
        default={},
        description="More arguments of the client's connect(), such as session_properties.",
    )

    def _arguments(self, basic: type[Any]) -> dict[str, Any]:
        """Return the arguments of the client's ``connect``, `basic` being its authentication."""
        with_password = self.password is not None
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "catalog": self.catalog,
            "schema": self.schema_name,
            "http_scheme": self.http_scheme or ("https" if with_password else "http"),
            "auth": basic(self.user, self.password) if with_password else None,
            **self.additional_parameters,
        }
