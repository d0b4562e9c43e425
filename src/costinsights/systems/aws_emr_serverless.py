"""What EMR Serverless says of a job run: what was billed for it, attempt by attempt.

Fields and states: botocore's service model of ``emr-serverless``. Billed are vCPU-hours, GB-hours of
memory, and GB-hours of storage above 20 GB a worker, with the minute's minimum of each worker in it;
pre-initialised workers that wait for a job are the application's, and in no job's figures.
"""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Meters = dict[str, int | float | str]

SYSTEM = "aws.emr_serverless"
ENDS = frozenset(("SUCCESS", "FAILED", "CANCELLED"))
STATES = ENDS | {"SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "CANCELLING", "QUEUED"}

# How AWS calls a figure, and how we do; each in hours there, in seconds here.
UTILISATION = {
    "vCPUHour": "vcpu_seconds",
    "memoryGBHour": "memory_gb_seconds",
    "storageGBHour": "storage_gb_seconds",
}
BILLED = ("vcpu_seconds", "memory_gb_seconds", "storage_gb_seconds")
NEEDED = frozenset(("vCPUHour", "memoryGBHour"))
"""Without one of these what was billed is not known; storage may well be left out."""
METERS = (
    *BILLED,
    *(f"total_{name}" for name in BILLED),
    "execution_seconds",
    "queued_ms",
    "attempts",
    "architecture",
    "execution_class",
)
HOUR = 3600
LONGEST = 64


def billed(run: Mapping[str, Any]) -> Meters:
    """Return what a run, or one attempt of it, was billed for; see `problem` for what is missing.

    A figure that is no number comes as it is, under AWS's name, so that it can be seen. No storage
    above what is free is no figure: it needs no price.
    """
    found = _utilisation(run, "billedResourceUtilization")
    return found if found.get("storage_gb_seconds") else _without(found, "storage_gb_seconds")


def used(run: Mapping[str, Any]) -> Meters:
    """Return what it has used, which is not what is billed: raw, rounded up to the second."""
    found = _utilisation(run, "totalResourceUtilization")
    meters: Meters = {f"total_{name}": value for name, value in found.items()}
    for theirs, ours in (
        ("totalExecutionDurationSeconds", "execution_seconds"),
        ("queuedDurationMilliseconds", "queued_ms"),
    ):
        value = run.get(theirs)
        if _is_number(value):
            meters[ours] = cast("int", value)
    return meters


def problem(run: Mapping[str, Any]) -> str:
    """Return why a run's billed figures cannot be priced; empty where they can."""
    block = run.get("billedResourceUtilization")
    if not isinstance(block, dict):
        return "no billedResourceUtilization"
    figures = cast("Mapping[str, object]", block)
    for name in UTILISATION:
        value = figures.get(name)
        if value is None and name in NEEDED:
            return f"billedResourceUtilization without {name}"
        if value is not None and not _is_number(value):
            return f"billedResourceUtilization with a {name} that is no number"
    return ""


def summed(several: Iterable[Meters]) -> Meters:
    """Return the sums of attempts' meters; what is text in one of them stays text."""
    sums: dict[str, Decimal | str] = {}
    for meters in several:
        for name, value in meters.items():
            before = sums.get(name, Decimal(0))
            if isinstance(value, str) or isinstance(before, str):
                sums[name] = value if isinstance(value, str) else before
            else:
                sums[name] = before + Decimal(str(value))
    return {name: v if isinstance(v, str) else _plain(v) for name, v in sums.items()}


def attempt_of(run: Mapping[str, Any]) -> int:
    """Return the number of the attempt that an answer tells of; the first is 1."""
    value = run.get("attempt")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 1 else 1


def dimensions(run: Mapping[str, Any], architecture: str | None) -> dict[str, str]:
    """Return what else sets a run's price: its application's architecture, and Flex capacity."""
    flex = run.get("flexExecution")
    on = isinstance(flex, dict) and cast("Mapping[str, object]", flex).get("enabled") is True
    found = {"execution_class": "flex"} if on else {}
    return found if architecture is None else {**found, "architecture": architecture}


def architecture_of(application: Mapping[str, Any]) -> str | None:
    """Return ``x86_64`` or ``arm64``, None where an application does not say."""
    value = application.get("architecture")
    return value.lower() if isinstance(value, str) and value else None


def _utilisation(run: Mapping[str, Any], block: str) -> Meters:
    found = run.get(block)
    if not isinstance(found, dict):
        return {}
    figures = cast("Mapping[str, object]", found)
    meters: Meters = {}
    for theirs, ours in UTILISATION.items():
        value = figures.get(theirs)
        if _is_number(value):
            meters[ours] = _plain(Decimal(str(value)) * HOUR)
        elif value is not None:
            meters[f"{block}.{theirs}"] = str(value)[:LONGEST]  # not under the name of a price
    return meters


def _is_number(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and isfinite(cast("float", value)) and cast("float", value) >= 0


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _without(meters: Meters, name: str) -> Meters:
    return {key: value for key, value in meters.items() if key != name}
