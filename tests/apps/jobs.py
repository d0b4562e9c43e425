"""A program that starts one job of each kind, and then dies of SIGKILL, or lives and polls them all.

Its argument is a JSON object: where the servers are, which clusters there are, and whether it
`lives`. It prints a JSON object with the vendors' ids of what it has started, by system.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any

import costinsights

if TYPE_CHECKING:
    from collections.abc import Callable

    Jobs = dict[str, tuple[str, Callable[[], bool]]]
    """By system: the vendor's id, and a question whether it has ended."""

ROLE = "arn:aws:iam::123456789012:role/x"
SUBMIT = (
    "--conf spark.executor.instances=2 --conf spark.executor.cores=2 "
    "--executor-memory 8g --driver-cores 1 --driver-memory 2g --class x"
)


def on_aws(given: dict[str, Any]) -> Jobs:
    """Start a query, a Glue job, and Spark on EMR in its three forms."""
    boto3: Any = import_module("boto3")

    def client(service: str, region: str) -> Any:
        return boto3.client(service, region_name=region, endpoint_url=given["aws"])

    athena, glue = client("athena", "us-east-1"), client("glue", "us-east-1")
    emr, serverless = client("emr", "us-west-2"), client("emr-serverless", "us-west-2")
    containers = client("emr-containers", "us-west-2")
    query = athena.start_query_execution(QueryString="SELECT 1")["QueryExecutionId"]
    run = glue.start_job_run(JobName="orders")["JobRunId"]
    step = {"Name": "etl", "HadoopJarStep": {"Jar": "command-runner.jar"}}
    [added] = emr.add_job_flow_steps(JobFlowId=given["cluster"], Steps=[step])["StepIds"]
    ran = serverless.start_job_run(
        applicationId=given["application"],
        executionRoleArn=ROLE,
        jobDriver={"sparkSubmit": {"entryPoint": "s3://x/j.py"}},
    )["jobRunId"]
    driver = {"entryPoint": "s3://x/j.py", "sparkSubmitParameters": SUBMIT}
    pods = containers.start_job_run(
        virtualClusterId=given["virtual"],
        executionRoleArn=ROLE,
        releaseLabel="emr-7.9.0-latest",
        jobDriver={"sparkSubmitJobDriver": driver},
    )["id"]

    def query_done() -> bool:
        found = athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]
        return bool(found["Status"]["State"] == "SUCCEEDED")

    def run_done() -> bool:
        found = glue.get_job_run(JobName="orders", RunId=run)["JobRun"]
        return bool(found["JobRunState"] == "SUCCEEDED")

    def step_done() -> bool:
        found = emr.describe_step(ClusterId=given["cluster"], StepId=added)["Step"]
        return bool(found["Status"]["State"] == "COMPLETED")

    def ran_done() -> bool:
        found = serverless.get_job_run(applicationId=given["application"], jobRunId=ran)["jobRun"]
        return bool(found["state"] == "SUCCESS")

    def pods_done() -> bool:
        found = containers.describe_job_run(virtualClusterId=given["virtual"], id=pods)["jobRun"]
        return bool(found["state"] == "COMPLETED")

    return {
        "aws.athena": (query, query_done),
        "aws.glue": (run, run_done),
        "aws.emr": (added, step_done),
        "aws.emr_serverless": (ran, ran_done),
        "aws.emr_containers": (pods, pods_done),
    }


def on_azure(given: dict[str, Any]) -> Jobs:
    """Start a pipeline of Data Factory."""
    server: Any = import_module("tests.servers.azure_server")
    library: Any = import_module("azure.mgmt.datafactory")
    client = library.DataFactoryManagementClient(
        server.Credential(),
        server.SUBSCRIPTION,
        base_url=given["azure"],
        authentication_policy=server.StaticToken(),
    )
    where = server.GROUP, server.FACTORY
    id_ = client.pipelines.create_run(*where, "load").run_id

    def done() -> bool:
        run = client.pipeline_runs.get(*where, id_)
        if run.status != "Succeeded":
            return False
        models: Any = import_module("azure.mgmt.datafactory.models")
        now = datetime.now(timezone.utc)
        times = models.RunFilterParameters(
            last_updated_after=now - timedelta(days=1), last_updated_before=now + timedelta(days=1)
        )
        client.activity_runs.query_by_pipeline_run(*where, id_, times)
        return True

    return {"azure.data_factory": (id_, done)}


def on_google(given: dict[str, Any]) -> Jobs:
    """Submit a job to a cluster of Dataproc, and a batch to Dataproc Serverless."""
    dataproc: Any = import_module("google.cloud.dataproc_v1")
    grpc: Any = import_module("grpc")
    server: Any = import_module("tests.servers.dataproc_server")

    def client(kind: str) -> Any:
        made = getattr(dataproc, f"{kind}Client")
        channel = grpc.insecure_channel(given["dataproc"])
        way = made.get_transport_class("grpc")
        return made(transport=way(channel=channel, host=given["dataproc"]))

    jobs, batches = client("JobController"), client("BatchController")
    where = {"project_id": server.PROJECT, "region": server.REGION}
    parent = f"projects/{server.PROJECT}/locations/{server.REGION}"
    script = {"main_python_file_uri": "gs://c/o.py"}
    job = {"placement": {"cluster_name": "etl"}, "pyspark_job": script}
    id_ = jobs.submit_job(job=job, **where).reference.job_id
    batches.create_batch(parent=parent, batch={"pyspark_batch": script}, batch_id="nightly")
    name = f"{parent}/batches/nightly"

    def job_done() -> bool:
        return bool(jobs.get_job(job_id=id_, **where).status.state.name == "DONE")

    def batch_done() -> bool:
        return bool(batches.get_batch(name=name).state.name == "SUCCEEDED")

    return {"gcp.dataproc": (id_, job_done), "gcp.dataproc_serverless": (name, batch_done)}


def on_databricks(given: dict[str, Any]) -> Jobs:
    """Run a job."""
    sdk: Any = import_module("databricks.sdk")
    client = sdk.WorkspaceClient(host=given["databricks"], token="dapi-test")
    id_ = client.jobs.run_now(given["job"]).run_id

    def done() -> bool:
        state = client.jobs.get_run(id_).state
        return bool(state.life_cycle_state.value == "TERMINATED")

    return {"databricks.jobs": (str(id_), done)}


def main() -> None:
    """Start, say what was started, and die or live."""
    given = json.loads(sys.argv[1])
    costinsights.instrument()
    with costinsights.attribute(asset="orders", team="sales"):
        jobs: Jobs = {}
        for start in (on_aws, on_azure, on_google, on_databricks):
            jobs.update(start(given))
    print(json.dumps({system: id_ for system, (id_, _) in jobs.items()}), flush=True)
    if not given["lives"]:
        os.kill(os.getpid(), signal.SIGKILL)
    for _, done in jobs.values():
        while not done():
            time.sleep(0.02)


if __name__ == "__main__":
    main()
