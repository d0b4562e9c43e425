"""Fixtures that the tests of EMR have in common.

A test module takes what it wants: ``server = emr_fixtures.server``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.aws_emr import EMR
from tests.servers.aws_server import AWSServer, aws_server
from tests.servers.emr_runs import REGION, at_once

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test; credentials are boto3's own, and nothing is waited for."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr("costinsights.asking.sleep", at_once)


@pytest.fixture(scope="module")
def server() -> Iterator[AWSServer]:
    """A server, the same for a module."""
    with aws_server() as aws:
        yield aws


@pytest.fixture
def emr(server: AWSServer) -> EMR:
    """EMR on EC2, with nothing in it."""
    return EMR(server)


@pytest.fixture
def client(server: AWSServer) -> Iterator[Any]:
    """A client of EMR on EC2."""
    client = server.client("emr", region_name=REGION)
    yield client
    client.close()
