"""An asset that writes the cost report: Markdown and HTML, in a folder and beside the asset."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypedDict

import dagster as dg

from costinsights import config as configuration
from costinsights.dagster.asset_metadata import PREFIX, counts, money
from costinsights.dagster.functions import of_asset
from costinsights.dagster.recurring import GROUP, key_of
from costinsights.report.page import page
from costinsights.report.period import period
from costinsights.report.render import as_markdown, section
from costinsights.report.summary import DIMENSIONS, LABEL, make

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal

    from typing_extensions import Unpack

    from costinsights.dagster.functions import Said
    from costinsights.report.summary import Report

NAME = "cost_report"
LIMIT = 50
_MOST_BYTES = 60_000
"""What is shown of the Markdown beside the asset: an event of Dagster's is no place for more."""


class Reporting(TypedDict, total=False):
    """What can be said of the asset's place in Dagster; each has a default."""

    key: dg.AssetKey | Sequence[str] | str
    group_name: str
    description: str
    owners: Sequence[str]
    tags: Mapping[str, str]
    deps: Sequence[dg.AssetsDefinition | dg.AssetKey | str]
    """Assets after which it is to be made."""
    automation_condition: dg.AutomationCondition[dg.AssetKey]
    """When it is made: ``dg.AutomationCondition.on_cron("0 7 * * *")``."""


def create_cost_report_asset(
    directory: str | os.PathLike[str],
    *,
    name: str = NAME,
    by: Sequence[str] = ("asset", "job", "team", "system"),
    since: str | None = "7d",
    until: str | None = None,
    compare: bool = True,
    limit: int | None = LIMIT,
    ledger: str | None = None,
    **placed: Unpack[Reporting],
) -> dg.AssetsDefinition:
    """Return an asset that writes ``<name>.md`` and ``<name>.html`` to `directory`.

    The page stands alone: no script, nothing that is fetched. The Markdown and the totals are the
    asset's metadata as well.

    Args:
        directory: Where to; it is made where it is not there.
        name: Of the files, and by default of the asset, below ``costinsights/``.
        by: A table for each: ``asset``, ``job``, ``team``, ``system``, ``query``, ``label:NAME`` …
        since: From when on, as ``costinsights report`` takes it; None for all time.
        until: Up to when, not included; None for now.
        compare: Compare with the time of the same length before, where there is one.
        limit: So many rows are named in each table; None names all.
        ledger: The ledger's folder; that of the configuration by default.
        placed: See `Reporting`.

    Raises:
        ValueError: `by` is nothing that costs can be reported by, or a time is none.
    """
    for one in by:
        if one not in DIMENSIONS and not one.startswith(LABEL):
            raise ValueError(
                f"costs are reported by {', '.join(DIMENSIONS)} or label:NAME, not {one!r}"
            )
    period(since, until)  # a mistake in it is said now, and not in the first run
    key = key_of(placed.get("key", [GROUP, name]))
    spec = dg.AssetSpec(
        key,
        deps=placed.get("deps"),
        description=placed.get("description", "What everything cost, as Markdown and as a page."),
        group_name=placed.get("group_name", GROUP),
        owners=placed.get("owners"),
        tags=placed.get("tags"),
        automation_condition=placed.get("automation_condition"),
        kinds={"costinsights", "markdown"},
    )

    def work(_: dg.AssetExecutionContext) -> Iterator[Said]:
        place = configuration.load(ledger=ledger).ledger
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        asked = period(since, until, now)
        compared = compare and since is not None
        reports = [make(place, one, asked, compare=compared, limit=limit, now=now) for one in by]
        markdown = "\n".join(map(as_markdown, reports))
        html = page("Costs", map(section, reports))
        folder = os.path.abspath(directory)
        os.makedirs(folder, exist_ok=True)
        paths = {form: os.path.join(folder, f"{name}.{form}") for form in ("md", "html")}
        _write(paths["md"], markdown)
        _write(paths["html"], html)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                **money("report_total", _totals(reports[0])),
                **counts(
                    {
                        "report_calls": reports[0].calls,
                        "report_unpriced_calls": reports[0].calls - reports[0].priced,
                    }
                ),
                f"{PREFIX}cost_report": dg.MetadataValue.md(_shortened(markdown)),
                f"{PREFIX}markdown": dg.MetadataValue.path(paths["md"]),
                f"{PREFIX}html": dg.MetadataValue.path(paths["html"]),
            },
        )

    return dg.multi_asset(name="__".join(_safe(part) for part in key.path), specs=[spec])(
        of_asset(work)
    )


def _safe(part: str) -> str:
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in part)


def _totals(report: Report) -> dict[str, Decimal]:
    return {
        total.currency: total.now.amount
        for total in report.totals
        if total.currency is not None and total.now.amount is not None
    }


def _shortened(markdown: str) -> str:
    """Cut at a line, and say so."""
    if len(markdown.encode()) <= _MOST_BYTES:
        return markdown
    kept = markdown.encode()[:_MOST_BYTES].decode(errors="ignore").rpartition("\n")[0]
    return f"{kept}\n\n… the rest is in the file"


def _write(path: str, text: str) -> None:
    """Write a file whole, in one step: who reads it has the old one or the new one."""
    new = f"{path}.{os.getpid()}.new"
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(new, path)
