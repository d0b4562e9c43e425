"""How large Azure's storage accounts are: Azure Monitor has it once an hour, by tier.

``BlobCapacity`` and ``BlobCount`` of the account's blob service, split by ``BlobType`` and ``Tier``
(learn.microsoft.com: storage/blobs/monitor-blob-storage-reference). They are of the account: no
metric knows containers. Asked by REST through azure-core; the account's own description says region,
redundancy and namespace, and costs nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import msgspec

from costinsights.asking import NoSuchThing, pages, patiently
from costinsights.buckets.source import ASKED, Counted, Found, Part, Source
from costinsights.settlement.azure import client_of, credential_policy, token_policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costinsights.buckets.places import Place

    Table = Mapping[str, Any]

ACCOUNTS = "2023-05-01"
METRICS = "2023-10-01"
HOUR = timedelta(hours=1)
LOOK_BACK = 25 * HOUR
SIZE, COUNT = "BlobCapacity", "BlobCount"
NO_TIER = "untiered"


class AzureSizeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[storage."azure.storage"]``. Credentials are azure-identity's `DefaultAzureCredential`."""

    subscriptions: tuple[str, ...] = ()
    """Where the accounts are looked for."""
    endpoint_url: str = "https://management.azure.com"
    blob_url: str = "https://{account}.blob.core.windows.net"
    token: str = ""
    """A bearer token to use in place of a credential."""
    key: str = ""
    """The account's key, to list with in place of a credential."""


class AzureSize(Source):
    """Finds the account in the subscriptions, and asks Azure Monitor about it."""

    system = "azure.storage"
    meter = "storage_gb_months"
    monitoring = "azure.monitor"
    list_meter = "list_and_create_container_operations"
    page_size = 5000
    grants = (
        'az role assignment create --role "Monitoring Reader" --assignee … --scope '
        '/subscriptions/…; for --list also "Storage Blob Data Reader" on the account'
    )
    verified = "emulator: own ARM server; lists: Azurite"
    dependencies = "costinsights[azure_storage_blob] azure-identity"
    Options = AzureSizeOptions
    options: AzureSizeOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._client: Any = None
        self._credential: Any = None
        self._accounts: dict[str, Table] = {}

    def open(self) -> None:
        """Find the credential.

        Raises:
            StorageError: a library is missing, or nobody has said which subscriptions.
        """
        try:
            import_module("azure.core")
            identity: Any = None if self.options.token else import_module("azure.identity")
        except ImportError:
            raise self.raises(f"{self.system}: run  pip install {self.dependencies}") from None
        if not self.options.subscriptions:
            raise self.raises(
                f'{self.system}: say where the accounts are: subscriptions = ["…"] in '
                f'[storage."{self.system}"]'
            )
        if self.options.token:
            lets_in = token_policy(self.options.token)
        else:
            self._credential = identity.DefaultAzureCredential()
            scope = f"{self.options.endpoint_url}/.default"
            lets_in = credential_policy(self._credential, scope)
        self._client = client_of(self.options.endpoint_url, lets_in)

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
        if self._credential is not None:
            self._credential.close()

    def measured(self, place: Place, now: datetime) -> Found:
        """Ask Azure Monitor."""
        account = self._account(place.name)
        url = (
            f"{self.options.endpoint_url}{account['id']}/blobServices/default"
            "/providers/Microsoft.Insights/metrics"
        )
        asked = {
            "api-version": METRICS,
            "metricnames": f"{SIZE},{COUNT}",
            "metricnamespace": "Microsoft.Storage/storageAccounts/blobServices",
            "aggregation": "Average",
            "interval": "PT1H",
            "timespan": f"{_stamp(now - LOOK_BACK)}/{_stamp(now)}",
            "$filter": "BlobType eq '*' and Tier eq '*'",
        }

        def ask() -> Table:
            self.billed[self.monitoring, ASKED] += 1
            return self._answer(url, asked)

        answer = patiently(self, f"metrics of {place.name}", ask)
        sizes, counts = _figures(answer, SIZE), _figures(answer, COUNT)
        at = max((moment for moment, _ in sizes.values()), default=None)
        fixed = _dimensions(account)
        tiers: dict[str, list[int | None]] = {}
        for key, (moment, size) in sizes.items():
            if moment == at:
                number = counts.get(key)
                found = tiers.setdefault(key[0], [0, 0])
                found[0] = cast("int", found[0]) + size
                found[1] = None if number is None or found[1] is None else found[1] + number[1]
        parts = tuple(
            Part(tier, {**fixed, "access_tier": tier.lower()}, cast("int", size), count)
            for tier, (size, count) in sorted(tiers.items())
        )
        notes = (
            [] if parts else ["Azure Monitor has no figure: the account is empty or an hour old"]
        )
        if place.container:
            notes.append(
                "Azure Monitor knows the account and not its containers: this is all of it"
            )
        known = [count for _, count in tiers.values() if count is not None]
        total = sum(known) if known and len(known) == len(tiers) else None
        return Found(
            "Azure Monitor",
            at,
            str(account.get("location") or "") or None,
            parts,
            total,
            tuple(notes),
        )

    def listed(self, place: Place, cap: int, now: datetime) -> Found:
        """List one container's blobs with azure-storage-blob."""
        if not place.container:
            raise self.raises(
                f"{place.url}: say which container to list: az://CONTAINER@{place.name}"
            )
        account = self._account(place.name)
        counted, done, number = Counted(), False, 0
        with self._container(place) as container:
            for number, (page, more) in enumerate(self._pages(container, place.container), 1):
                for blob in page:
                    tier = str(getattr(blob.blob_tier, "value", blob.blob_tier) or NO_TIER)
                    counted.add(tier, blob.size or 0)
                self.progress(f"pages of {place.container}", number, None)
                done = not more
                if number >= cap:
                    break
        fixed = _dimensions(account)
        parts = tuple(
            Part(tier, {**fixed, "access_tier": tier.lower()}, size, count)
            for tier, size, count in counted.items()
        )
        notes = ["snapshots, older versions and deleted blobs are not in a list"]
        if not done:
            notes.insert(0, f"cut off after {number:,} pages: the container is larger")
        region = str(account.get("location") or "") or None
        return Found(
            "a list",
            now,
            region,
            parts,
            sum(part.objects or 0 for part in parts),
            tuple(notes),
            done,
        )

    def _container(self, place: Place) -> Any:
        try:
            blob: Any = import_module("azure.storage.blob")
        except ImportError:
            raise self.raises(f"{self.system}: run  pip install {self.dependencies}") from None
        url = self.options.blob_url.replace("{account}", place.name)
        lets_in = self.options.key or (
            _Token(self.options.token) if self.options.token else self._credential
        )
        return blob.ContainerClient(url, place.container, credential=lets_in, retry_total=0)

    def _pages(self, container: Any, name: str) -> Iterator[tuple[list[Any], str | None]]:
        """Yield pages, each with the token of the next one."""

        def ask(token: str | None) -> tuple[list[Any], str | None]:
            self.billed[self.system, self.list_meter] += 1
            found = container.list_blobs(results_per_page=self.page_size).by_page(token)
            return list(next(found, ())), found.continuation_token

        try:
            yield from pages(self, f"ListBlobs of {name}", ask, lambda page: page[1], whole=True)
        except NoSuchThing as error:
            raise self.raises(f"there is no container {name}") from error

    def _account(self, name: str) -> Table:
        """Find an account by its name, which is one in the whole world."""
        if not self._accounts:
            for subscription in self.options.subscriptions:
                self._read_accounts(subscription)
        found = self._accounts.get(name)
        if found is None:
            raise self.raises(
                f"there is no storage account {name} in {', '.join(self.options.subscriptions)}"
            )
        return found

    def _read_accounts(self, subscription: str) -> None:
        base = self.options.endpoint_url
        first = f"{base}/subscriptions/{subscription}/providers/Microsoft.Storage/storageAccounts"

        def ask(link: str | None) -> Table:
            return self._answer(link or first, {} if link else {"api-version": ACCOUNTS})

        def following(answer: Table) -> str | None:
            link = str(answer.get("nextLink") or "")
            if link and not link.startswith(f"{base}/"):
                raise self.raises(f"{self.system}: the list of accounts goes on at another host")
            return link or None

        try:
            for answer in pages(self, "storageAccounts", ask, following, whole=True):
                self._accounts.update((one["name"], one) for one in answer.get("value", ()))
        except NoSuchThing as error:
            raise self.raises(f"there is no subscription {subscription}") from error

    def _answer(self, url: str, asked: Mapping[str, str]) -> Table:
        http: Any = import_module("azure.core.rest")
        response = self._client.send_request(http.HttpRequest("GET", url, params=asked))
        response.raise_for_status()
        return cast("Table", response.json())


class _Token:
    """A credential that is one token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_scopes: str, **_more: Any) -> Any:
        """Return it."""
        core: Any = import_module("azure.core.credentials")
        return core.AccessToken(self._token, 2**31 - 1)


def _dimensions(account: Table) -> dict[str, str]:
    """Return what an account's description says of its prices."""
    redundancy = str(account.get("sku", {}).get("name", "")).partition("_")[2].lower()
    flat = not account.get("properties", {}).get("isHnsEnabled")
    found = {"namespace": "flat" if flat else "hierarchical"}
    return {**found, "redundancy": redundancy} if redundancy else found


def _figures(answer: Table, metric: str) -> dict[tuple[str, str], tuple[datetime, int]]:
    """Return the newest figure of each tier and type of blob."""
    found: dict[tuple[str, str], tuple[datetime, int]] = {}
    for one in answer.get("value", ()):
        if one["name"]["value"] != metric:
            continue
        for series in one.get("timeseries", ()):
            labels = {
                str(label["name"]["value"]).lower(): str(label["value"])
                for label in series.get("metadatavalues", ())
            }
            points = [
                (_moment(point["timeStamp"]), int(point["average"]))
                for point in series.get("data", ())
                if point.get("average") is not None
            ]
            if points:
                key = labels.get("tier", NO_TIER), labels.get("blobtype", "")
                found[key] = max(points)
    return found


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text.partition(".")[0].removesuffix("Z"))
    return found.replace(tzinfo=timezone.utc)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
