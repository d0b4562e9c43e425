"""Data Factory's history, and that of Synapse's pipelines: what each run was billed for.

The ledger says which runs wait for their figures, and where: a charge's namespace is
``subscription/resource group/factory``, or the name of a Synapse workspace. Each is asked for by its
id, then its activity runs, then the runs that it has started itself; of many runs in one factory
their states come by the list, a hundred at a time. With ``--all`` the lists of the factories and
workspaces of the options are read: runs of triggers, of people and of other programs. A run that an
Execute Pipeline activity has started is never a charge: it is a part of the run that it belongs to.

Data Factory keeps runs for 45 days (azure-docs, data-factory/monitor-data-factory.md). What the
questions retrieve is billed as monitoring, and counted. Calls and fields:
learn.microsoft.com/rest/api/datafactory, learn.microsoft.com/rest/api/synapse/data-plane.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from costinsights.asking import NoSuchThing, patiently
from costinsights.records import Resource
from costinsights.settlement.azure import asking, client_of, credential_policy, token_policy
from costinsights.settlement.history import Figure, History, HistoryError, Plan
from costinsights.systems.azure_data_factory import (
    BILLED,
    METERS,
    SUCCEEDED,
    SYNAPSE,
    SYSTEM,
    Malformed,
    Pipelines,
    is_child,
    moment,
    parent_of,
    started_by,
    trigger_of,
    version_of,
    whole,
)
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.jobs import Waiting

    Table = Mapping[str, Any]

MANY = 20
"""From so many runs of one factory on, their states are read from its list."""
USEFUL = 10
"""So many of the runs that wait a page of that list must be good for, on average."""
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


class DataFactoryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle."azure.data_factory"]``. Credentials are azure-identity's `DefaultAzureCredential`."""

    factories: tuple[str, ...] = ()
    """Those that ``--all`` reads, as ``subscription/resource group/factory``."""
    workspaces: tuple[str, ...] = ()
    """The names of Synapse workspaces that ``--all`` reads."""
    region: str = ""
    """Where they are, as the price book has it; by default each is asked."""
    endpoint_url: str = "https://management.azure.com"
    synapse_endpoint: str = "https://{workspace}.dev.azuresynapse.net"
    token: str = ""
    """A bearer token to use in place of a credential."""


class _Place(NamedTuple):
    """A factory, or a workspace."""

    name: str
    synapse: bool

    @property
    def factory(self) -> str:
        return "" if self.synapse else self.name


class DataFactoryHistory(History):
    """Asks Azure Resource Manager, and each workspace itself."""

    system = SYSTEM
    by_id = True
    retention = timedelta(days=45)
    grants = (
        "az role definition create --role-definition "
        '\'{"Name": "costinsights settlement", "AssignableScopes": ["/subscriptions/…"], "Actions": ['
        '"Microsoft.DataFactory/factories/read", '
        '"Microsoft.DataFactory/factories/pipelineruns/read", '
        '"Microsoft.DataFactory/factories/pipelineruns/queryactivityruns/action", '
        '"Microsoft.DataFactory/factories/querypipelineruns/action", '
        '"Microsoft.DataFactory/factories/querytriggerruns/action"]}\'; '
        'of a Synapse workspace: az synapse role assignment create --role "Synapse Monitoring '
        'Operator" --workspace-name … --assignee …'
    )
    meters = METERS
    verified = "emulator: own ARM server"
    dependencies = "costinsights[azure_datafactory]"
    Options = DataFactoryOptions
    options: DataFactoryOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._clients: dict[str, Any] = {}
        self._credential: Any = None
        self._triggers: dict[tuple[_Place, str], str] = {}
        """By place and the id of a trigger's run: the pipeline run that counts it."""
        self._known_days: set[tuple[_Place, datetime]] = set()
        for factory in self.options.factories:
            if factory.count("/") != 2:
                raise HistoryError(
                    f'[settle."{self.system}"]: {factory!r} in factories is not '
                    '"subscription/resource group/factory"'
                )

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what will be asked for; the records that come back are billed as monitoring."""
        reads: list[str] = []
        if self.waiting:
            places = len({run.namespace for run in self.waiting})
            reads.append(f"{len(self.waiting)} runs by id in {places} factories, with their parts")
        if self.everything:
            named = ", ".join((*self.options.factories, *self.options.workspaces))
            reads.append(
                f"runs of {named or 'those factories'}, {since:%Y-%m-%d %H:%M} to "
                f"{until:%Y-%m-%d %H:%M} UTC"
            )
        return Plan(tuple(reads) or ("nothing: no run waits for its figures",))

    def open(self) -> None:
        """Find who we are. Nothing is asked yet.

        Raises:
            HistoryError: azure-core or azure-identity is missing.
        """
        try:
            import_module("azure.core")
            if not self.options.token:
                identity: Any = import_module("azure.identity")
                self._credential = identity.DefaultAzureCredential()
        except ImportError:
            raise HistoryError(f"{self.system}: run  pip install {self.dependencies}") from None

    def close(self) -> None:
        """Hang up."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        if self._credential is not None:
            self._credential.close()
            self._credential = None

    # -- asking ---------------------------------------------------------------------------------

    def _client(self, place: _Place) -> Any:
        url = self.options.endpoint_url
        scope = url.rstrip("/")
        if place.synapse:
            url = self.options.synapse_endpoint.format(workspace=place.name)
            scope = self.options.synapse_endpoint.replace("{workspace}.", "")
        if url not in self._clients:
            token = self.options.token
            lets_in = (
                token_policy(token)
                if token
                else credential_policy(self._credential, f"{scope}/.default")
            )
            self._clients[url] = client_of(url, lets_in)
        return self._clients[url]

    def _pipelines(self, place: _Place) -> Pipelines:
        def once(method: str, path: str, body: Table | None) -> Table | None:
            try:
                return asking(self._client(place), version_of(place.factory))(method, path, body)
            except ValueError:
                return {}  # no table at all: what is made of it says what is missing

        def ask(method: str, path: str, body: Table | None) -> Table | None:
            what = path.rpartition("/")[2] if method == "POST" else f"of {place.name}"
            try:
                found = patiently(self, f"{method} {what}", partial(once, method, path, body))
            except NoSuchThing:
                return None
            self.spend(0, monitoring_entities=_records(found))
            return found

        return Pipelines(ask, place.factory)

    # -- runs -----------------------------------------------------------------------------------

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the runs that charges wait for and, with ``--all``, all runs of the time.

        A factory that may not be read keeps nobody from reading the others.
        """
        places: dict[_Place, list[Waiting]] = {}
        for run in self.waiting:
            synapse = run.service == SYNAPSE
            if run.namespace and (synapse or run.namespace.count("/") == 2):
                places.setdefault(_Place(run.namespace, synapse), []).append(run)
            else:
                self.missing("a charge does not say of which factory it is, and is left alone")
        if self.everything:
            for name in self.options.factories:
                places.setdefault(_Place(name, synapse=False), [])
            for name in self.options.workspaces:
                places.setdefault(_Place(name, synapse=True), [])
            if not self.options.factories and not self.options.workspaces:
                self.missing(
                    f"--all reads only the factories that runs wait for: name others in factories of "
                    f'[settle."{self.system}"]'
                )
        denied: VendorError | None = None
        for place, waiting in places.items():
            try:
                yield from self._read(place, waiting, since, until)
            except VendorError as error:
                if not error.grant:
                    raise
                denied = denied or error
        if denied is not None:
            raise denied

    def _read(
        self, place: _Place, waiting: Sequence[Waiting], since: datetime, until: datetime
    ) -> Iterator[Figure]:
        pipelines = self._pipelines(place)
        region = pipelines.region()
        if region is None:
            self.missing(f"{place.name} is not known, or not to this account: its runs are left")
            return
        region = self.options.region or region or None
        self.place = (Resource(region=region), {})
        at = _At(place, pipelines, region, datetime.now(timezone.utc))
        done: set[object] = set()
        listed = self._listed(at, waiting)
        for one in waiting:
            run = listed.get(one.id) or pipelines.run(one.id)
            if run is None:
                self.gone(one.id)
                continue
            done.add(one.id)
            at.parents[one.id] = run
            figure = self._figure(at, run, one.started_at)
            if figure is not None:
                yield figure
        if self.everything:
            yield from self._everything(at, done, since, until)

    def _listed(self, at: _At, waiting: Sequence[Waiting]) -> dict[object, Table]:
        """Return the states of many runs, as far as the list is the shorter way to them."""
        starts = [run.started_at for run in waiting if run.started_at is not None]
        left = {run.id for run in waiting}
        found: dict[object, Table] = {}
        if len(left) < MANY or not starts:
            return found
        pages = 0
        try:
            for page in at.pipelines.runs(min(starts) - HOUR, at.now + HOUR):
                pages += 1
                found.update((run["runId"], run) for run in page if _named(run) in left)
                if len(found) == len(left) or pages * USEFUL > len(left):
                    break
        except Malformed as error:
            self.missing(f"{at.place.name}: {error}")
        return found

    def _everything(
        self, at: _At, done: set[object], since: datetime, until: datetime
    ) -> Iterator[Figure]:
        listed: dict[str, Table] = {}
        try:
            for page in at.pipelines.runs(since, until):
                listed.update((run["runId"], run) for run in page if _named(run))
        except Malformed as error:
            self.missing(f"{at.place.name}: {error}")
        at.parents.update(listed)  # most parents are in the same list
        roots: dict[object, Table] = {}
        for run in listed.values():
            root = self._root(at, run)
            if root is not None and root.get("runId") not in done:
                roots[root.get("runId")] = root
        for root in roots.values():
            figure = self._figure(at, root, None)
            if figure is not None:
                yield figure

    def _root(self, at: _At, run: Table) -> Table | None:
        """Return the run that a run belongs to; None for one whose parent is not said."""
        known: set[str] = set()
        while is_child(run):
            parent = parent_of(run)
            if parent is None or parent in known:
                return None
            known.add(parent)
            found = at.parents.get(parent) or at.pipelines.run(parent)
            if found is None:
                return run  # nobody else can have it
            at.parents[parent] = run = found
        return run

    def _figure(self, at: _At, run: Table, otherwise: datetime | None) -> Figure | None:
        started_at = moment(run.get("runStart")) or otherwise
        id_ = run.get("runId")
        if started_at is None or not isinstance(id_, str):
            self.missing(f"{at.place.name}: an answer about a run has neither its id nor its start")
            return None
        found = whole(at.pipelines, run, at.now)
        if self._counts_trigger(at, run, started_at):
            found.bill.triggered()
        meters = found.bill.meters()
        pipeline, status = run.get("pipelineName"), run.get("status")
        labels: dict[str, str] = {}
        if isinstance(pipeline, str):
            labels["job"] = meters["pipeline"] = pipeline
        return Figure(
            vendor_id=id_,
            started_at=started_at,
            ended_at=max(found.ended_at or started_at, started_at) if found.done else None,
            so_far=None if found.done else max(at.now, started_at),
            labels=labels,
            operation="PIPELINE",
            meters=meters,
            billed=tuple(meter for meter in BILLED if meter in meters),
            problem=found.bill.reason,
            error=None if status == SUCCEEDED or not found.done else str(status)[:60],
            resource=self._resource(at),
            dimensions={"service": SYNAPSE} if at.place.synapse else {},
        )

    def _resource(self, at: _At) -> Resource:
        if at.place.synapse:
            host = f"{at.place.name}.dev.azuresynapse.net"
            return Resource(host, 443, at.place.name, SYNAPSE, at.region)
        return Resource("management.azure.com", 443, at.place.name, None, at.region)

    def _counts_trigger(self, at: _At, run: Table, started_at: datetime) -> bool:
        """Tell whether a run bears the run of its trigger; of several that it started, one does."""
        trigger = trigger_of(run)
        if trigger is None:
            return False
        day = started_at.replace(hour=0, minute=0, second=0, microsecond=0)
        if (at.place, day) not in self._known_days:
            self._known_days.add((at.place, day))
            try:
                for page in at.pipelines.triggers(day - DAY, day + 2 * DAY):
                    for one in page:
                        ids = started_by(one)
                        if ids:
                            key = at.place, str(one.get("triggerRunId"))
                            self._triggers.setdefault(key, min(ids))
            except Malformed as error:
                self.missing(f"{at.place.name}: {error}")
        return self._triggers.setdefault((at.place, trigger), str(run.get("runId"))) == run.get(
            "runId"
        )


def _named(run: Table) -> str:
    found = run.get("runId")
    return found if isinstance(found, str) else ""


def _records(answer: Table | None) -> int:
    """Return how many monitoring records an answer has retrieved."""
    items: object = (answer or {}).get("value")
    return len(cast("list[object]", items)) if isinstance(items, list) else 1


class _At:
    """A place that is being read."""

    def __init__(
        self, place: _Place, pipelines: Pipelines, region: str | None, now: datetime
    ) -> None:
        self.place = place
        self.pipelines = pipelines
        self.region = region
        self.now = now
        self.parents: dict[str, Table] = {}
