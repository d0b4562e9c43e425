"""Spark's listener, in the driver's JVM: it adds up what tasks used, and is asked for the sums.

A listener in Python would be called back for every start and end of a task, a millisecond each, and
needs a callback server that the program may want for itself. This one is Java, 100 ns a task. Its
source is compiled in the driver by Janino, the compiler that Spark brings for its own generated
code, so there is no jar to distribute, and nothing to add to a class path.

`costinsights.systems.spark` says what the messages mean: `tell` and it agree on the order of sums.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

SOURCE = """
package costinsights;

import java.util.ArrayList;
import java.util.Date;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.spark.SparkContext;
import org.apache.spark.executor.TaskMetrics;
import org.apache.spark.scheduler.*;
import org.apache.spark.sql.execution.ui.SparkListenerSQLExecutionEnd;
import org.apache.spark.sql.execution.ui.SparkListenerSQLExecutionStart;
import org.apache.spark.status.api.v1.ExecutorSummary;

public final class Listener extends SparkListener {
    static final int SUMS = 13;
    static final int FIRST = 3;  // before the sums: stage, attempt, tasks that run

    final SparkContext context;
    final HashMap stages = new HashMap();
    final LinkedHashMap changed = new LinkedHashMap();
    ArrayList said = new ArrayList();

    public Listener(SparkContext context) {
        this.context = context;
    }

    // ---- what is asked of it

    public String application() throws Exception {
        LinkedHashMap found = new LinkedHashMap();
        found.put("id", context.applicationId());
        scala.Option attempt = context.applicationAttemptId();
        found.put("attempt", attempt.isEmpty() ? null : attempt.get());
        found.put("started", new Long(context.startTime()));
        LinkedHashMap conf = new LinkedHashMap();
        scala.Tuple2[] all = context.conf().getAll();
        for (int at = 0; at < all.length; ++at) {
            String name = (String) all[at]._1();
            if (name.equals("spark.master") || name.equals("spark.app.name")
                    || name.equals("spark.task.cpus") || name.startsWith("spark.costinsights.")) {
                conf.put(name, all[at]._2());
            }
        }
        found.put("conf", conf);
        return new ObjectMapper().writeValueAsString(found);
    }

    /** What was said since it was last asked, as JSON; it waits so long for there to be anything. */
    public synchronized String drain(long millis) throws Exception {
        if (said.isEmpty() && changed.isEmpty() && millis > 0) {
            this.wait(millis);
        }
        this.tell();
        if (said.isEmpty()) {
            return "";
        }
        ArrayList all = said;
        said = new ArrayList();
        return new ObjectMapper().writeValueAsString(all);
    }

    /** Waits until it has heard of all that has happened; not beyond so many milliseconds. */
    public void settle(long millis) {
        try {
            context.listenerBus().waitUntilEmpty(millis);
        } catch (Exception late) {
            return;
        }
    }

    // ---- what it is told

    public synchronized void say(Object[] message) {
        this.tell();
        said.add(message);
        this.notifyAll();
    }

    synchronized void tell() {
        Iterator all = changed.values().iterator();
        while (all.hasNext()) {
            long[] stage = (long[]) all.next();
            long[] sums = new long[SUMS];
            System.arraycopy(stage, FIRST, sums, 0, SUMS);
            java.util.Arrays.fill(stage, FIRST, stage.length, 0L);
            Long number = new Long(stage[0]);
            Long attempt = new Long(stage[1]);
            Long running = new Long(stage[2]);
            said.add(new Object[] {"used", number, attempt, sums, running});
            if (stage[2] == 0) {
                stages.remove(new Long(stage[0] << 20 | stage[1]));
            }
        }
        changed.clear();
    }

    synchronized long[] stage(int id, int attempt) {
        Long key = new Long(((long) id) << 20 | (long) attempt);
        long[] found = (long[]) stages.get(key);
        if (found == null) {
            found = new long[FIRST + SUMS];
            found[0] = id;
            found[1] = attempt;
            stages.put(key, found);
        }
        changed.put(key, found);
        return found;
    }

    public synchronized void onTaskStart(SparkListenerTaskStart event) {
        this.stage(event.stageId(), event.stageAttemptId())[2] += 1;
    }

    public synchronized void onTaskEnd(SparkListenerTaskEnd event) {
        long[] sums = this.stage(event.stageId(), event.stageAttemptId());
        sums[2] = Math.max(0L, sums[2] - 1);
        TaskMetrics used = event.taskMetrics();
        if (used != null) {
            sums[3] += used.executorRunTime();
            sums[4] += used.executorCpuTime();
            sums[5] += used.executorDeserializeTime();
            sums[6] += used.executorDeserializeCpuTime();
            sums[7] += used.jvmGCTime();
            sums[8] += used.inputMetrics().bytesRead();
            sums[9] += used.outputMetrics().bytesWritten();
            sums[10] += used.shuffleReadMetrics().totalBytesRead();
            sums[11] += used.shuffleWriteMetrics().bytesWritten();
            sums[12] += used.memoryBytesSpilled();
            sums[13] += used.diskBytesSpilled();
        }
        sums[14] += 1;
        if (!event.taskInfo().successful()) {
            sums[15] += 1;
        }
    }

    public void onJobStart(SparkListenerJobStart event) {
        ArrayList ids = new ArrayList();
        scala.collection.Iterator all = event.stageInfos().iterator();
        while (all.hasNext()) {
            ids.add(new Integer(((StageInfo) all.next()).stageId()));
        }
        LinkedHashMap kept = new LinkedHashMap();
        Properties given = event.properties();
        Iterator names = given == null
            ? new ArrayList().iterator() : given.stringPropertyNames().iterator();
        while (names.hasNext()) {
            String name = (String) names.next();
            if (name.startsWith("spark.costinsights.") || name.equals("spark.sql.execution.id")
                    || name.equals("spark.jobGroup.id") || name.equals("spark.job.description")) {
                kept.put(name, given.getProperty(name));
            }
        }
        Integer number = new Integer(event.jobId());
        this.say(new Object[] {"job", number, new Long(event.time()), ids, kept});
    }

    public void onJobEnd(SparkListenerJobEnd event) {
        boolean well = event.jobResult().getClass().getName().indexOf("JobSucceeded") >= 0;
        Integer number = new Integer(event.jobId());
        this.say(new Object[] {"job ended", number, new Long(event.time()), new Boolean(well)});
    }

    public void onOtherEvent(SparkListenerEvent event) {
        if (event instanceof SparkListenerSQLExecutionStart) {
            SparkListenerSQLExecutionStart sql = (SparkListenerSQLExecutionStart) event;
            this.say(new Object[] {"sql", new Long(sql.executionId()), new Long(sql.time())});
        } else if (event instanceof SparkListenerSQLExecutionEnd) {
            SparkListenerSQLExecutionEnd sql = (SparkListenerSQLExecutionEnd) event;
            scala.Option message = sql.errorMessage();
            boolean well = message.isEmpty() || "".equals(message.get());
            Long number = new Long(sql.executionId());
            this.say(new Object[] {"sql ended", number, new Long(sql.time()), new Boolean(well)});
        }
    }

    public void onExecutorAdded(SparkListenerExecutorAdded event) {
        Integer cores = new Integer(event.executorInfo().totalCores());
        this.say(new Object[] {"executor", event.executorId(), new Long(event.time()), cores});
    }

    public void onExecutorRemoved(SparkListenerExecutorRemoved event) {
        this.say(new Object[] {"executor removed", event.executorId(), new Long(event.time())});
    }

    public void onApplicationEnd(SparkListenerApplicationEnd event) {
        try {
            this.executors();
        } finally {
            this.say(new Object[] {"end", new Long(event.time())});
        }
    }

    /** Those that were there before it was as well. */
    public void executors() {
        scala.collection.Iterator all = context.statusStore().executorList(false).iterator();
        while (all.hasNext()) {
            ExecutorSummary one = (ExecutorSummary) all.next();
            Long added = new Long(one.addTime().getTime());
            this.say(new Object[] {"executor", one.id(), added, new Integer(one.totalCores())});
            if (!one.removeTime().isEmpty()) {
                Long removed = new Long(((Date) one.removeTime().get()).getTime());
                this.say(new Object[] {"executor removed", one.id(), removed});
            }
        }
    }
}
"""


_compiled: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""By the way to a JVM, the listener's class there. It is made once: py4j takes classes of one name
for the same, whoever loaded them."""


def attached(context: Any) -> Any:
    """Put a listener on the bus of a SparkContext, and return it.

    Raises:
        py4j.protocol.Py4JError: the JVM is not one that lets us, as on a shared cluster of
            Databricks, or Spark's classes are not those of the versions that were tested.
    """
    gateway, scala = context._gateway, context._jsc.sc()
    kind = _compiled.get(gateway._gateway_client)
    if kind is None:
        kind = _compiled[gateway._gateway_client] = _class(context._jvm)
    arguments = gateway.new_array(context._jvm.java.lang.Object, 1)
    arguments[0] = scala
    listener = kind.getConstructors()[0].newInstance(arguments)
    # Beside Spark's own, whose thread is awake for every event: a queue of ours would be woken for
    # each, which costs thirty times what the listener does.
    scala.listenerBus().addToStatusQueue(listener)
    return listener


def _class(jvm: Any) -> Any:
    compiler = jvm.org.codehaus.janino.SimpleCompiler()
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    compiler.setParentClassLoader(loader)
    compiler.cook(SOURCE)
    return compiler.getClassLoader().loadClass("costinsights.Listener")
