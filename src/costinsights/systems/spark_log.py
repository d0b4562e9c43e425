"""Reads Spark's event logs as a stream: a line at a time, and only the lines that matter are parsed.

A log is a file with one JSON object a line or, rolled, a folder ``eventlog_v2_…`` of such files. It
may be compressed: zstd (Spark 4's default), lz4 and snappy are read with pyarrow, gzip by itself.
What is kept in memory is what is under way, however long the log is.

Format: org.apache.spark.util.JsonProtocol and …deploy.history.EventLogFileWriters, Spark 3.5 and 4.
"""

from __future__ import annotations

import gzip
import os
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import msgspec

from costinsights.systems.spark import Application, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1 << 20
LONGEST_LINE = 1 << 28
"""A plan may be many MB of text; what is longer than this is no event log."""

_ROLLED = re.compile(r"eventlog_v2_(.+)")
_PART = re.compile(r"events_(\d+)_")
_SUFFIXES = re.compile(r"(\.(inprogress|compact|zstd|lz4|snappy|lzf|gz))+$")


class LogError(Exception):
    """A log cannot be read; the text says why and what to do."""


# --- where logs are ------------------------------------------------------------------------------


class Log(NamedTuple):
    """One application's log: a file, or the files of a folder in their order."""

    name: str
    """The application's id, with its attempt behind it where it has several: ``…_0007_1``."""
    files: tuple[str, ...]
    modified: float
    """Seconds since the epoch."""
    size: int
    compacted: bool
    """Spark has dropped the jobs that were done from its older part."""


def logs_in(path: str) -> Iterator[Log]:
    """Yield the logs at a path: it may be a log itself, or a folder of logs.

    Raises:
        LogError: there is nothing, or it cannot be looked into.
    """
    try:
        if not os.path.isdir(path):
            yield _log(path, [path])
            return
        if _ROLLED.fullmatch(os.path.basename(os.path.normpath(path))):
            yield _rolled(path)
            return
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        raise LogError(f"{path}: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith((".", "_")):
            continue
        try:
            if entry.is_dir():
                if _ROLLED.fullmatch(entry.name):
                    yield _rolled(entry.path)
            else:
                yield _log(entry.path, [entry.path])
        except OSError:
            continue  # Spark renames a log when its application ends, and cleans old ones away


def _rolled(path: str) -> Log:
    names = [name for name in os.listdir(path) if _PART.match(name)]
    names.sort(key=lambda name: (_number(name), not name.endswith(".compact")))
    # All that is before a compacted file, it stands for.
    for at in range(len(names) - 1, -1, -1):
        if names[at].endswith(".compact"):
            names = [
                name
                for name in names[at:]
                if name == names[at] or _number(name) > _number(names[at])
            ]
            break
    return _log(path, [os.path.join(path, name) for name in names])


def _number(name: str) -> int:
    found = _PART.match(name)
    return int(found[1]) if found else 0


def _log(path: str, files: list[str]) -> Log:
    stats = [os.stat(file) for file in files or [path]]
    base = os.path.basename(os.path.normpath(path))
    rolled = _ROLLED.fullmatch(base)
    return Log(
        rolled[1] if rolled else _SUFFIXES.sub("", base),
        tuple(files),
        max(stat.st_mtime for stat in stats),
        sum(stat.st_size for stat in stats),
        any(file.endswith(".compact") for file in files),
    )


# --- what a file has -----------------------------------------------------------------------------


def lines(path: str, progress: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the whole lines of a file, however it is compressed; `progress` gets bytes of the file.

    A last line without an end is still being written, or its writer was killed: it is left out.

    Raises:
        LogError: a library is missing, or this is no log.
    """
    rest = b""
    with open(path, "rb") as raw:
        before = 0
        for chunk in _chunks(path, raw):
            at = raw.tell()
            progress(at - before)
            before = at
            found = (rest + chunk).split(b"\n")
            rest = found.pop()
            if len(rest) > LONGEST_LINE:
                raise LogError(f"{path} is no event log: it has no lines")
            yield from found


def _chunks(path: str, raw: BinaryIO) -> Iterator[bytes]:
    codec = path.removesuffix(".inprogress").removesuffix(".compact").rpartition(".")[2]
    try:
        yield from _CODECS.get(codec, _plain)(raw)
    except (EOFError, OSError) as error:
        # The end of a compressed log that is being written, or whose writer was killed.
        if codec not in _CODECS or (isinstance(error, OSError) and error.errno is not None):
            raise LogError(f"{path}: {error}") from None
    except ImportError:
        raise LogError(f"{path} is compressed: run  pip install pyarrow") from None


def _plain(raw: BinaryIO) -> Iterator[bytes]:
    while chunk := raw.read(CHUNK):
        yield chunk


def _gzip(raw: BinaryIO) -> Iterator[bytes]:
    yield from _plain(cast("BinaryIO", gzip.GzipFile(fileobj=raw)))


def _zstd(raw: BinaryIO) -> Iterator[bytes]:
    arrow: Any = import_module("pyarrow")
    with arrow.CompressedInputStream(arrow.PythonFile(raw, mode="r"), "zstd") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _lz4(raw: BinaryIO) -> Iterator[bytes]:
    """Read lz4-java's blocks: magic, method, lengths, checksum, data."""
    codec: Any = import_module("pyarrow").Codec("lz4_raw")
    while head := raw.read(21):
        if len(head) < 21:
            return
        if head[:8] != b"LZ4Block":
            raise LogError("this is not lz4 as Spark writes it")
        packed = int.from_bytes(head[9:13], "little")
        size = int.from_bytes(head[13:17], "little")
        data = raw.read(packed)
        if len(data) < packed:
            return
        if size:
            stored = head[8] & 0xF0 == 0x10
            yield data if stored else codec.decompress(data, size, asbytes=True)


def _snappy(raw: BinaryIO) -> Iterator[bytes]:
    """Read snappy-java's blocks; a stream's header may come again where it was appended to."""
    codec: Any = import_module("pyarrow").Codec("snappy")
    while head := raw.read(4):
        if head == b"\x82SNA":
            raw.read(12)
            continue
        size = int.from_bytes(head, "big")
        data = raw.read(size)
        if len(head) < 4 or len(data) < size:
            return
        # The length of what comes out stands before it, seven bits a byte.
        length = 0
        for at, byte in enumerate(data[:5]):
            length |= (byte & 0x7F) << 7 * at
            if byte < 0x80:
                break
        yield codec.decompress(data, length, asbytes=True)


def _lzf(raw: BinaryIO) -> Iterator[bytes]:
    raise LogError("lzf is not read: set spark.eventLog.compression.codec to zstd")


_CODECS: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    "gz": _gzip,
    "lz4": _lz4,
    "lzf": _lzf,
    "snappy": _snappy,
    "zstd": _zstd,
}


# --- what events say -----------------------------------------------------------------------------

field = msgspec.field


class _ApplicationStart(msgspec.Struct):
    id: str = field(name="App ID")
    at: int = field(name="Timestamp")
    name: str = field(name="App Name", default="")
    attempt: str | None = field(name="App Attempt ID", default=None)

    def tell(self, log: EventLog) -> None:
        log.begin(Application(self.id, self.at, attempt=self.attempt, name=self.name))


class _Environment(msgspec.Struct):
    conf: dict[str, str] = field(name="Spark Properties")

    def tell(self, log: EventLog) -> None:
        log.say(lambda application: application.configured(self.conf))


class _Timed(msgspec.Struct):
    at: int = field(name="Timestamp")


class _ApplicationEnd(_Timed):
    def tell(self, log: EventLog) -> None:
        log.say(lambda application: application.end(self.at))


class _ExecutorInfo(msgspec.Struct):
    cores: int = field(name="Total Cores")


class _ExecutorAdded(_Timed):
    id: str = field(name="Executor ID")
    info: _ExecutorInfo = field(name="Executor Info")

    def tell(self, log: EventLog) -> None:
        log.say(lambda found: found.executor_added(self.id, self.at, self.info.cores))


class _ExecutorRemoved(_Timed):
    id: str = field(name="Executor ID")

    def tell(self, log: EventLog) -> None:
        log.say(lambda application: application.executor_removed(self.id, self.at))


class _BlockManager(msgspec.Struct):
    executor: str = field(name="Executor ID")


class _BlockManagerAdded(_Timed):
    manager: _BlockManager = field(name="Block Manager ID")

    def tell(self, log: EventLog) -> None:
        # From then on Spark's own pages count an executor as there, though of no cores yet.
        log.say(lambda application: application.executor_added(self.manager.executor, self.at, 0))


class _JobStart(msgspec.Struct):
    id: int = field(name="Job ID")
    at: int = field(name="Submission Time")
    stages: list[int] = field(name="Stage IDs")
    properties: dict[str, str] | None = field(name="Properties", default=None)

    def tell(self, log: EventLog) -> None:
        properties = self.properties or {}
        log.say(lambda found: found.job_started(self.id, self.at, self.stages, properties))


class _Result(msgspec.Struct):
    result: str = field(name="Result")


class _JobEnd(msgspec.Struct):
    id: int = field(name="Job ID")
    at: int = field(name="Completion Time")
    result: _Result = field(name="Job Result")

    def tell(self, log: EventLog) -> None:
        well = self.result.result == "JobSucceeded"
        log.say(lambda application: application.job_ended(self.id, self.at, well=well))


class _TaskStart(msgspec.Struct):
    stage: int = field(name="Stage ID")
    attempt: int = field(name="Stage Attempt ID", default=0)

    def tell(self, log: EventLog) -> None:
        log.say(lambda application: application.task_started(self.stage, self.attempt))


class _Input(msgspec.Struct):
    bytes: int = field(name="Bytes Read", default=0)


class _Output(msgspec.Struct):
    bytes: int = field(name="Bytes Written", default=0)


class _ShuffleRead(msgspec.Struct):
    remote: int = field(name="Remote Bytes Read", default=0)
    local: int = field(name="Local Bytes Read", default=0)


class _ShuffleWrite(msgspec.Struct):
    bytes: int = field(name="Shuffle Bytes Written", default=0)


class _Metrics(msgspec.Struct):
    run: int = field(name="Executor Run Time")
    cpu: int = field(name="Executor CPU Time", default=0)
    deserialize: int = field(name="Executor Deserialize Time", default=0)
    deserialize_cpu: int = field(name="Executor Deserialize CPU Time", default=0)
    gc: int = field(name="JVM GC Time", default=0)
    memory_spilled: int = field(name="Memory Bytes Spilled", default=0)
    disk_spilled: int = field(name="Disk Bytes Spilled", default=0)
    read: _Input = field(name="Input Metrics", default_factory=_Input)
    written: _Output = field(name="Output Metrics", default_factory=_Output)
    fetched: _ShuffleRead = field(name="Shuffle Read Metrics", default_factory=_ShuffleRead)
    shuffled: _ShuffleWrite = field(name="Shuffle Write Metrics", default_factory=_ShuffleWrite)


class _Reason(msgspec.Struct):
    reason: str = field(name="Reason")


class _TaskEnd(msgspec.Struct):
    stage: int = field(name="Stage ID")
    reason: _Reason = field(name="Task End Reason")
    attempt: int = field(name="Stage Attempt ID", default=0)
    used: _Metrics | None = field(name="Task Metrics", default=None)

    def tell(self, log: EventLog) -> None:
        found, failed = self.used or _NOTHING, int(self.reason.reason != "Success")
        sums = (
            found.run,
            found.cpu,
            found.deserialize,
            found.deserialize_cpu,
            found.gc,
            found.read.bytes,
            found.written.bytes,
            found.fetched.remote + found.fetched.local,
            found.shuffled.bytes,
            found.memory_spilled,
            found.disk_spilled,
            1,
            failed,
        )
        log.say(lambda application: application.task_ended(self.stage, self.attempt, sums))


_NOTHING = _Metrics(0)


class _SQLStart(msgspec.Struct):
    id: int = field(name="executionId")
    at: int = field(name="time")

    def tell(self, log: EventLog) -> None:
        log.say(lambda application: application.sql_started(self.id, self.at))


class _SQLEnd(msgspec.Struct):
    id: int = field(name="executionId")
    at: int = field(name="time")
    message: str | None = field(name="errorMessage", default=None)

    def tell(self, log: EventLog) -> None:
        # Only whether there is a message: what it says may be anybody's data.
        log.say(lambda found: found.sql_ended(self.id, self.at, well=not self.message))


_SQL = "org.apache.spark.sql.execution.ui."
_EVENTS: dict[bytes, msgspec.json.Decoder[Any]] = {
    name.encode(): msgspec.json.Decoder(kind)
    for name, kind in {
        "SparkListenerApplicationStart": _ApplicationStart,
        "SparkListenerApplicationEnd": _ApplicationEnd,
        "SparkListenerEnvironmentUpdate": _Environment,
        "SparkListenerExecutorAdded": _ExecutorAdded,
        "SparkListenerExecutorRemoved": _ExecutorRemoved,
        "SparkListenerBlockManagerAdded": _BlockManagerAdded,
        "SparkListenerJobStart": _JobStart,
        "SparkListenerJobEnd": _JobEnd,
        "SparkListenerTaskStart": _TaskStart,
        "SparkListenerTaskEnd": _TaskEnd,
        f"{_SQL}SparkListenerSQLExecutionStart": _SQLStart,
        f"{_SQL}SparkListenerSQLExecutionEnd": _SQLEnd,
    }.items()
}
_HEAD = b'{"Event":"'
_STAGE = re.compile(rb'"Stage ID":"?(\d+)')


class EventLog:
    """Reads one log: `units` yields what is done as soon as it is, and `application` the rest."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.application: Application | None = None
        self.broken = 0
        """Lines that are no events, or whose events are not as Spark writes them."""
        self._waiting: list[Callable[[Application], None]] = []
        """What was said before the application's own first word: its executors, its settings."""

    def units(self, progress: Callable[[int], None]) -> Iterator[Unit]:
        """Yield the units that are done; `progress` gets how many bytes were read since.

        Raises:
            LogError: a file cannot be read.
        """
        for path in self.log.files:
            for line in lines(path, progress):
                end = line.find(b'"', len(_HEAD))
                name = line[len(_HEAD) : end]
                decoder = _EVENTS.get(name) if line.startswith(_HEAD) else None
                if decoder is None:
                    self.broken += bool(line) and not line.startswith(_HEAD)
                    continue
                try:
                    decoder.decode(line).tell(self)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    self._doubt(line, name, error)
                    continue
                if name.endswith(b"End") and self.application is not None:
                    yield from self.application.finished()

    def begin(self, application: Application) -> None:
        """Take the application's first word, and what was said before it."""
        self.application = application
        for said in self._waiting:
            said(application)
        self._waiting.clear()

    def say(self, what: Callable[[Application], None]) -> None:
        """Tell the application."""
        if self.application is not None:
            what(self.application)
        elif len(self._waiting) < 1 << 16:  # a log whose beginning was cut off has none
            self._waiting.append(what)

    def _doubt(self, line: bytes, name: bytes, error: Exception) -> None:
        """Remember whose figures a line has left incomplete."""
        self.broken += 1
        found = _STAGE.search(line)
        if found is not None and self.application is not None:
            self.application.doubt(int(found[1]), f"{name.decode()}: {error}")
