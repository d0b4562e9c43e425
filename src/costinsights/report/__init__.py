"""The report: what each asset, job, team, system and query cost, and how sure that is.

`make` gives the figures of a ledger, `render` writes them for a terminal or a program. What each
figure means stands in ``views.sql``, and docs/report.md shows how to query it directly.
"""

from __future__ import annotations

from costinsights.report.period import before, period
from costinsights.report.render import render
from costinsights.report.summary import DIMENSIONS, Figures, Report, Row, define_views, make

__all__ = [
    "DIMENSIONS",
    "Figures",
    "Report",
    "Row",
    "before",
    "define_views",
    "make",
    "period",
    "render",
]
