"""Dataproc's own channel for tags: the labels of jobs, batches, sessions and workflow templates."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from costinsights.systems.gcp_dataproc import got, table_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

MOST_LABELS = 32
LONGEST_LABEL = 63


def labels_of(existing: Mapping[str, str], words: Mapping[str, str]) -> dict[str, str] | None:
    """Return the program's labels and ours; None where there is no room.

    Keys and values as RFC 1035 has them, which is what Dataproc's API asks for: lower case letters,
    digits and hyphens, a letter first, 63 at most; 32 labels.
    """
    found = dict(existing)
    for key, value in words.items():
        text = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")
        if text and not text[0].isalpha():
            text = f"x-{text}"
        if text:
            found.setdefault(f"costinsights-{key}", text[:LONGEST_LABEL].rstrip("-"))
    return found if len(found) <= MOST_LABELS else None


def labelled(
    holder: str, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
) -> Arguments | None:
    """Return a start's arguments with labels in its ``job``, ``batch``, ``session`` or ``template``.

    What the program gave is copied before it is changed.
    """
    positional = len(args) > 1
    request = args[1] if positional else kwargs.get("request")
    thing = got(kwargs if request is None else request, holder)
    labels = labels_of(got(thing, "labels") or {}, words)
    if thing is None or labels is None:
        return None
    if request is None:
        return args, {**kwargs, holder: _with(thing, labels)}
    table = table_of(request)
    if table is not None:
        changed: Any = {**table, holder: _with(thing, labels)}
    else:
        changed = _copy(request)
        getattr(changed, holder).labels.update(labels)
    if positional:
        return (args[0], changed, *args[2:]), kwargs
    return args, {**kwargs, "request": changed}


def _with(thing: Any, labels: dict[str, str]) -> Any:
    table = table_of(thing)
    if table is not None:
        return {**table, "labels": labels}
    changed = _copy(thing)
    changed.labels.update(labels)
    return changed


def _copy(message: Any) -> Any:
    """Return a copy of a message: one of the library's is made of the other."""
    kind = message.__class__
    return kind(message) if hasattr(kind, "pb") else deepcopy(message)
