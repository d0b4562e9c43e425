"""The published JSON Schema of a charge, as ``costinsights ledger cat`` prints it."""

from __future__ import annotations

from typing import Any

CHARGE = "charge.schema.json"


def charge() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a charge."""
    import json
    from importlib.resources import files

    text = files("costinsights.schema").joinpath(CHARGE).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
