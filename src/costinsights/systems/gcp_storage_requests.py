"""Which method of Cloud Storage a request is, by its HTTP method and address: for who sees requests.

Paths: cloud.google.com/storage/docs/json_api/v1 and …/xml-api/reference-methods. What is billed of
them: cloud.google.com/storage/pricing, "Operation charges": an answer of 307, 4xx or 5xx is not; a
resumable upload and a rewrite are one operation, however many requests they take; a bucket's
operations are of its default class, an object's of its own, lists of buckets are Standard's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costinsights.systems.gcp_storage import operation_class

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costinsights.systems.gcp_storage import OperationClass

_COLLECTION = {"GET": "list", "POST": "insert"}
_ITEM = {"GET": "get", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
_ACTIONS: Mapping[str, str] = {
    "bulkRestore": "bulkRestore",
    "compose": "compose",
    "copyTo": "copy",
    "lockRetentionPolicy": "lockRetentionPolicy",
    "moveTo": "move",
    "renameTo": "rename",
    "restore": "restore",
    "rewriteTo": "rewrite",
    "watch": "watchAll",
}
"""What a POST to a resource does, by the next part of its path."""
_BELOW: Mapping[str, str] = {
    "acl": "AccessControls",
    "anywhereCaches": "anywhereCaches",
    "defaultObjectAcl": "defaultObjectAccessControls",
    "folders": "folders",
    "managedFolders": "managedFolders",
    "notificationConfigs": "notifications",
}
_XML = {"POST": "xml.post", "PUT": "xml.put", "GET": "xml.get", "HEAD": "xml.get"}
RESUMES = 308
REDIRECT = 307
FAILS = 400
"""From this status on, an answer is an error, and free."""


class Called(NamedTuple):
    """What a request is."""

    name: str
    """The method: ``objects.insert``; of the XML API, which has no names, ``xml.put``."""
    bucket: str | None = None
    """That of the destination, where there are two."""
    of_object: bool = False
    """Whether it is about one object, so that the object's class counts and not the bucket's."""
    media: bool = False
    """Whether the answer is an object's content."""
    begins: bool = False
    """Whether it only opens a resumable upload, which is billed once it is done."""

    @property
    def letter(self) -> OperationClass | None:
        """Return the class that it is billed as."""
        if self.name.startswith("xml."):
            return {"xml.get": "B", "xml.delete": "free"}.get(self.name, "A")  # type: ignore[return-value]  # of a table of these words
        return operation_class(self.name)

    def billed(self, status: int) -> bool:
        """Tell whether a request that was answered so is billed."""
        return status < FAILS and status not in (REDIRECT, RESUMES) and not self.begins


def called(method: str, path: str, query: Mapping[str, str]) -> Called | None:
    """Return what a request is; None for one that is none of Cloud Storage's."""
    before, found, rest = path.partition("/storage/v1/")
    if found:
        parts = rest.strip("/").split("/")
        if len(parts) > 1:
            parts[1] = _plain(parts[1])
        if before.endswith("/upload") and len(parts) > 2 and parts[0] == "b":
            return _upload(method, parts[1], query)
        if before.endswith("/batch"):
            return None
        return _json(method, parts, media=query.get("alt") == "media")
    if "uploads" in query or "uploadId" in query:  # the one use that Google's client has for XML
        bucket = _plain(path.strip("/").partition("/")[0])
        name = "xml.delete" if method == "DELETE" else _XML.get(method)
        return None if name is None else Called(name, bucket, of_object=True)
    return None


def _plain(part: str) -> str:
    """Return a part of a path without its escapes."""
    if "%" not in part:
        return part
    from urllib.parse import unquote

    return unquote(part)


def is_batch(path: str) -> bool:
    """Tell whether a request carries others, each an operation of its own."""
    return path.endswith("/batch/storage/v1")


def _upload(method: str, bucket: str, query: Mapping[str, str]) -> Called:
    if method == "DELETE":
        return Called("objects.delete", bucket, of_object=True)  # gives a resumable upload up
    opens = query.get("uploadType") == "resumable" and "upload_id" not in query
    return Called("objects.insert", bucket, of_object=True, begins=opens)


def _json(method: str, parts: list[str], *, media: bool) -> Called | None:
    first, number = parts[0], len(parts)
    if first == "channels":
        return Called("channels.stop")
    if first == "projects":
        kind = parts[2] if number > 2 else ""
        verb = (_ITEM if number > 3 else _COLLECTION).get(method)
        if kind == "hmacKeys" and verb == "insert":
            verb = "create"
        return None if verb is None else Called(f"{kind}.{verb}")
    if first != "b":
        return None
    if number <= 2:
        verb = (_COLLECTION if number == 1 else _ITEM).get(method)
        return (
            None if verb is None else Called(f"buckets.{verb}", None if number == 1 else parts[1])
        )
    bucket = parts[1]
    if parts[2] != "o":
        return _below("buckets", bucket, method, parts[2:], of_object=False)
    if number <= 4:
        verb = (_COLLECTION if number == 3 else _ITEM).get(method)
        if number == 4 and method == "POST":
            verb = _ACTIONS.get(parts[3])
        if verb is None:
            return None
        about = number == 4 or verb == "insert"
        return Called(f"objects.{verb}", bucket, about, media and verb == "get")
    if parts[4] in ("rewriteTo", "copyTo") and number > 6:
        bucket = _plain(parts[6])
    return _below("objects", bucket, method, parts[4:], of_object=True)


def _below(
    kind: str, bucket: str, method: str, parts: list[str], *, of_object: bool
) -> Called | None:
    """Return what a request to something of a bucket or an object is."""
    first = parts[0]
    if first == "iam":
        verb = "testIamPermissions" if len(parts) > 1 else None
        verb = verb or {"GET": "getIamPolicy", "PUT": "setIamPolicy"}.get(method)
        return None if verb is None else Called(f"{kind}.{verb}", bucket, of_object)
    if first == "storageLayout":
        return Called("buckets.getStorageLayout", bucket)
    if first in _BELOW:
        if method == "POST" and parts[-2:-1] and parts[-2] in _ACTIONS:
            verb = _ACTIONS[parts[-2]]
        else:
            verb = (_COLLECTION if len(parts) == 1 else _ITEM).get(method)
        name = _BELOW[first]
        if first == "acl":
            name = f"{kind.removesuffix('s')}{name}"
        return None if verb is None else Called(f"{name}.{verb}", bucket, of_object)
    verb = _ACTIONS.get(first) if method == "POST" else None
    return None if verb is None else Called(f"{kind}.{verb}", bucket, of_object)
