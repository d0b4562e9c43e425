"""What is said of every resource, as JSON: its official base, and fields without a description."""

from __future__ import annotations

import json
import sys
from typing import Any

import costinsights.dagster as ours
from costinsights.dagster.resources.base import Resource


def facts(kind: Any) -> dict[str, object]:
    """Describe one class."""
    bases = [base for base in kind.__mro__ if base.__module__.startswith("dagster_")]
    return {
        "official": bases[0].__name__ if bases else None,
        "is_ours": issubclass(kind, Resource),
        "described": bool(kind.__doc__),
        # What the official class leaves undescribed is its own.
        "undescribed": sorted(
            name
            for name, field in kind.model_fields.items()
            if not field.description
            and not any(name in getattr(base, "model_fields", ()) for base in bases)
        ),
    }


if __name__ == "__main__":
    names = [name for name in ours.__all__ if name.endswith("Resource")]
    print(json.dumps({name: facts(getattr(ours, name)) for name in names}), file=sys.stdout)
