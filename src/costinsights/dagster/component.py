"""The component: pulls, settlements, budgets and the report of a project, said in YAML.

``dg scaffold defs costinsights.dagster.CostInsightsComponent costs`` makes a ``defs.yaml``; with
nothing in it, costinsights is on for the whole code location. docs/dagster/scheduled.md shows one
with everything in it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from costinsights.dagster.recurring import Granularity, Placed  # noqa: TC001  pydantic looks at them

Money = str | int | float


class Asset(dg.Model, dg.Resolvable):
    """What can be said of any scheduled asset."""

    start_date: str = Field(description="The first day, in UTC.", examples=["2026-01-01"])
    granularity: Granularity = Field(default="daily", description="daily or hourly partitions.")
    key: str | None = Field(default=None, description="The asset's key, with / between its parts.")
    group_name: str | None = Field(default=None, description="The asset's group: costinsights.")
    owners: list[str] | None = Field(default=None, description="The asset's owners.")
    tags: dict[str, str] | None = Field(default=None, description="The asset's tags.")
    cron_schedule: str | None = Field(default=None, description="When it runs, in UTC.")
    running: bool = Field(
        default=False, description="Whether the schedule runs without being switched on."
    )

    def placed(self) -> Placed:
        """Return its place in Dagster."""
        placed: Placed = {
            "default_status": dg.DefaultScheduleStatus.RUNNING
            if self.running
            else dg.DefaultScheduleStatus.STOPPED
        }
        if self.key is not None:
            placed["key"] = dg.AssetKey.from_user_string(self.key)
        if self.group_name is not None:
            placed["group_name"] = self.group_name
        if self.owners is not None:
            placed["owners"] = self.owners
        if self.tags is not None:
            placed["tags"] = self.tags
        if self.cron_schedule is not None:
            placed["cron_schedule"] = self.cron_schedule
        return placed


class Pulling(Asset):
    """A source of the bill: what ``costinsights pull`` takes."""

    source: str = Field(description="aws.s3, gcp, azure.storage, focus …", examples=["aws.s3"])
    service: str = Field(default="", description="Only this service, as the provider calls it.")
    resource: str = Field(default="", description="Only this bucket or storage account.")
    path: str = Field(default="", description="The files of focus: a file, a folder, s3://…")
    cap: Money | None = Field(default="0.20", description="What looking may cost in one run.")


class Settling(Asset):
    """A system's history: what ``costinsights settle`` takes."""

    system: str = Field(description="aws.athena, snowflake, trino …", examples=["aws.athena"])
    all: bool = Field(
        default=False, description="Also make charges of queries that no instrumented program ran."
    )
    wake: bool = Field(default=False, description="Ask the system even if that starts it.")


class Reporting(dg.Model, dg.Resolvable):
    """The cost report, as Markdown and as a page."""

    directory: str = Field(description="Where the files are written to.", examples=["reports"])
    by: list[str] = Field(
        default=["asset", "job", "team", "system"], description="A table for each of these."
    )
    since: str | None = Field(default="7d", description="From when on; null for all time.")
    cron_schedule: str | None = Field(default=None, description="When it is made, in UTC.")


class Budget(dg.Model, dg.Resolvable):
    """What may be spent."""

    name: str = Field(description="The sensor's name.")
    max_usd: Money | dict[str, Money] | None = Field(
        default=None, description="One amount, or one for each item of `by`."
    )
    max_amount: Money | dict[str, Money] | None = Field(
        default=None, description="The same in another currency."
    )
    currency: str = Field(default="USD", description="Of max_amount.")
    per: Literal["day", "week", "month"] = Field(default="month", description="day, week or month.")
    by: str | None = Field(default=None, description="asset, job, team, system or label:NAME.")
    running: bool = Field(
        default=False, description="Whether the sensor runs without being switched on."
    )


class Resource(dg.Model, dg.Resolvable):
    """The settings of `CostInsightsResource`."""

    price_book: str | None = Field(
        default=None, description="A price file beside the built-in prices."
    )
    exporters: list[str] = Field(
        default=["dagster"], description="Where costs go besides the ledger."
    )
    tagging: str | None = Field(default=None, description="off, native or comment.")
    labels: dict[str, str] = Field(default={}, description="Labels for every call.")
    config: str | None = Field(default=None, description="A configuration file.")


class CostInsightsComponent(dg.Component, dg.Model, dg.Resolvable):
    """What every asset costs: costs in Dagster, the bill, settlements, budgets, a report.

    With nothing said, it puts a cost on every statement and job of the code location.
    """

    resource: Resource | None = Field(
        default=Resource(), description="Switches costinsights on; null does not."
    )
    ledger: str | None = Field(default=None, description="The ledger's folder, for all of it.")
    config: dict[str, Any] | None = Field(
        default=None,
        description="How sources and systems are reached, in place of costinsights.toml: "
        "the tables pull and settle.",
    )
    pulls: list[Pulling] = Field(default=[], description="Assets of the bill.")
    settlements: list[Settling] = Field(default=[], description="Assets of settlements.")
    report: Reporting | None = Field(default=None, description="The asset of the cost report.")
    budgets: list[Budget] = Field(default=[], description="Sensors that tell when more was spent.")
    observations: bool = Field(
        default=False, description="A sensor that brings later figures to their assets."
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions of all of it."""
        return dg.Definitions.merge(
            dg.Definitions(resources=self._resources(), sensors=list(self._sensors())),
            *[self._pull(one) for one in self.pulls],
            *[self._settlement(one) for one in self.settlements],
            *([] if self.report is None else [self._report(self.report)]),
        )

    def _resources(self) -> dict[str, object]:
        from costinsights.dagster.resources.costinsights import CostInsightsResource

        if self.resource is None:
            return {}
        said = {name: value for name, value in self.resource if value is not None}
        return {"costinsights": CostInsightsResource(ledger=self.ledger, **said)}

    def _pull(self, one: Pulling) -> dg.Definitions:
        from costinsights.dagster.scheduled import create_bill_asset_and_schedule

        return create_bill_asset_and_schedule(
            one.source,
            one.start_date,
            service=one.service,
            resource=one.resource,
            path=one.path,
            granularity=one.granularity,
            cap=None if one.cap is None else Decimal(str(one.cap)),
            ledger=self.ledger,
            config=self.config,
            **one.placed(),
        ).definitions

    def _settlement(self, one: Settling) -> dg.Definitions:
        from costinsights.dagster.settled import create_settlement_asset_and_schedule

        return create_settlement_asset_and_schedule(
            one.system,
            one.start_date,
            granularity=one.granularity,
            all=one.all,
            wake=one.wake,
            ledger=self.ledger,
            config=self.config,
            **one.placed(),
        ).definitions

    def _report(self, one: Reporting) -> dg.Definitions:
        from costinsights.dagster.cost_report import create_cost_report_asset

        asset = create_cost_report_asset(
            one.directory, by=one.by, since=one.since, ledger=self.ledger
        )
        if one.cron_schedule is None:
            return dg.Definitions(assets=[asset])
        tick = dg.ScheduleDefinition(
            name="costinsights_report_schedule",
            target=asset,
            cron_schedule=one.cron_schedule,
            execution_timezone="UTC",
        )
        return dg.Definitions(assets=[asset], schedules=[tick])

    def _sensors(self) -> list[dg.SensorDefinition]:
        from costinsights.dagster.budget import (
            create_budget_sensor,
            create_cost_observations_sensor,
        )

        found = [
            create_budget_sensor(
                one.name,
                max_usd=one.max_usd,
                max_amount=one.max_amount,
                currency=one.currency,
                per=one.per,
                by=one.by,
                ledger=self.ledger,
                default_status=dg.DefaultSensorStatus.RUNNING
                if one.running
                else dg.DefaultSensorStatus.STOPPED,
            )
            for one in self.budgets
        ]
        if self.observations:
            found.append(create_cost_observations_sensor(ledger=self.ledger))
        return found
