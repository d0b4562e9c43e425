"""What all resources have in common: they switch costinsights on, and tell nobody their secrets."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

import costinsights
from costinsights import config, runtime

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

EXPORTER = "dagster"
"""Where costs go when nobody says."""

# What may be read in logs. Everything else may be a secret, or have one in it.
_SHOWN = frozenset(
    """
    account catalog cluster_name database host http_path http_scheme location port project
    project_id region region_name schema_name server storage_account subscription_id user
    warehouse workgroup
    """.split()
)


class Resource(dg.ConfigurableResource[Any]):
    """The first of a resource's bases, before the official class where there is one."""

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Leave out of pydantic's `repr` all that could be a secret."""
        return [(name, value) for name, value in super().__repr_args__() if name in _SHOWN]


def switch_on() -> None:
    """Switch costinsights on unless it is; costs go to Dagster where nobody has said otherwise.

    A client that is handed out is the ordinary one: the instrumentors do the work, so code that
    uses the library directly is covered as well.
    """
    if runtime.active() is not None or config.is_disabled():
        return
    said = config.load().exporters
    costinsights.instrument(exporters=[EXPORTER] if said is None else said)


@contextmanager
def needed(*packages: str) -> Generator[None]:
    """Say of a package that is missing how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        wanted = " ".join(f"'{package}'" if "[" in package else package for package in packages)
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install {wanted}", name=error.name
        ) from error
