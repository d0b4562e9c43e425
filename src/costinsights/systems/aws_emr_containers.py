"""What EMR on EKS says of a job run, and what its pods must have asked for.

EMR charges for the vCPUs and the memory that a run's pods request, from the download of the image
to the end of the pod, by the second and for a minute at least; no answer has a figure of that
(botocore's service model of ``emr-containers``). The requests follow from the run's Spark
properties, as Spark on Kubernetes makes them: spark.apache.org/docs/latest/running-on-kubernetes
and /configuration (memory overhead). How long the pods lived does not follow from anything: they
are taken to live as long as the run. What is made of that is an estimate.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from costinsights.instrumentor import UNPRICED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Meters = dict[str, int | float | str]

SYSTEM = "aws.emr_containers"
ENDS = frozenset(("COMPLETED", "FAILED", "CANCELLED"))
STATES = ENDS | {"PENDING", "SUBMITTED", "RUNNING", "CANCEL_PENDING"}
NEVER_RAN = frozenset(("VALIDATION_ERROR", "CLUSTER_UNAVAILABLE"))

BILLED = ("vcpu_seconds", "memory_gb_seconds")
METERS = (
    *BILLED,
    "run_seconds",
    "attempts",
    "driver_cores",
    "driver_memory_gb",
    "executors",
    "executor_cores",
    "executor_memory_gb",
)

PENDING = {UNPRICED: f"no answer says what its pods used: settle {SYSTEM}"}
"""What a charge says until settlement has made an estimate."""

# Where each kind of run has its parameters.
DRIVERS = {
    "sparkSubmitJobDriver": "sparkSubmitParameters",
    "sparkSqlJobDriver": "sparkSqlParameters",
}
# Spark's options that stand for a property.
OPTIONS = {
    "--driver-cores": "spark.driver.cores",
    "--driver-memory": "spark.driver.memory",
    "--executor-cores": "spark.executor.cores",
    "--executor-memory": "spark.executor.memory",
    "--num-executors": "spark.executor.instances",
}
WANTED = re.compile(
    r"spark\.((driver|executor)\.(cores|memory|memoryOverhead|memoryOverheadFactor)"
    r"|executor\.(instances|pyspark\.memory)|dynamicAllocation\.enabled"
    r"|memory\.offHeap\.(enabled|size)"
    r"|kubernetes\.(memoryOverheadFactor|(driver|executor)\.request\.cores))"
)
"""All that is looked at; everything else of a run's properties may be a secret, and is passed over."""

GB = 1024
"""MiB in what AWS calls a GB, as Spark's ``g`` is; AWS does not say which it counts."""
LEAST_OVERHEAD = 384
JVM_FACTOR, OTHER_FACTOR = Decimal("0.1"), Decimal("0.4")
MINIMUM = 60
_SIZE = re.compile(r"(\d+)\s*([kmgtp]?)b?", re.IGNORECASE)
_MIB = {"k": Decimal(1) / 1024, "": Decimal(1), "m": Decimal(1), "g": Decimal(GB)}
_MIB.update(t=Decimal(GB**2), p=Decimal(GB**3))


class Unknown(Exception):
    """What the pods requested cannot be rebuilt; the text says why, and what to do."""


class Pods(NamedTuple):
    """What a run's pods request: vCPUs and MiB of each."""

    driver_cores: Decimal
    driver_mib: Decimal
    executors: int | None
    """None where their number changes as the run goes on."""
    executor_cores: Decimal
    executor_mib: Decimal


def properties(
    driver: Mapping[str, Any] | None, overrides: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return the Spark properties of a run that size its pods, of its request or description.

    Those of the submit parameters go over those of the configuration.
    """
    found: dict[str, str] = {}
    for one in _list(_part(overrides, "applicationConfiguration")):
        if one.get("classification") == "spark-defaults":
            for name, value in _mapping(one.get("properties")).items():
                _keep(found, name, value)
    for kind, parameters in DRIVERS.items():
        for name, value in _parameters(_part(_part(driver, kind), parameters)):
            _keep(found, name, value)
    return found


def is_python(driver: Mapping[str, Any] | None) -> bool:
    """Tell whether a run's program is no JVM's: Spark then leaves its pods more memory beside."""
    entry = _part(_part(driver, "sparkSubmitJobDriver"), "entryPoint")
    return isinstance(entry, str) and entry.lower().endswith((".py", ".r", ".zip", ".egg"))


def pods(found: Mapping[str, str], *, python: bool) -> Pods:
    """Return what the pods of a run with these properties request.

    Raises:
        Unknown: a property that it takes is missing, or is not as Spark has it.
    """
    factor = OTHER_FACTOR if python else JVM_FACTOR
    dynamic = found.get("spark.dynamicAllocation.enabled", "").lower() == "true"
    instances = None if dynamic else _number(found, "spark.executor.instances")
    executor = _memory(found, "executor", factor) + _extra(found, python=python)
    return Pods(
        _cores(found, "driver"),
        _memory(found, "driver", factor),
        None if instances is None else int(instances),
        _cores(found, "executor"),
        executor,
    )


def meters_of(size: Pods, lived: timedelta, executors: Decimal | None = None) -> Meters:
    """Return what EMR charges for: vCPU-seconds and GB-seconds of all pods.

    `executors` are the seconds of all executors together, where somebody has counted them.

    Raises:
        Unknown: the number of executors changed, and nobody has counted.
    """
    seconds = Decimal(max(MINIMUM, -(-lived // timedelta(seconds=1))))
    if executors is None:
        if size.executors is None:
            raise Unknown(
                "the number of executors changes as it runs (dynamic allocation): give their "
                "seconds in executor_seconds, from Spark's event log"
            )
        executors = size.executors * seconds
    cores = size.driver_cores * seconds + size.executor_cores * executors
    mib = size.driver_mib * seconds + size.executor_mib * executors
    return {"vcpu_seconds": plain(cores), "memory_gb_seconds": plain(mib / GB)}


def sizes(size: Pods) -> Meters:
    """Return what each pod requests, for the record."""
    found: Meters = {
        "driver_cores": plain(size.driver_cores),
        "driver_memory_gb": plain(size.driver_mib / GB),
        "executor_cores": plain(size.executor_cores),
        "executor_memory_gb": plain(size.executor_mib / GB),
    }
    if size.executors is not None:
        found["executors"] = size.executors
    return found


def times_of(run: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    """Return when a run was created, and when it had finished, in UTC."""
    moments = (run.get("createdAt"), run.get("finishedAt"))
    created, finished = (
        one.astimezone(timezone.utc) if isinstance(one, datetime) else None for one in moments
    )
    return created, finished


def attempts_of(run: Mapping[str, Any]) -> Meters:
    """Return how often a run was tried, where it says so."""
    count = _part(run.get("retryPolicyExecution"), "currentAttemptCount")
    return {"attempts": count} if isinstance(count, int) and not isinstance(count, bool) else {}


def plain(value: Decimal) -> int | float:
    """Return a quantity as JSON has it, whole where it is."""
    return int(value) if value == value.to_integral_value() else float(value)


# --- one pod ---------------------------------------------------------------------------------------


def _cores(found: Mapping[str, str], kind: str) -> Decimal:
    requested = found.get(f"spark.kubernetes.{kind}.request.cores")
    if requested is None:
        return _number(found, f"spark.{kind}.cores")
    text = requested.removesuffix("m")  # thousandths, as Kubernetes'
    number = _number({"cores": text}, "cores", f"spark.kubernetes.{kind}.request.cores")
    return number / 1000 if requested.endswith("m") else number


def _memory(found: Mapping[str, str], kind: str, factor: Decimal) -> Decimal:
    heap = _mib(found, f"spark.{kind}.memory")
    stated = f"spark.{kind}.memoryOverhead"
    if stated in found:
        return heap + _mib(found, stated)
    for name in (f"spark.{kind}.memoryOverheadFactor", "spark.kubernetes.memoryOverheadFactor"):
        if name in found:
            factor = _number(found, name)
            break
    return heap + max(Decimal(int(heap * factor)), Decimal(LEAST_OVERHEAD))


def _extra(found: Mapping[str, str], *, python: bool) -> Decimal:
    """Return what executors request beside heap and overhead."""
    extra = Decimal(0)
    if python and "spark.executor.pyspark.memory" in found:
        extra += _mib(found, "spark.executor.pyspark.memory")
    if found.get("spark.memory.offHeap.enabled", "").lower() == "true":
        extra += _mib(found, "spark.memory.offHeap.size", bytes_="spark.memory.offHeap.size")
    return extra


def _number(found: Mapping[str, str], name: str, said: str = "") -> Decimal:
    text = _text(found, name)
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text):
        raise Unknown(f"{said or name} is no number")
    return Decimal(text)


def _mib(found: Mapping[str, str], name: str, bytes_: str = "") -> Decimal:
    """Return a size in MiB, in which a number without a unit is, or else in bytes."""
    size = _SIZE.fullmatch(_text(found, name))
    if size is None:
        raise Unknown(f"{name} is no size such as 4g")
    if bytes_ and not size[2]:
        return Decimal(size[1]) / GB**2
    return Decimal(size[1]) * _MIB[size[2].lower()]


def _text(found: Mapping[str, str], name: str) -> str:
    if name not in found:
        raise Unknown(
            f"{name} is not said by the run: say what your image has, in defaults of "
            f'[settle."{SYSTEM}"]'
        )
    return found[name].strip()


# --- reading ---------------------------------------------------------------------------------------


def _parameters(text: object) -> Iterator[tuple[str, str]]:
    """Yield the properties in the parameters of spark-submit; what cannot be read has none."""
    import shlex  # where it is needed: this module is loaded at every start-up

    try:
        words = shlex.split(text) if isinstance(text, str) else []
    except ValueError:
        words = []
    following = iter(words)
    for word in following:
        name, equals, value = word.partition("=")
        if word in ("--conf", "-c"):
            name, _, value = next(following, "").partition("=")
            yield name, value
        elif name in ("--conf", "-c"):
            name, _, value = value.partition("=")
            yield name, value
        elif name in OPTIONS:
            yield OPTIONS[name], value if equals else next(following, "")


def _keep(found: dict[str, str], name: str, value: object) -> None:
    if WANTED.fullmatch(name) and isinstance(value, str):
        found[name] = value


def _part(whole: object, name: str) -> Any:
    return _mapping(whole).get(name)


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Mapping[str, Any]]:
    found = cast("list[object]", value) if isinstance(value, list) else []
    return [_mapping(one) for one in found]
