"""PySpark: what each SQL execution and each job of a Spark application uses of its executors.

Measured: executor run and CPU time, deserialisation, GC, bytes read, written, shuffled and spilled,
tasks and failed tasks, of every SQL execution and every job outside of SQL, with failed and repeated
stages; and, for the application, the core-seconds that no task used. A listener in the driver's JVM
adds them up; nothing is called back for a task. The charge's id of the vendor's is Spark's own:
``local-1732…/sql/3``, ``…/job/7``, and the application's id for what was idle, so that
``costinsights settle spark`` comes to the same charges from the event log or the REST API.

A charge is for the ``attribute(...)`` scope in which its action was called. To carry it to the job
the local property ``spark.costinsights.scope`` is set on the thread, when it changes; it stands in
the event log. The program's own ``spark.costinsights.asset``, ``….team`` and other such properties
are labels as well, after the scope; job group and description are ``job_group``, ``description``.

An amount needs a price of ``core_seconds`` in the price book (docs/systems/spark.md): Spark has no
price list. Charges are written when Spark's listeners hear of an end, moments after the action has
returned.

Of Spark Connect each operation is a pending charge under its operation id; what it used, only the
server's driver knows: ``costinsights settle spark --all`` finds it in the server's event log.

Not seen: drivers that are not Python, and those that ``spark-submit`` starts in another process,
unless they are instrumented themselves: settle their event logs. What the driver itself uses. Without pinned threads
(``PYSPARK_PIN_THREAD=false``) scopes do not reach jobs. Where the JVM lets nobody listen, as on
shared clusters of Databricks, a word in the program's log says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage
from costinsights.systems.spark import METERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from costinsights.jobs import Place
    from costinsights.patching import Probe
    from costinsights.recorder import Recorder
    from costinsights.records import Resource
    from costinsights.tagging import Tagger
    from costinsights_instrumentors._pyspark_driver import Driver

START = Hook("pyspark:SparkContext._do_init", statement=None, leaf=True, optional=True)
STOP = Hook("pyspark:SparkContext.stop", statement=None, leaf=True, optional=True)
CONNECT = Hook(
    "pyspark.sql.connect.client.reattach:ExecutePlanResponseReattachableIterator.__init__",
    statement=None,
    leaf=True,
    optional=True,
)
JAVA = Hook("py4j.java_gateway:JavaMember.__call__", statement=None, leaf=True)


class PySparkInstrumentor(DBAPIInstrumentor):
    name = "pyspark"
    system = "spark"
    driver = "pyspark"
    supports = ("3.5", "5")
    hooks = (START, STOP, JAVA, CONNECT)
    connection = ""
    meters = METERS
    basis = "metered"
    channel = "local property `spark.costinsights.scope`"
    verified = "PySpark 3.5 and 4.3, real engine"

    def __init__(self) -> None:
        super().__init__()
        self.listening: Driver | None = None
        self._watcher: Watch | None = None

    def instrument(self, recorder: Callable[[], Recorder], *, explicit: bool = False) -> None:
        def watched() -> Recorder:
            # A hook's wrapper asks its recorder for `begin`, `end` and `tagger` only.
            if self._watcher is None or self._watcher.recorder is not recorder():
                self._watcher = Watch(self, recorder())
            return cast("Recorder", self._watcher)

        super().instrument(watched, explicit=explicit)

    def _driver_imported(self, driver: ModuleType) -> None:
        super()._driver_imported(driver)
        context = getattr(getattr(driver, "SparkContext", None), "_active_spark_context", None)
        if context is not None and self.skipped is None and self.listening is None:
            self.listen(context, cast("Watch", self.recorder()).recorder, late=True)

    def listen(self, context: Any, recorder: Recorder, *, late: bool = False) -> None:
        from costinsights_instrumentors._pyspark_driver import listening

        self.listening = listening(self, context, recorder, late=late)

    def uninstrument(self) -> None:
        super().uninstrument()
        listening, self.listening, self._watcher = self.listening, None, None
        if listening is not None:
            listening.detach()

    def resource(self, connection: Place) -> Resource:
        from costinsights.records import Resource

        return Resource(connection.address, connection.port, connection.namespace)

    def final(self, source: Usage) -> Usage | None:
        return source


class Watch:
    """Stands before the recorder: the calls that are hooked are no charges, they tell of some."""

    tagger: Tagger | None = None

    def __init__(self, instrumentor: PySparkInstrumentor, recorder: Recorder) -> None:
        self.recorder = recorder
        self._instrumentor = instrumentor

    def begin(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        if probe.hook is JAVA:
            listening = self._instrumentor.listening
            if listening is not None:
                listening.carry(args[0])
            return None
        return Call(self, probe.hook, args[0])

    def end(self, call: Call, result: Any, error: BaseException | None) -> None:
        if call.hook is START and error is None:
            self._instrumentor.listen(call.context, self.recorder)
        elif call.hook is CONNECT and error is None:
            if self._instrumentor.listening is None:  # the server is not in this very process
                from costinsights_instrumentors._pyspark_connect import started

                started(self._instrumentor, self.recorder, call.context)
        elif call.hook is STOP and self._instrumentor.listening is not None:
            listening, self._instrumentor.listening = self._instrumentor.listening, None
            listening.stopped()


class Call:
    """One call under way of a hook that is no charge."""

    def __init__(self, watch: Watch, hook: Hook, context: Any) -> None:
        # A hook's wrapper hands the end of a call to `recorder` of what `begin` has given.
        self.recorder = watch
        self.hook = hook
        self.context = context
