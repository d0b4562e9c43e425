"""Looks whether the application has OpenTelemetry set up, and never sets it up itself."""

from __future__ import annotations

import os
import sys
from typing import Any


def tracer_provider() -> Any:
    """Return the application's own ``TracerProvider``, or None while it has set none."""
    return _set_by_the_application("opentelemetry.trace", "TRACER_PROVIDER", "TracerProvider")


def logger_provider() -> Any:
    """Return the application's own ``LoggerProvider``, or None while it has set none."""
    return _set_by_the_application(
        "opentelemetry._logs._internal", "LOGGER_PROVIDER", "LoggerProvider"
    )


def _set_by_the_application(module: str, variable: str, kind: str) -> Any:
    api = sys.modules.get(module)
    # The public function would make a provider where OTEL_PYTHON_…_PROVIDER names one.
    if api is None or (
        not hasattr(api, f"_{variable}") and f"OTEL_PYTHON_{variable}" in os.environ
    ):
        return None
    if hasattr(api, f"_{variable}"):
        provider = getattr(api, f"_{variable}")
    else:
        provider = getattr(api, f"get_{variable.lower()}")()
    stand_ins = tuple(
        found
        for name in (f"Proxy{kind}", f"NoOp{kind}")
        if isinstance(found := getattr(api, name, None), type)
    )
    return None if isinstance(provider, stand_ins) else provider
