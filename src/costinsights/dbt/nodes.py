"""What dbt's nodes say of themselves, as labels.

Read are the node's own facts and its ``meta``: never variables, profiles, or an address by which a
person could be written to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from costinsights.attribution import MAX_VALUE
from costinsights.comments import asset_of

if TYPE_CHECKING:
    from collections.abc import Iterable

OURS = "costinsights"
"""The key of ``meta`` whose value is a mapping of labels."""

_MODEL = "model"
_PREFIX = "dbt."
# What says which run this is, and is not the project's to say.
_NOT_THEIRS = ("rule", "run")


def labels_of(node: Any, manifest: Any) -> dict[str, object]:
    """Return the labels of the node, which is one of dbt's own objects, in the project `manifest`.

    What a model says of owner and team, its tests say as well.
    """
    unique_id = str(node.unique_id)
    kind = _text(getattr(node, "resource_type", None))
    # Of a test it says "test", and of a hook "view", which it is not.
    materialized = getattr(_config(node), "materialized", None) if kind == _MODEL else None
    found: dict[str, object] = {
        "asset": asset_of(unique_id),
        "dbt.node_id": unique_id,
        "dbt.resource_type": kind,
        "dbt.materialized": _text(materialized),
        "dbt.tags": joined(getattr(node, "tags", None) or ()),
    }
    owner, team = _belongs(node, manifest)
    if owner is None and team is None:
        tested = _in(getattr(manifest, "nodes", None), _tested(node))
        if tested is not None:
            owner, team = _belongs(tested, manifest)
    found["dbt.owner"] = owner
    found["team"] = team or owner
    for key, value in _mapping(_meta(node).get(OURS)).items():
        # A list or a mapping is no label, and what is ours to say is not theirs.
        if isinstance(value, (str, int, float)) and not _is_ours(str(key)):
            found[str(key)] = value
    return found


def is_node(thing: object) -> bool:
    """Tell whether dbt works for a node, and not for itself."""
    return isinstance(getattr(thing, "unique_id", None), str)


def joined(tags: Iterable[object]) -> str | None:
    """Return tags in order, as many whole ones as a label has room for."""
    text = ""
    for tag in sorted({str(tag) for tag in tags if isinstance(tag, str) and tag}):
        longer = f"{text},{tag}" if text else tag
        if len(longer) <= MAX_VALUE:
            text = longer
    return text or None


def _belongs(node: Any, manifest: Any) -> tuple[str | None, str | None]:
    """Return owner and team: as ``meta`` says it, else as the node's group does."""
    meta = _meta(node)
    name = _text(getattr(node, "group", None) or getattr(_config(node), "group", None))
    group = _group(manifest, name)
    owner = _name(meta.get("owner")) or _name(getattr(group, "owner", None))
    return owner, _name(meta.get("team")) or name


def _tested(node: Any) -> object:
    """Return the id of the model that a test is about, where it is about one."""
    if _text(getattr(node, "resource_type", None)) == "unit_test":
        return next(iter(getattr(getattr(node, "depends_on", None), "nodes", ())), None)
    return getattr(node, "attached_node", None)


def _group(manifest: Any, name: str | None) -> Any:
    if name is None:
        return None
    groups = _mapping(getattr(manifest, "groups", None))
    return next((group for group in groups.values() if getattr(group, "name", "") == name), None)


def _name(owner: Any) -> str | None:
    """Return what an owner is called; somebody's address is nobody's name."""
    if isinstance(owner, Mapping):
        owner = cast("Mapping[str, object]", owner).get("name")
    elif not isinstance(owner, str):
        owner = getattr(owner, "name", None)
    name = _text(owner)
    return None if name is None or "@" in name else name


def _meta(node: Any) -> Mapping[str, object]:
    # Since dbt 1.10 it belongs to the configuration; before, it stood on the node as well.
    return _mapping(getattr(_config(node), "meta", None)) or _mapping(getattr(node, "meta", None))


def _config(node: Any) -> Any:
    return getattr(node, "config", None)


def _in(nodes: Any, unique_id: object) -> Any:
    return _mapping(nodes).get(unique_id) if isinstance(unique_id, str) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    # dbt's kinds of nodes are an enumeration of texts.
    return str(getattr(value, "value", value)).strip() or None if isinstance(value, str) else None


def _is_ours(key: str) -> bool:
    return key.startswith(_PREFIX) or key in _NOT_THEIRS
