"""Attribution that tools leave in the comments of a statement.

Two kinds are understood: dbt's JSON object (before or behind the statement, in either kind of
comment) and sqlcommenter's list of ``key='value'`` pairs, as Django, Rails and OpenTelemetry
write it. Only the keys listed here are taken, so that a comment cannot bring personal data or a
secret along: whatever else is in it is dropped with it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_COMMENT = 8192
"""Characters of a comment that are looked at."""

LONGEST_VALUE = 256
MOST_KEYS = 16

# What a comment may say of who a statement is for, under our own names.
_ATTRIBUTION = ("asset", "partition", "job", "run", "team")

# dbt's name -> the label it becomes.
_DBT_LABELS = {
    "node_id": "dbt.node_id",
    "invocation_id": "dbt.invocation_id",
    "target_name": "dbt.target",
}
_DBT_ATTRIBUTION = ("job", "run", "team", "partition")

# Keys that sqlcommenter's integrations are known for.
_LABELS = frozenset(
    "action application controller db_driver driver framework handler job_name route service"
    " service_name source".split()
)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_PAIR = r"[\w%.\-]+\s*=\s*'(?:[^'\\]|\\.)*'"
_PAIRS = re.compile(rf"\s*{_PAIR}(?:\s*,\s*{_PAIR})*\s*,?\s*")
_EACH_PAIR = re.compile(r"([\w%.\-]+)\s*=\s*'((?:[^'\\]|\\.)*)'")


def attribution(comments: Iterable[str]) -> dict[str, str] | None:
    """What the comments say of who the statement is for; None if they say nothing.

    ``comments`` are whole comments with their signs. dbt's word counts before sqlcommenter's, and
    an earlier comment before a later one. The result has at most 16 keys, the values at most 256
    characters each, and ``rule`` says which of the two it was.
    """
    pairs: dict[str, str] | None = None
    for comment in comments:
        body = _body(comment)
        if "{" in body and ("dbt" in body or "node_id" in body):
            found = _dbt(body)
            if found:
                return found
        elif "='" in body and pairs is None:
            pairs = _sqlcommenter(body)
    return pairs


def last_comment(text: str) -> str | None:
    """The comment that ends the text, found from its end: for a text too long to be read."""
    tail = text[-LONGEST_COMMENT:].rstrip("; \t\r\n")
    if tail.endswith("*/"):
        start = tail.rfind("/*")
        return tail[start:] if start >= 0 else None
    line = tail[tail.rfind("\n") + 1 :].lstrip()
    return line if line.startswith("--") else None


def _body(comment: str) -> str:
    if comment.startswith("/*"):
        return comment[2 : 2 + LONGEST_COMMENT].removesuffix("*/").strip(" *\n\r\t")
    return comment.lstrip("-#/")[:LONGEST_COMMENT]


def _clean(value: object) -> str:
    """A value as it may be stored: printable, of bounded length; empty if it is not a text."""
    if not isinstance(value, str):
        return ""
    return "".join(filter(str.isprintable, value[: 2 * LONGEST_VALUE]))[:LONGEST_VALUE].strip()


def _dbt(body: str) -> dict[str, str] | None:
    import json

    try:
        # Reads one object and does not mind what follows it.
        read: object = json.JSONDecoder().raw_decode(body, body.index("{"))[0]
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, dict):
        return None
    fields = cast("dict[str, object]", read)
    node = _clean(fields.get("node_id"))
    if not node and fields.get("app") != "dbt":
        return None
    found = {"rule": "dbt"}
    if node:
        found["asset"] = asset_of(node)
    for key in _DBT_ATTRIBUTION:
        if value := _clean(fields.get(key)):
            found[key] = value
    for key, label in _DBT_LABELS.items():
        if value := _clean(fields.get(key)):
            found[label] = value
    return found


def asset_of(node: str) -> str:
    """Return what a node of dbt's is called: ``model.project.orders`` -> ``orders``.

    A source keeps its schema, a unit test its model, and a test loses its hash.
    """
    parts = node.split(".")
    if len(parts) < 3:
        return node
    return ".".join(parts[2:]) if parts[0] in ("source", "unit_test") else parts[2]


def _sqlcommenter(body: str) -> dict[str, str] | None:
    if not _PAIRS.fullmatch(body):
        return None
    found: dict[str, str] = {}
    for key, value in _EACH_PAIR.findall(body):
        name, content = _clean(_decode(key)), _clean(_decode(value))
        known = name in _ATTRIBUTION or name in _LABELS
        if name == "traceparent":
            known = _TRACEPARENT.fullmatch(content) is not None
        if known and content and len(found) < MOST_KEYS - 1:
            found.setdefault(name, content)
    if found:
        found["rule"] = "sqlcommenter"
    return found or None


def _decode(text: str) -> str:
    """Undo sqlcommenter's escapes; drivers of the pyformat kind have their '%' doubled."""
    text = re.sub(r"\\(.)", r"\1", text)
    if "%" in text:
        from urllib.parse import unquote

        text = unquote(text.replace("%%", "%"))
    return text
