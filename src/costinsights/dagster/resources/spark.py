"""Spark, by `dagster_pyspark`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-pyspark"):
    from dagster_pyspark import LazyPySparkResource as Official

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession


class SparkResource(Resource, Official):
    """`dagster_pyspark.LazyPySparkResource`, and every action has its cost.

    ::

        spark.spark_session.sql("SELECT 1").collect()

    The session is made when it is first asked for.
    """

    spark_config: dict[str, Any] = Field(
        default={}, description='Spark\'s own configuration, as {"spark.executor.memory": "2g"}.'
    )

    @property
    def spark_session(self) -> SparkSession:
        """The session, which the steps of one process share."""
        switch_on()
        session: SparkSession = super().spark_session
        return session

    @property
    def spark_context(self) -> SparkContext:
        """The session's context."""
        return self.spark_session.sparkContext
