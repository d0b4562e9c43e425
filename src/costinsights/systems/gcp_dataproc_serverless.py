"""What Dataproc Serverless says of a `Batch` or a `Session`: what it used, and at which tier.

Google calls it Serverless for Apache Spark by now. Messages are those below the classes of
google-cloud-dataproc 5.32 (`costinsights.systems.gcp_dataproc.raw`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.systems.gcp_dataproc import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    Meters = dict[str, int | float | str]

SYSTEM = "gcp.dataproc_serverless"

# Batch.State and Session.State that are ends. A session that was terminated did what it should.
BATCH_ENDS = {4: "CANCELLED", 5: "SUCCEEDED", 6: "FAILED"}
SESSION_ENDS = {4: "TERMINATED", 5: "FAILED"}
GOOD = frozenset(("SUCCEEDED", "TERMINATED"))
RUNNING = 2  # of a session: ACTIVE

# UsageMetrics, as the price book calls them: all three are billed.
BILLED = ("milli_dcu_seconds", "shuffle_storage_gb_seconds", "milli_accelerator_seconds")
# UsageSnapshot: what it uses at this moment.
SNAPSHOT = {
    "milli_dcu": "milli_dcu_now",
    "milli_dcu_premium": "milli_dcu_premium_now",
    "shuffle_storage_gb": "shuffle_storage_gb_now",
    "shuffle_storage_gb_premium": "shuffle_storage_gb_premium_now",
    "milli_accelerator": "milli_accelerator_now",
}
SIZES = {
    "spark.driver.cores": "driver_cores",
    "spark.executor.cores": "executor_cores",
    "spark.executor.instances": "executors",
}
METERS = (
    *BILLED,
    "accelerator_type",
    *SNAPSHOT.values(),
    *SIZES.values(),
    "malformed",
    *(f"reported_{name}" for name in BILLED),
)

TIERS = frozenset(("standard", "premium"))
SECOND = 10**9


def usage(workload: Any) -> Meters:
    """Return what a batch or session used when it had ended; empty where Google says nothing.

    `approximate_usage` does not tell standard from premium: `dimensions` does. A negative figure is
    none; it is kept as ``malformed``.
    """
    info = workload.runtime_info
    if not info.HasField("approximate_usage"):
        return {}
    said = info.approximate_usage
    figures = {name: int(getattr(said, name, 0)) for name in BILLED}
    wrong = [f"{name} = {value}" for name, value in figures.items() if value < 0]
    if wrong:  # what it cost is not known then, whatever the other figures say
        reported: Meters = {f"reported_{name}": value for name, value in figures.items()}
        return {**reported, "malformed": ", ".join(wrong)}
    # 0 DCU are free; what else was not used needs no price.
    meters: Meters = {name: value for name, value in figures.items() if value or name == BILLED[0]}
    kind = getattr(said, "accelerator_type", "")
    if "milli_accelerator_seconds" in meters and kind:
        meters["accelerator_type"] = accelerator(kind)
    return meters


def so_far(workload: Any) -> tuple[int, Meters]:
    """Return up to when (ns) a running one has used how much: the snapshot, and our estimate of it.

    Google says what it uses now, not what it has used: that rate, for as long as it has run. (0, {})
    where there is no snapshot.
    """
    info = workload.runtime_info
    if not info.HasField("current_usage"):
        return 0, {}
    now = info.current_usage
    meters: Meters = {
        ours: value for theirs, ours in SNAPSHOT.items() if (value := getattr(now, theirs, 0)) > 0
    }
    at, since = moment(now.snapshot_time), began(workload)
    seconds = (at - since) // SECOND
    if not since or seconds <= 0:
        return 0, meters
    # The premium part may or may not be in the other; of both the larger is what there is at least.
    dcus = max(int(now.milli_dcu), int(getattr(now, "milli_dcu_premium", 0)))
    meters["milli_dcu_seconds"] = dcus * seconds
    return at, meters


def began(workload: Any) -> int:
    """Return when it began to run, in ns; when it was created where it says no more."""
    states = [*workload.state_history]
    running = [moment(state.state_start_time) for state in states if state.state == RUNNING]
    if not running and workload.state == RUNNING:
        running = [moment(workload.state_time)]
    return min((at for at in running if at), default=0) or moment(workload.create_time)


def sizes(properties: Mapping[str, str]) -> Meters:
    """Return what a request says about its size."""
    known = plain(properties)
    return {
        ours: int(known[theirs])
        for theirs, ours in SIZES.items()
        if known.get(theirs, "").isdecimal()
    }


def plain(properties: Mapping[str, str]) -> dict[str, str]:
    """Return properties without the ``spark:`` that Google's answers put before them."""
    return {
        str(key).removeprefix("spark:").removeprefix("dataproc:"): str(value)
        for key, value in properties.items()
    }


def dimensions(properties: Mapping[str, str], *, session: bool) -> dict[str, str]:
    """Return what sets the price: the tier of DCUs, that of shuffle storage, the accelerator.

    A session is premium, whatever it asks for (cloud.google.com/dataproc-serverless/pricing). A
    batch says it itself; where driver and executors differ nothing tells how much each used, and
    the tier is left out: the price is then unknown. Names of the properties:
    docs.cloud.google.com/dataproc-serverless/docs/concepts/properties
    """
    known = plain(properties)
    found: dict[str, str] = {}
    usual = "premium" if session else known.get("dataproc.tier", "standard")
    for what, name, default in (("compute", "tier", usual), ("disk", "disk_tier", "standard")):
        said = {
            default
            if session and what == "compute"
            else known.get(f"spark.dataproc.{role}.{what}.tier", default).lower()
            for role in ("driver", "executor")
        }
        if len(said) == 1 and said <= TIERS:
            found[name] = said.pop()
    kind = known.get("spark.dataproc.executor.resource.accelerator.type")
    if kind:
        found["accelerator_type"] = accelerator(kind)
    return found


def accelerator(kind: str) -> str:
    """Return an accelerator as the price book calls it: ``l4``, ``a100-40``."""
    return kind.rpartition("/")[2].lower().removeprefix("nvidia-").removeprefix("tesla-")
