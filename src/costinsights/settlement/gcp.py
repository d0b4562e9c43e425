"""What readers of Dataproc share: Google's clients, one a region, and how they are asked.

Credentials are Google's own (GOOGLE_APPLICATION_CREDENTIALS); requests have a time limit and are
tried again by `costinsights.asking` only, which counts them.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from costinsights.asking import pages, patiently
from costinsights.records import Resource
from costinsights.settlement.history import MARK, History, HistoryError
from costinsights.systems.gcp_dataproc import name_of, raw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costinsights.jobs import Waiting

TIMEOUT_SECONDS = 60
PAGE = 1000
"""Google gives fewer where it wants to."""
FEW = 5
"""So many runs are asked for one by one; more of them by their list."""
LABEL = "costinsights-"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class DataprocOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What both tables, ``[settle."gcp.dataproc"]`` and ``…_serverless"]``, may say."""

    projects: tuple[str, ...] = ()
    """Those that ``--all`` reads; the runs that wait say theirs themselves."""
    regions: tuple[str, ...] = ()
    """The same of regions."""
    endpoint: str = "{region}-dataproc.googleapis.com:443"
    """Each region has a host of its own. ``http://…`` is asked by REST and ``grpc://…`` by gRPC,
    both without credentials: for tests."""


class DataprocHistory(History):
    """Asks for Dataproc's resources, by project and region."""

    by_id = True
    verified = "emulator: own gRPC and REST server"
    dependencies = "costinsights[dataproc]"
    Options: ClassVar[type[msgspec.Struct] | None] = DataprocOptions
    options: Any

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._clients: dict[tuple[str, str], Any] = {}
        """By kind and region, made when they are first asked."""
        self.library: Any = None

    def open(self) -> None:
        """Load the library.

        Raises:
            HistoryError: it is not installed, or ``--all`` is not told where.
        """
        try:
            self.library = import_module("google.cloud.dataproc_v1")
        except ImportError:
            raise HistoryError(f"{self.system}: run  pip install {self.dependencies}") from None
        if self.everything and not (self.options.projects and self.options.regions):
            raise HistoryError(
                f'{self.system}: for --all say where: projects = ["…"] and regions = '
                f'["us-central1"] in [settle."{self.system}"]'
            )

    def close(self) -> None:
        """Hang up."""
        for client in self._clients.values():
            client.transport.close()
        self._clients.clear()

    # -- asking ---------------------------------------------------------------------------------

    def client(self, kind: str, region: str) -> Any:
        """Return the client of a region, such as a ``JobControllerClient``."""
        key = kind, region
        if key not in self._clients:
            self._clients[key] = self._made(getattr(self.library, f"{kind}Client"), region)
        return self._clients[key]

    def _made(self, client: Any, region: str) -> Any:
        endpoint = self.options.endpoint.replace("{region}", region)
        scheme, _, host = endpoint.rpartition("://")
        ours = import_module("google.api_core.gapic_v1.client_info").ClientInfo(user_agent=MARK)
        if not scheme:
            return client(client_options={"api_endpoint": endpoint}, client_info=ours)
        if scheme == "grpc":
            channel = import_module("grpc").insecure_channel(host)
            transport = client.get_transport_class("grpc")(channel=channel, client_info=ours)
        else:
            anonymous = import_module("google.auth.credentials").AnonymousCredentials()
            transport = client.get_transport_class("rest")(
                host=endpoint, credentials=anonymous, client_info=ours
            )
        return client(transport=transport)

    def ask(self, kind: str, region: str, method: str, request: Mapping[str, object]) -> Any:
        """Call a method, and return the message of its answer; see `patiently` for what it raises."""
        return patiently(
            self, f"{method} in {region}", lambda: self._call(kind, region, method, request)
        )

    def pages(
        self, kind: str, region: str, method: str, request: Mapping[str, object]
    ) -> Iterator[Any]:
        """Yield the pages of a list."""

        def page(token: str | None) -> Any:
            more = {"page_token": token} if token else {}
            return self._call(kind, region, method, {**request, **more})

        def following(answer: Any) -> str | None:
            return answer.next_page_token or None

        yield from pages(self, f"{method} in {region}", page, following)

    def _call(self, kind: str, region: str, method: str, request: Mapping[str, object]) -> Any:
        call = getattr(self.client(kind, region), method)
        answer = call(request=dict(request), retry=None, timeout=TIMEOUT_SECONDS)
        found = getattr(answer, "pages", None)
        return raw(answer if found is None else next(iter(found)))  # the page that is there

    # -- where ----------------------------------------------------------------------------------

    def places(self) -> dict[tuple[str, str], list[Waiting]]:
        """Return projects and regions to ask, each with the runs that wait there."""
        found: dict[tuple[str, str], list[Waiting]] = {}
        if self.everything:
            for project in self.options.projects:
                for region in self.options.regions:
                    found[project, region] = []
        strange = 0
        for run in self.waiting:
            name = name_of(run.id)
            if name is None:
                strange += 1
            else:
                found.setdefault((name.project, name.region), []).append(run)
        if strange:
            self.missing(f"{strange} runs have ids that are no names of Dataproc's")
        return found

    def at(self, region: str, namespace: str | None) -> Resource:
        """Return a resource as the instrumentor would have it."""
        host, _, port = self.options.endpoint.rpartition("://")[2].partition(":")
        return Resource(
            host.replace("{region}", region), int(port) if port else None, namespace, None, region
        )


def time_of(nanoseconds: int) -> datetime:
    """Return a moment in UTC."""
    return EPOCH + timedelta(microseconds=nanoseconds // 1000)


def nanoseconds(moment: datetime) -> int:
    """Return a moment in nanoseconds since the epoch."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


def stamp(moment: datetime) -> str:
    """Write a moment as Google's filters have it."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def attribution(labels: Mapping[str, str]) -> dict[str, str]:
    """Return what labels say of who a run is for: ours, without their prefix."""
    return {
        key.removeprefix(LABEL): value for key, value in labels.items() if key.startswith(LABEL)
    }
