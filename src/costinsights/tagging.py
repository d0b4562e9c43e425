"""Tags: what lets a call be found again in the server's own history.

``off``, the default: the server sees what the program sends, byte for byte. ``native``: a connection
made from now on names the job in the system's own channel (PostgreSQL's ``application_name``,
MySQL's ``program_name``), behind the program's own name, or a statement carries asset and job
beside its text where the system has a channel for that (Databricks' query tags, Snowflake's
``QUERY_TAG``, BigQuery's labels); no text changes and nothing more is sent.
``comment``: a statement carries a comment that is constant for one asset and job.

Nothing in a tag varies from call to call: prepared statements, bulk inserts and result caches go by
the text, and a unique one costs a multiple of what it tells.
"""

from __future__ import annotations

from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any, Protocol

from costinsights.attribution import active_scope
from costinsights.orchestrators import present

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costinsights.patching import Probe
    from costinsights.span import CostSpan

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]
    TagInText = Callable[[str | bytes, str], tuple[str | bytes, str] | None]
    """Returns a statement with a tag in it, and the tag as it stands there; None leaves it."""

MARK = "ci"
"""How each tag begins."""
NATIVE_LIMIT = 63
"""Bytes that PostgreSQL keeps of an application name; MySQL keeps more."""
MAX_WORD = 60
MAX_TEXT = 32 * 1024
"""Longer statements, which would have to be copied whole, are left alone."""

# Neither a placeholder of any driver's (% ? : $), nor the end of a comment, a statement or a string.
_SAFE = frozenset(ascii_letters + digits + "_.-")
# These alone are read and forgotten; what a view or a routine is made of would keep the comment.
_OPERATIONS = frozenset(
    ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "VALUES")
)
_KINDS = frozenset(("call", "async", "generator", "async_generator"))
_MAX_KNOWN = 1024


class Tagger(Protocol):
    """One way of tagging."""

    native: bool
    """Whether the hooks on where connections are made are wanted."""

    def __call__(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments that the driver is to get."""
        ...

    def tag(self, span: CostSpan, labels: Mapping[str, str]) -> str | None:
        """Return the tag that the server has seen of this call, for the record."""
        ...


def tagger_for(mode: str, service: str = "") -> Tagger | None:
    """Return what tags in `mode`: None for ``off``, which then costs nothing."""
    if mode == "native":
        return NativeTagger(service)
    return CommentTagger() if mode == "comment" else None


def tag_of(words: Mapping[str, str | None]) -> str | None:
    """Write a tag, ``ci,asset=orders,job=nightly``; None where no word has a value."""
    known = [f"{key}={_safe(value)}" for key, value in words.items() if value]
    return ",".join([MARK, *known]) if known else None


def _safe(value: str) -> str:
    return "".join(
        char if char in _SAFE else "." if char == "/" else "_" for char in value[:MAX_WORD]
    )


def _label(key: str, environment: Mapping[str, str]) -> str | None:
    """Ask the sources that can speak before the statement is read, in their order."""
    found = active_scope().labels.get(key)
    if found is None:
        context = present()
        found = context.labels.get(key) if context is not None else None
    return environment.get(key) if found is None else found


# --- the system's own channel -------------------------------------------------------------------


def native_tag(existing: str | None, limit: int, tag: str = MARK) -> str | None:
    """Return the name that a connection gives: the program's own, and `tag` behind it.

    The program's own name is never cut; `tag` is, to `limit` bytes in UTF-8. None where there is no
    room even for the mark, or where `existing` has a tag already: the name then stays as it is.
    """
    if not existing:
        return tag[:limit].rstrip(",") if limit >= len(MARK) else None
    room = limit - len(existing.encode("utf-8", "replace")) - 1
    if room < len(MARK) or tag_in(existing) is not None:
        return None
    return f"{existing},{tag[:room].rstrip(',')}"


def tag_in(name: str | None) -> str | None:
    """Return the tag that stands in a connection's name, or None."""
    if not name:
        return None
    start = f",{name}".rfind(f",{MARK},")
    if start >= 0:
        return name[start:]
    return MARK if f",{name}".endswith(f",{MARK}") else None


class NativeTagger:
    """Names connections when they are made. A connection outlives an asset, so it names the job."""

    native = True

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Name a new connection; any other call is left alone."""
        instrumentor = probe.instrumentor
        if instrumentor.takes_tag(probe.hook) and probe.recorder is not None:
            words = self._words(probe.recorder.labels)
            tagged = instrumentor.with_tag(args, kwargs, words) if words else None
            if tagged is not None:
                return tagged
        keyword = instrumentor.application
        if probe.hook.kind != "connect" or keyword is None or probe.recorder is None:
            return args, kwargs
        try:
            existing = instrumentor.own_name(args, kwargs)
        except Exception:  # noqa: BLE001  what the driver cannot read it will say itself
            return args, kwargs
        job = _label("job", probe.recorder.labels)
        tag = tag_of({"job": job} if job else {"service": self._service})
        name = native_tag(existing, NATIVE_LIMIT, tag or MARK)
        return (args, kwargs) if name is None else (args, {**kwargs, keyword: name})

    def _words(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Say who a statement is for; the same for all of one asset and job."""
        found = {key: _label(key, labels) for key in ("asset", "job")}
        words = {key: _safe(value) for key, value in found.items() if value}
        return words or ({"service": _safe(self._service)} if self._service else {})

    def tag(self, span: CostSpan, labels: Mapping[str, str]) -> str | None:
        """Return the tag of the statement, or that of its connection, as the server has it."""
        instrumentor = span.probe.instrumentor
        if instrumentor.takes_tag(span.probe.hook) and span.args:
            words = self._words(labels)
            if words and instrumentor.with_tag(span.args, span.kwargs or {}, words) is not None:
                return tag_of(words)
        if instrumentor.application is None or not span.args:
            return None
        try:
            return tag_in(instrumentor.known_as(instrumentor.connection_of(span.args[0])))
        except Exception:  # noqa: BLE001  a connection that is lost no longer says
            return None


# --- a comment in the text ----------------------------------------------------------------------


class CommentTagger:
    """Appends a comment to the statements that can carry one without meaning anything else.

    Where a system has a place of its own for a tag in the text (Synapse's label), it stands there.
    """

    native = False

    def __init__(self) -> None:
        self._known: dict[tuple[TagInText, str | bytes, str], tuple[str | bytes, str] | None] = {}

    def __call__(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments with the tag in the statement, or as they are."""
        if probe.recorder is None or probe.hook.statement is None:
            return args, kwargs
        found = self._tagged(probe, args, kwargs, probe.recorder.labels)
        if found is None:
            return args, kwargs
        position, name = probe.hook.statement
        if len(args) > position:
            return (*args[:position], found[0], *args[position + 1 :]), kwargs
        return args, {**kwargs, name: found[0]}

    def tag(self, span: CostSpan, labels: Mapping[str, str]) -> str | None:
        """Return the tag that the statement was given."""
        found = self._tagged(span.probe, span.args or (), span.kwargs or {}, labels)
        return None if found is None else found[1]

    def _tag(self, labels: Mapping[str, str]) -> str | None:
        """Return the tag of this moment; the scope remembers it."""
        context = present()
        known: dict[object, str | None] = active_scope().resolved
        try:
            return known[self, context]
        except KeyError:
            words = {key: _label(key, labels) for key in ("asset", "job")}
            tag = known[self, context] = tag_of(words)
            return tag

    def _tagged(
        self,
        probe: Probe,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        labels: Mapping[str, str],
    ) -> tuple[str | bytes, str] | None:
        query = _statement(probe, args, kwargs)
        tag = None if query is None else self._tag(labels)
        if query is None or tag is None or len(query) > MAX_TEXT:
            return None
        way = _way(probe, args)
        try:
            return self._known[way, query, tag]
        except KeyError:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            found = self._known[way, query, tag] = way(query, tag)
            return found


def _way(probe: Probe, args: tuple[Any, ...]) -> TagInText:
    """Return how a tag gets into the text of a statement of this connection."""
    if not args:
        return by_comment
    try:
        return probe.instrumentor.tag_in_text(probe.connection_of(args[0])) or by_comment
    except (AttributeError, ReferenceError):  # a cursor that was closed
        return by_comment


def by_comment(query: str | bytes, tag: str) -> tuple[str | bytes, str] | None:
    """Write the tag as a comment."""
    text = with_comment(query, tag)
    return None if text is None else (text, tag)


def _statement(probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | bytes | None:
    """Return the statement of a call that may get a comment, as the program gave it."""
    hook = probe.hook
    if (
        hook.statement is None
        or hook.batch is not None  # drivers rewrite the text of an executemany
        or hook.operation is not None
        or hook.prefix  # the name of a procedure is no statement
        or hook.kind not in _KINDS
    ):
        return None
    position, name = hook.statement
    query = args[position] if len(args) > position else kwargs.get(name)
    # Exactly these: what a subclass means by its text is its own affair.
    return query if query.__class__ is str or query.__class__ is bytes else None


def with_comment(query: str | bytes, tag: str) -> str | bytes | None:
    """Return `query` with the comment behind it; None where it must stay as it is."""
    if isinstance(query, bytes):
        return query + f" /*{tag}*/".encode() if can_carry(query.decode("latin-1")) else None
    return f"{query} /*{tag}*/" if can_carry(query) else None


def can_carry(text: str) -> bool:
    """Tell whether a comment behind `text` is a comment and nothing else, in every dialect.

    Where that is in doubt it is not: several statements or the end of one, another comment, a last
    line that may be one, a quotation that may still be open, a statement that is kept by the server.
    """
    words = text.lstrip(" \t\r\n(")[:32].split(None, 1)
    return (
        bool(words)
        and words[0].upper() in _OPERATIONS
        and ";" not in text
        and "/*" not in text
        and "\0" not in text
        and not any(text.count(quote) % 2 for quote in "'\"`")
        and not any(sign in text[text.rfind("\n") + 1 :] for sign in ("--", "#"))
    )
