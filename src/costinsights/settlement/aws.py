"""What readers of AWS's services share: boto3's clients, one a region, and how they are asked.

    class GlueHistory(AWSHistory):
        system = "aws.glue"
        client_name = "glue"

        def read(self, since, until):
            for region in self.regions:
                answer = self.ask(region, "get_job_run", JobName=name, RunId=id_)
                for page in self.pages(region, "list_jobs"): …

Credentials are boto3's own; those that expire half-way are asked for anew, once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from costinsights.asking import pages, patiently
from costinsights.settlement.history import History, HistoryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.jobs import Waiting

TIMEOUT_SECONDS = 60


class AWSOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle."aws.…"]``. Credentials are boto3's own. Subclass it for further options."""

    regions: tuple[str, ...] = ()
    """By default the one that boto3 is configured for."""
    profile: str = ""
    endpoint_url: str = ""


class AWSHistory(History):
    """Asks one account, in one region or several."""

    client_name: ClassVar[str]
    """The service as boto3 calls it: ``glue``, ``emr-serverless``."""
    dependencies = "costinsights[botocore] boto3"
    verified = "emulator: moto 5"
    Options: ClassVar[type[msgspec.Struct] | None] = AWSOptions
    options: Any

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self.clients: dict[tuple[str, str], Any] = {}
        """By region and service, made when they are first asked."""
        self._session: Any = None
        self._regions: tuple[str, ...] = ()

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions to ask, once `open` was called."""
        return self._regions

    def open(self) -> None:
        """Find out which regions to ask.

        Raises:
            HistoryError: boto3 is missing, or nobody has said which region.
        """
        try:
            library: Any = import_module("boto3")
        except ImportError:
            raise HistoryError(f"{self.system}: run  pip install {self.dependencies}") from None
        self._session = library.Session(profile_name=self.options.profile or None)
        default = (self._session.region_name,) if self._session.region_name else ()
        self._regions = self.options.regions or default
        if not self._regions:
            raise HistoryError(
                f'{self.system}: say which region: regions = ["us-east-1"] in '
                f'[settle."{self.system}"]'
            )

    def close(self) -> None:
        """Hang up."""
        for client in self.clients.values():
            client.close()
        self.clients.clear()

    def client(self, region: str, service: str = "") -> Any:
        """Return the client of a region; it tries nothing again by itself: `ask` does, and counts."""
        key = region, service or self.client_name
        if key not in self.clients:
            config: Any = import_module("botocore.config")
            self.clients[key] = self._session.client(
                key[1],
                region_name=region,
                endpoint_url=self.options.endpoint_url or None,
                config=config.Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=TIMEOUT_SECONDS,
                    read_timeout=TIMEOUT_SECONDS,
                ),
            )
        return self.clients[key]

    def ask(
        self,
        region: str,
        operation: str,
        *,
        service: str = "",
        unknown: Sequence[str] = (),
        **request: Any,
    ) -> Any:
        """Call an operation, as boto3 names it; see `patiently` for what it raises."""
        return patiently(
            self,
            f"{operation} in {region}",
            lambda: getattr(self.client(region, service), operation)(**request),
            unknown=unknown,
        )

    def pages(
        self,
        region: str,
        operation: str,
        *,
        token: str = "NextToken",  # noqa: S107  the name of a field
        asked: str = "",
        service: str = "",
        **request: Any,
    ) -> Iterator[Any]:
        """Yield the pages of a list; `token` is the answer's field, `asked` the request's."""

        def ask(at: str | None) -> Any:
            more = {} if at is None else {asked or token: at}
            return getattr(self.client(region, service), operation)(**request, **more)

        def following(answer: Any) -> str | None:
            found: str | None = answer.get(token)
            return found

        yield from pages(self, f"{operation} in {region}", ask, following)

    def by_region(self, waiting: Sequence[Waiting]) -> dict[str, list[Waiting]]:
        """Return runs by the region that they went to; those without one by the first region.

        Runs of a region that is not in the options are left out, and that is said.
        """
        found: dict[str, list[Waiting]] = {region: [] for region in self._regions}
        elsewhere: dict[str, int] = {}
        for run in waiting:
            region = run.region or self._regions[0]
            if region in found:
                found[region].append(run)
            else:
                elsewhere[region] = elsewhere.get(region, 0) + 1
        for region, count in elsewhere.items():
            self.missing(
                f'{count} runs went to {region}, which is not in regions of [settle."{self.system}"]'
            )
        return found
