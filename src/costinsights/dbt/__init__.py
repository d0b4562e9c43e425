"""What dbt users import: what an invocation cost, for a program that runs dbt itself.

::

    import costinsights
    from costinsights.dbt import costs
    from dbt.cli.main import dbtRunner

    costinsights.instrument()
    dbtRunner().invoke(["build"])
    for node in costs().nodes:
        print(node.name, node.figures.costs)

docs/dbt.md shows all of it. Importing this imports neither dbt nor DuckDB: a name is looked up
where it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.later import later

if TYPE_CHECKING:
    from costinsights.dbt.adding import Costs, Figures, NodeCosts
    from costinsights.dbt.asking import costs

__all__ = ["Costs", "Figures", "NodeCosts", "costs"]

# Where each public name is; a module is named as it is called within this package.
_PLACES = {
    "Costs": "adding",
    "Figures": "adding",
    "NodeCosts": "adding",
    "costs": "asking",
}


__getattr__ = later(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
