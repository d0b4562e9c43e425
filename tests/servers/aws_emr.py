"""EMR on EC2, Serverless and on EKS, before moto: a test says what ran when, and what it used.

moto has no times of steps, no instances that come and go, all of `billedResourceUtilization` at
zero, and neither attempts nor markers. The overlay therefore keeps clusters, steps, machines and
job runs itself. Requests and answers are in the shapes of botocore's service models, and go through
unmodified boto3; what AWS fills in, and when, is not shown by that.

Times are seconds after the start of the cluster or run, so that a test reads like a time-table.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.servers.aws_server import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.servers.aws_server import AWSServer

    Answer = dict[str, Any]

STEPS_A_PAGE = 50
ZONE = "us-west-2a"
_numbers = itertools.count(1)


def _name(prefix: str) -> str:
    return f"{prefix}{next(_numbers):013X}"


def _page(found: Sequence[Any], token: str | None, size: int) -> tuple[Sequence[Any], str | None]:
    start = int(token or 0)
    end = start + size
    return found[start:end], str(end) if end < len(found) else None


# --- on EC2 --------------------------------------------------------------------------------------


@dataclass
class Step:
    """One step. `state` follows from its times unless a test says it."""

    id: str
    created: float
    started: float | None = None
    ended: float | None = None
    state: str = ""
    applications: tuple[str, ...] = ()

    def answer(self, begun: float) -> Answer:
        times = {"CreationDateTime": self.created, "StartDateTime": self.started}
        line = {**times, "EndDateTime": self.ended}
        default = "COMPLETED" if self.ended is not None else "RUNNING"
        default = "PENDING" if self.started is None else default
        return {
            "Id": self.id,
            "Name": "etl",
            "Config": {"Jar": "command-runner.jar", "Args": ["s3cr3t-argument"]},
            "Status": {
                "State": self.state or default,
                "Timeline": {key: begun + at for key, at in line.items() if at is not None},
            },
            "AdditionalInfo": {"ResourceManagerApplicationIds": list(self.applications)},
        }


@dataclass
class Instance:
    """One machine."""

    type: str | None
    started: float | None
    ended: float | None = None
    market: str = "ON_DEMAND"
    id: str = field(default_factory=lambda: _name("i-"))

    def answer(self, begun: float) -> Answer:
        line = {"CreationDateTime": self.started, "EndDateTime": self.ended}
        found: Answer = {
            "Id": _name("ci-"),
            "Ec2InstanceId": self.id,
            "Market": self.market,
            "Status": {
                "State": "RUNNING" if self.ended is None else "TERMINATED",
                "Timeline": {key: begun + at for key, at in line.items() if at is not None},
            },
        }
        if self.type is not None:
            found["InstanceType"] = self.type
        return found


@dataclass
class Cluster:
    """One cluster."""

    id: str
    begun: float
    """Seconds since the epoch."""
    steps: list[Step] = field(default_factory=list[Step])
    instances: list[Instance] = field(default_factory=list[Instance])
    ended: float | None = None
    state: str = ""
    normalized_hours: Any = 0

    def status(self) -> Answer:
        line = {"CreationDateTime": self.begun}
        if self.ended is not None:
            line["EndDateTime"] = self.begun + self.ended
        default = "WAITING" if self.ended is None else "TERMINATED"
        return {"State": self.state or default, "Timeline": line}

    def end(self, at: float) -> None:
        """Terminate it, and every machine that is still there."""
        self.ended = at
        for one in self.instances:
            one.ended = at if one.ended is None else one.ended


class EMR:
    """EMR on EC2, on an `AWSServer`."""

    service = "elasticmapreduce"

    def __init__(self, aws: AWSServer) -> None:
        self.aws = aws
        self.clusters: dict[str, Cluster] = {}
        for operation in (
            "RunJobFlow",
            "AddJobFlowSteps",
            "DescribeCluster",
            "DescribeStep",
            "ListSteps",
            "ListInstances",
            "ListClusters",
        ):
            aws.answer(self.service, operation, getattr(self, f"_{operation}"))

    def start(self, *, ago: float = 0) -> Cluster:
        """Have a cluster that no program of ours has started."""
        cluster = Cluster(_name("j-"), time.time() - ago)
        self.clusters[cluster.id] = cluster
        return cluster

    def step(self, cluster: Cluster, created: float, **more: Any) -> Step:
        """Have a step that no program of ours has added."""
        step = Step(_name("s-"), created, **more)
        cluster.steps.append(step)
        return step

    def _find(self, request: Answer) -> Cluster | Refusal:
        id_ = request.get("ClusterId", request.get("JobFlowId"))
        found = self.clusters.get(str(id_))
        if found is None:
            return Refusal("InvalidRequestException", f"Cluster id '{id_}' is not valid.")
        return found

    # -- operations, named as they are ----------------------------------------------------------

    def _RunJobFlow(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        if not request["Instances"]:
            return Refusal("ValidationException", "no instances")
        cluster = self.start()
        for _ in request.get("Steps", ()):
            self.step(cluster, 0)
        return {"JobFlowId": cluster.id}

    def _AddJobFlowSteps(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        cluster = self._find(request)
        if isinstance(cluster, Refusal):
            return cluster
        now = time.time() - cluster.begun
        return {"StepIds": [self.step(cluster, now).id for _ in request["Steps"]]}

    def _DescribeCluster(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        cluster = self._find(request)
        if isinstance(cluster, Refusal):
            return cluster
        return {
            "Cluster": {
                "Id": cluster.id,
                "Name": "nightly",
                "Status": cluster.status(),
                "NormalizedInstanceHours": cluster.normalized_hours,
                "InstanceCollectionType": "INSTANCE_GROUP",
                "StepConcurrencyLevel": 1,
                "Ec2InstanceAttributes": {"Ec2AvailabilityZone": ZONE},
            }
        }

    def _DescribeStep(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        cluster = self._find(request)
        if isinstance(cluster, Refusal):
            return cluster
        for step in cluster.steps:
            if step.id == request["StepId"]:
                return {"Step": step.answer(cluster.begun)}
        return Refusal("InvalidRequestException", "Step id is not valid.")

    def _ListSteps(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        cluster = self._find(request)
        if isinstance(cluster, Refusal):
            return cluster
        wanted = request.get("StepIds")
        found = [step for step in reversed(cluster.steps) if wanted is None or step.id in wanted]
        some, marker = _page(found, request.get("Marker"), STEPS_A_PAGE)
        more = {"Marker": marker} if marker else {}
        return {"Steps": [step.answer(cluster.begun) for step in some], **more}

    def _ListInstances(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        cluster = self._find(request)
        if isinstance(cluster, Refusal):
            return cluster
        some, marker = _page(cluster.instances, request.get("Marker"), STEPS_A_PAGE)
        more = {"Marker": marker} if marker else {}
        return {"Instances": [one.answer(cluster.begun) for one in some], **more}

    def _ListClusters(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        found = list(reversed(self.clusters.values()))
        some, marker = _page(found, request.get("Marker"), STEPS_A_PAGE)
        more = {"Marker": marker} if marker else {}
        return {"Clusters": [{"Id": one.id, "Status": one.status()} for one in some], **more}


# --- Serverless ------------------------------------------------------------------------------------


@dataclass
class Attempt:
    """One attempt of a job run: None is what AWS does not say (yet)."""

    billed: Answer | None = None
    total: Answer | None = None
    state: str = "SUCCESS"
    seconds: float = 60.0


@dataclass
class JobRun:
    """One job run of EMR Serverless."""

    id: str
    application: str
    request: Answer
    begun: float
    attempts: list[Attempt]
    questions: int = 0
    """How many answers say that it still runs, before the one that says it has ended."""

    def answer(self, number: int | None) -> Answer:
        latest = len(self.attempts)
        number = number or latest
        attempt = self.attempts[number - 1]
        done = self.questions <= 0
        ended = self.begun + sum(one.seconds for one in self.attempts[:number])
        found: Answer = {
            "applicationId": self.application,
            "jobRunId": self.id,
            "arn": "arn:aws:emr-serverless:us-east-1:123456789012:/x",
            "createdBy": "arn:aws:iam::123456789012:user/x",
            "createdAt": self.begun,
            "updatedAt": ended if done else self.begun + 1,
            "executionRole": "arn:aws:iam::123456789012:role/x",
            "state": attempt.state if done else "RUNNING",
            "stateDetails": "s3cr3t details",
            "releaseLabel": "emr-7.9.0",
            "jobDriver": self.request.get("jobDriver", {"sparkSubmit": {"entryPoint": "s3://x"}}),
            "attempt": number,
            "queuedDurationMilliseconds": 1500,
        }
        if "flexExecution" in self.request:
            found["flexExecution"] = self.request["flexExecution"]
        if attempt.billed is not None:
            found["billedResourceUtilization"] = attempt.billed
        if attempt.total is not None:
            found["totalResourceUtilization"] = attempt.total
        if done:
            found["endedAt"] = ended
            found["totalExecutionDurationSeconds"] = int(attempt.seconds)
        return found


class EMRServerless:
    """EMR Serverless, on an `AWSServer`."""

    service = "emr-serverless"

    def __init__(self, aws: AWSServer) -> None:
        aws.rest(self.service)
        self.aws = aws
        self.applications: dict[str, str | None] = {}
        self.runs: dict[str, JobRun] = {}
        self.next: list[Attempt] = [Attempt()]
        """What the next run will do."""
        self.questions = 0
        self.page = 50
        self._tokens: dict[str, str] = {}
        for operation in (
            "StartJobRun",
            "GetJobRun",
            "ListJobRuns",
            "GetApplication",
            "ListApplications",
        ):
            aws.answer(self.service, operation, getattr(self, f"_{operation}"))

    def application(self, architecture: str | None = "X86_64") -> str:
        """Have an application; return its id."""
        id_ = _name("00f")
        self.applications[id_] = architecture
        return id_

    def run(self, application: str, *attempts: Attempt, ago: float = 0) -> JobRun:
        """Have a job run that no program of ours has started."""
        run = JobRun(_name("00j"), application, {}, time.time() - ago, list(attempts))
        self.runs[run.id] = run
        return run

    def _StartJobRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        application = request["applicationId"]
        if application not in self.applications:
            return Refusal("ResourceNotFoundException", "no such application", 404)
        token = request["clientToken"]
        if token not in self._tokens:
            run = self.run(application, *self.next)
            run.request, run.questions = request, self.questions
            self._tokens[token] = run.id
        return {"applicationId": application, "jobRunId": self._tokens[token], "arn": "arn:x"}

    def _GetJobRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self.runs.get(request["jobRunId"])
        if run is None or run.application != request["applicationId"]:
            return Refusal("ResourceNotFoundException", "no such run", 404)
        number = int(request["attempt"]) if "attempt" in request else None
        answer = run.answer(number)
        run.questions -= 1
        return {"jobRun": answer}

    def _ListJobRuns(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        found = [run for run in self.runs.values() if run.application == request["applicationId"]]
        some, token = _page(found[::-1], request.get("nextToken"), self.page)
        rows: list[Answer] = []
        for run in some:
            answer = run.answer(None)
            rows.append({**answer, "id": answer.pop("jobRunId")})
        return {"jobRuns": rows, **({"nextToken": token} if token else {})}

    def _described(self, id_: str) -> Answer:
        found = {"state": "STARTED", "type": "Spark", "name": "etl", "createdAt": 1.0}
        architecture = self.applications[id_]
        return {**found, **({} if architecture is None else {"architecture": architecture})}

    def _GetApplication(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        id_ = request["applicationId"]
        if id_ not in self.applications:
            return Refusal("ResourceNotFoundException", "no such application", 404)
        return {"application": {"applicationId": id_, **self._described(id_)}}

    def _ListApplications(self, _: Answer) -> Any:  # noqa: N802  the operation's name
        return {"applications": [{"id": id_, **self._described(id_)} for id_ in self.applications]}


# --- on EKS ----------------------------------------------------------------------------------------


@dataclass
class ContainerRun:
    """One job run of EMR on EKS."""

    id: str
    cluster: str
    request: Answer
    begun: float
    seconds: float | None = 60.0
    state: str = "COMPLETED"
    reason: str | None = None
    attempts: int = 1

    def answer(self) -> Answer:
        found: Answer = {
            "id": self.id,
            "virtualClusterId": self.cluster,
            "arn": "arn:x",
            "state": self.state,
            "createdAt": _iso(self.begun),
            "stateDetails": "s3cr3t details",
            "retryPolicyExecution": {"currentAttemptCount": self.attempts},
        }
        for name in ("jobDriver", "configurationOverrides"):
            if name in self.request:
                found[name] = self.request[name]
        if self.seconds is not None:
            found["finishedAt"] = _iso(self.begun + self.seconds)
        if self.reason is not None:
            found["failureReason"] = self.reason
        return found


class EMRContainers:
    """EMR on EKS, on an `AWSServer`."""

    service = "emr-containers"

    def __init__(self, aws: AWSServer) -> None:
        aws.rest(self.service)
        self.aws = aws
        self.clusters: list[str] = []
        self.runs: dict[str, ContainerRun] = {}
        self.next: Answer = {}
        """What the next run will do, as fields of `ContainerRun`."""
        self.page = 50
        self.brief = False
        """Whether the list leaves out what a run was started with."""
        for operation in ("StartJobRun", "DescribeJobRun", "ListJobRuns", "ListVirtualClusters"):
            aws.answer(self.service, operation, getattr(self, f"_{operation}"))

    def cluster(self) -> str:
        """Have a virtual cluster; return its id."""
        self.clusters.append(_name("vc").lower())
        return self.clusters[-1]

    def run(self, cluster: str, request: Answer, *, ago: float = 0, **more: Any) -> ContainerRun:
        """Have a job run that no program of ours has started."""
        run = ContainerRun(_name("0000").lower(), cluster, request, time.time() - ago, **more)
        self.runs[run.id] = run
        return run

    def _StartJobRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        cluster = request["virtualClusterId"]
        if cluster not in self.clusters:
            return Refusal("ResourceNotFoundException", "no such virtual cluster", 404)
        run = self.run(cluster, request, **self.next)
        return {"id": run.id, "name": "etl", "arn": "arn:x", "virtualClusterId": cluster}

    def _DescribeJobRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self.runs.get(request["jobRunId"])
        if run is None:
            return Refusal("ResourceNotFoundException", "no such run", 404)
        return {"jobRun": run.answer()}

    def _ListJobRuns(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        found = [run for run in self.runs.values() if run.cluster == request["virtualClusterId"]]
        some, token = _page(found[::-1], request.get("nextToken"), self.page)
        rows = [run.answer() for run in some]
        for row in rows if self.brief else ():
            row.pop("jobDriver", None)
        return {"jobRuns": rows, **({"nextToken": token} if token else {})}

    def _ListVirtualClusters(self, _: Answer) -> Any:  # noqa: N802  the operation's name
        return {"virtualClusters": [{"id": id_, "state": "RUNNING"} for id_ in self.clusters]}


def _iso(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
