"""What the drivers of SQL Server, Azure SQL and Synapse have in common.

It is no plug-in: `pyodbc`, `mssql_python` and `pymssql` are.
"""

from __future__ import annotations

import re
from contextvars import copy_context
from functools import lru_cache, wraps
from sys import getrefcount
from typing import TYPE_CHECKING, Any, ClassVar, cast

from costinsights.guard import swallow
from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage, rowcount
from costinsights.tagging import can_carry
from costinsights.unlocked import can_unlock, unlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from costinsights.recorder import Recorder
    from costinsights.span import CostSpan
    from costinsights.tagging import TagInText

SYSTEM, DEDICATED = "microsoft.sql_server", "azure.synapse_dedicated"
# What drivers call the server they lead to, and its key; the first whose name begins so.
SYSTEMS = (
    ("microsoft sql server", SYSTEM),
    ("postgresql", "postgresql"),
    ("mysql", "mysql"),
    ("mariadb", "mariadb"),
    ("sqlite", "sqlite"),
    ("oracle", "oracle.db"),
    ("db2", "ibm.db2"),
    ("snowflake", "snowflake"),
    ("dremio", "dremio"),
    ("amazon redshift", "aws.redshift"),
    ("redshift", "aws.redshift"),
    ("spark sql", "databricks"),
    ("databricks", "databricks"),
    ("trino", "trino"),
    ("presto", "presto"),
    ("teradata", "teradata"),
    ("hdb", "sap.hana"),
)
CATALOG = (
    "tables columns statistics rowIdColumns rowVerColumns primaryKeys foreignKeys getTypeInfo "
    "procedures procedureColumns tablePrivileges"
).split()
"""ODBC's catalogue functions: each is a statement of the driver's own."""

UNSHARED = 2
"""References to what only one attribute holds: that one, and the argument of `getrefcount`."""
MOST_LOOKED_AT = 32
"""Open results that are looked at, at each call, for one whose cursor is gone."""
MEGABYTE = 1 << 20
# The message of a serverless pool. Its wording, and that it comes at all, is from general knowledge
# (engines.md 5), so each number is looked for on its own.
_DATA = re.compile(r"data (scanned|moved|written) is ([\d.,]+) (megabyte|MB)", re.IGNORECASE)
_ID = re.compile(r"Statement ID: *\{?([0-9a-f-]{36})", re.IGNORECASE)
_RESULTS = re.compile(
    r"(?:^|;)\s*(SELECT|WITH|INSERT|UPDATE|DELETE|MERGE|EXEC\w*)\b", re.IGNORECASE
)
_SILENT = re.compile(r"SET\s+NOCOUNT\s+ON", re.IGNORECASE)
_WORD = re.compile(r"\s*([^=;{}]+?)\s*=\s*(\{(?:[^}]|\}\})*\}|[^;]*)")


class Place:
    """Where a connection leads. It stands for one that allows no weak reference."""

    def __init__(
        self,
        server: str | None = None,
        port: str | int | None = None,
        namespace: str | None = None,
        system: str = SYSTEM,
        application: str | None = None,
    ) -> None:
        self.address, told = endpoint(server or "")
        self.port = told or port
        self.namespace, self.system, self.application = namespace or None, system, application
        self.handle: object = None
        self.dedicated: bool | None = None  # a pool of Synapse's; None until somebody asks


def endpoint(server: str) -> tuple[str | None, str | None]:
    r"""Return address and port of ``tcp:host,1433``, ``host:1433`` or ``host\instance``."""
    host = server.strip().removeprefix("tcp:").partition("\\")[0]
    host, comma, port = host.partition(",")
    if not comma and host.count(":") == 1:
        host, _, port = host.partition(":")
    return host.strip() or None, port.strip() or None


def words_of(string: str) -> dict[str, str]:
    """Return what stands in an ODBC connection string, by lower-case keyword; the first counts."""
    found: dict[str, str] = {}
    for name, value in _WORD.findall(string):
        plain = value[1:-1].replace("}}", "}") if value.startswith("{") else value.strip()
        found.setdefault(name.lower(), plain)
    return found


def with_word(string: str, keyword: str, value: str) -> str:
    """Return an ODBC connection string with `value` for all that it says under `keyword`."""

    def replaced(found: re.Match[str]) -> str:
        if found[1].lower() != keyword:
            return found[0]
        return f"{found[0][: found.start(2) - found.start()]}{value}"

    return _WORD.sub(replaced, string)


def first(words: dict[str, str], names: str) -> str | None:
    """Return the first of several keywords, synonyms of each other, that is given."""
    return next((words[name] for name in names.split("|") if words.get(name)), None)


def system_named(dbms: str) -> str:
    """Return the key of a system that an ODBC driver calls `dbms`."""
    name = dbms.lower()
    return next((key for start, key in SYSTEMS if name.startswith(start)), "other_sql")


def asks(driver: str) -> bool:
    """Tell whether an ODBC driver asks the server what that is called (Arrow's: GetInfoCache).

    Dremio publishes it; where it leads elsewhere, a ``[[resource]]`` says so.
    """
    return any(word in driver.lower() for word in ("flight", "dremio"))


SERVER, DATABASE = "server|host|address|addr|servername|network address", "database|dbname"


# In these it is known to be allowed (engines.md 5); behind VALUES, or in what is neither, it is left.
_LABELLED = re.compile(
    r"\s*(SELECT|WITH|UPDATE|DELETE|INSERT\b.*?\)?\s*SELECT)\b", re.IGNORECASE | re.DOTALL
)
_OPTION = re.compile(r"\bOPTION\s*\((?:[^()]|\([^()]*\))*(\))\s*$", re.IGNORECASE)


def labelled(query: str | bytes, tag: str) -> tuple[str | bytes, str] | None:
    """Return `query` with the tag as its label, and the label; None where that is in doubt.

    A statement has one OPTION clause: one that is there gets the label as well, unless it has one.
    A label is of letters, digits and underscores, at most 255 of them.
    """
    text = query if isinstance(query, str) else query.decode("latin-1")
    if not can_carry(text) or "--" in text or not _LABELLED.match(text):
        return None
    word = re.sub(r"[^A-Za-z0-9]+", "_", tag)[:255]
    found = _OPTION.search(text)
    if found is None:
        if re.search(r"\bOPTION\b", text, re.IGNORECASE):
            return None
        whole = f"{text} OPTION (LABEL = '{word}')"
    elif re.search(r"\bLABEL\b", found[0], re.IGNORECASE):
        return None
    else:
        whole = f"{text[: found.start(1)]}, LABEL = '{word}'{text[found.start(1) :]}"
    return (whole if isinstance(query, str) else whole.encode("latin-1")), word


class Messages:
    """What the server said beside the rows of a call.

    `description` is the cursor's: while nobody else holds it, the cursor is gone.
    """

    __slots__ = ("description", "texts")

    def __init__(self, description: object = None) -> None:
        self.texts: dict[str, None] = {}
        self.description = description

    def add(self, messages: Iterable[Any] | None) -> Messages:
        """Keep the texts of a cursor's ``messages``, once each."""
        for message in messages or ():
            self.texts[str(message[1])] = None
        return self

    def usage(self, rows: int | None = None) -> Usage | None:
        """Return what they tell: of a serverless pool what it processed, and its statement's id.

        Processed is what was scanned, moved and written together. Where that is nothing it may be a
        query that is free, or less than the message shows: then there is no such meter.
        """
        meters: dict[str, int] = {}
        vendor_id = None
        for text in self.texts:
            for kind, number, _ in _DATA.findall(text):
                size = number.replace(",", "")
                if size.count(".") < 2 and size.strip("."):
                    name = f"data_{kind.lower()}_bytes"
                    meters[name] = meters.get(name, 0) + round(float(size) * MEGABYTE)
            if found := _ID.search(text):
                vendor_id = found[1].upper()
        if processed := sum(meters.values()):
            meters["data_processed_bytes"] = processed
        if rows is None and not meters and vendor_id is None:
            return None
        return Usage(rows, meters or None, vendor_id)


@lru_cache(maxsize=1024)
def has_several_results(text: str) -> bool:
    """Tell of a statement, without its literals, whether further results follow the first."""
    found = [word.upper() for word in _RESULTS.findall(text)]
    if _SILENT.search(text):  # changes then have no result of their own
        found = [word for word in found if word in ("SELECT", "WITH") or word.startswith("EXEC")]
    return len(found) > 1


def cursor_hooks(cursor: str, statement: tuple[int, str], **common: Any) -> tuple[Hook, ...]:
    """Return the hooks that all of these drivers' cursors have."""
    fetches = {"fetchone": "one", "fetchmany": "many", "fetchall": "all", "nextset": "set"}
    return (
        Hook(f"{cursor}.execute", statement=statement, lazy=True, **common),
        *(Hook(f"{cursor}.{name}", fetch=how, **common) for name, how in fetches.items()),  # type: ignore[arg-type]
        Hook(f"{cursor}.close", fetch="close", **common),
    )


class TDSInstrumentor(DBAPIInstrumentor):
    """Shared: where connections lead, further results, messages, and cursors that leave no trace."""

    system = SYSTEM
    systems = ("microsoft.sql_server", "azure.sql", "azure.synapse")
    facts = {"address": "address", "port": "port", "namespace": "namespace"}  # noqa: RUF012  ClassVar of the base
    meters: ClassVar[tuple[str, ...]] = (
        "data_processed_bytes",
        "data_scanned_bytes",
        "data_moved_bytes",
        "data_written_bytes",
    )
    types = ""
    """The C type whose objects allow no weak reference, ``"module:Cursor"``; empty for none."""

    threads = ""
    """A method of a library above the driver that hands a function to a thread, and its arguments:
    ``"module:Class.method"``. What runs there is made to run in the caller's context."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[int, Place] = {}
        self._handing: Any = None

    def instrument(self, recorder: Callable[[], Recorder], *, explicit: bool = False) -> None:
        """Look out for the library above the driver as well."""
        super().instrument(recorder, explicit=explicit)
        if self.threads:
            self._watch(self.threads.partition(":")[0], self._carry)

    def _carry(self, module: ModuleType) -> None:
        from costinsights.patching import owner_of

        owner, name = owner_of(self.threads)
        original = cast("dict[str, Any]", vars(owner)).get(name)
        if original is None or hasattr(original, "__costinsights__"):
            return

        @wraps(original)
        def hand_over(me: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
            return original(me, copy_context().run, function, *args, **kwargs)

        hand_over.__costinsights__ = True  # type: ignore[attr-defined]
        self._handing = owner, name, original
        setattr(owner, name, hand_over)

    def _put_back(self) -> None:
        if self._handing is not None:
            owner, name, original = self._handing
            self._handing = None
            if hasattr(getattr(owner, name), "__costinsights__"):
                setattr(owner, name, original)

    # -- cursors and connections in C ---------------------------------------------------------

    def _apply(self, module: ModuleType) -> None:
        super()._apply(module)
        owner = getattr(module, self.types.partition(":")[2], None) if self.types else None
        if can_unlock(owner) and module.__name__ == self.types.partition(":")[0]:
            import atexit

            with unlocked(owner):
                owner.__del__ = self._finaliser()  # type: ignore[union-attr]
            atexit.unregister(self.forget_all)
            atexit.register(self.forget_all)

    def uninstrument(self) -> None:
        """Complete what is open, and take off what stands beside the hooks."""
        self._put_back()
        self.forget_all()
        self.places.clear()
        patches = bool(self.patches)
        super().uninstrument()
        if self.types and patches:
            import atexit

            from costinsights.patching import resolve

            atexit.unregister(self.forget_all)
            owner = resolve(self.types)
            if "__del__" in vars(owner):
                with unlocked(owner):
                    del owner.__del__

    def _finaliser(self) -> Any:
        def __del__(cursor: object) -> None:  # noqa: N807  it is set as one
            self.forget(id(cursor))

        __del__.__costinsights__ = True  # type: ignore[attr-defined]
        return __del__

    def open_spans(self) -> list[CostSpan]:
        """Return the calls of ours whose rows are still to come."""
        recorder = self.recorder()
        every = () if recorder is None else list(recorder.opened.values())
        return [span for span in every if span.probe.instrumentor is self]

    def forget(self, key: int) -> None:
        """The cursor at this address is gone: what it had not read will never be."""
        recorder = self.recorder()
        span = None if recorder is None else recorder.opened.get(key)
        if span is not None and recorder is not None and span.probe.instrumentor is self:
            try:
                recorder.complete(span, None, partial=True)
            except Exception as error:  # noqa: BLE001  ours must not reach the program
                swallow("a dropped cursor", error)

    def forget_all(self) -> None:
        """Complete all that is open: at the end of the program nobody else will."""
        for span in self.open_spans():
            self.forget(span.key)

    # -- what a connection leads to ---------------------------------------------------------------

    def system_of(self, connection: Place) -> str:
        """Return what the driver leads to; a host of Azure's is recognised by its name."""
        return connection.system

    def tag_in_text(self, connection: Place) -> TagInText | None:
        """A dedicated pool of Synapse keeps a label that its statement carries."""
        if connection.dedicated is None:
            from costinsights.hosts import recognise

            recorder = self.recorder()
            declared = () if recorder is None else recorder.resources
            found = recognise(connection.system, self.resource(connection), declared)
            connection.dedicated = found.service == DEDICATED
        return labelled if connection.dedicated else None

    # -- what a call used -----------------------------------------------------------------------

    def usage(self, cursor: Any, result: Any) -> Usage | None:
        """Return the rows that were changed, and what the messages tell.

        Rows to be read are counted while they are: some drivers give their number beforehand.
        """
        rows = rowcount(cursor) if cursor.description is None else None
        if said := cursor.messages:
            return Messages().add(said).usage(rows)
        return None if rows is None else Usage(rows)

    def source(self, cursor: Any, result: Any) -> object | None:
        """Collect what the server says while the rows come."""
        if result is None:
            return None
        recorder = self.recorder()
        if self.types and recorder is not None and recorder.opened:
            self.forget(id(cursor))  # of a connection's `execute`: one that was there before it
            for span in self.open_spans()[:MOST_LOOKED_AT]:
                known = span.source
                if isinstance(known, Messages) and getrefcount(known.description) == UNSHARED:
                    self.forget(span.key)
        found = Messages(cursor.description)
        return found.add(said) if (said := cursor.messages) else found

    def final(self, source: Any) -> Usage | None:
        """Return what all messages tell."""
        told: Usage | None = source.usage() if source.texts else None
        return told

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """Tell whether the call left a result that can be fetched from."""
        return cursor.description is not None

    def has_further(self, cursor: Any) -> bool | None:
        """Tell, of several results, whether this is one of them and not their end."""
        return cursor.description is not None

    def unread(self, cursor: Any) -> bool | None:
        """Of several statements in one text, results are left until ``nextset`` finds none."""
        recorder = self.recorder()
        span = None if recorder is None else recorder.opened.get(id(cursor))
        if span is None:
            return None
        source = span.source
        if isinstance(source, Messages) and (said := cursor.messages):
            source.add(said)
        if span.statement is not None and has_several_results(span.statement.text):
            return self.has_further(cursor)
        return None
