"""Which branch and commit of the project is run: as CI says it, else as git's own files do.

git itself is never started. What cannot be told is left out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The branch of a pull request stands before the branch that it is built on.
BRANCHES = (
    "GITHUB_HEAD_REF",
    "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME",
    "SYSTEM_PULLREQUEST_SOURCEBRANCH",
    "TRAVIS_PULL_REQUEST_BRANCH",
    "CHANGE_BRANCH",
    "DAGSTER_CLOUD_GIT_BRANCH",
    "DBT_CLOUD_GIT_BRANCH",
    "GITHUB_REF_NAME",
    "CI_COMMIT_REF_NAME",
    "BUILD_SOURCEBRANCH",
    "BUILDKITE_BRANCH",
    "CIRCLE_BRANCH",
    "BITBUCKET_BRANCH",
    "TRAVIS_BRANCH",
    "BRANCH_NAME",
    "GIT_BRANCH",
)
COMMITS = (
    "CI_COMMIT_SHA",
    "DAGSTER_CLOUD_GIT_SHA",
    "DBT_CLOUD_GIT_SHA",
    "GITHUB_SHA",
    "BUILD_SOURCEVERSION",
    "BUILDKITE_COMMIT",
    "CIRCLE_SHA1",
    "BITBUCKET_COMMIT",
    "TRAVIS_COMMIT",
    "GIT_COMMIT",
)
_HEADS = "refs/heads/"
_HEX = frozenset("0123456789abcdef")
_LONGEST = 64 * 1024 * 1024
"""Bytes of a list of packed references that are read."""


class Revision(NamedTuple):
    """A branch and a commit; None where it is not known, as the branch of a detached head."""

    branch: str | None = None
    commit: str | None = None


def revision(folder: str, environment: Mapping[str, str]) -> Revision:
    """Return what is checked out in `folder`, or above it."""
    branch = _first(environment, BRANCHES)
    commit = _first(environment, COMMITS)
    if branch is None or commit is None:
        found = _checked_out(folder)
        branch, commit = branch or found.branch, commit or found.commit
    return Revision(branch, commit)


def _first(environment: Mapping[str, str], names: Sequence[str]) -> str | None:
    for name in names:
        if value := environment.get(name, "").strip():
            return value.removeprefix(_HEADS)
    return None


def _checked_out(folder: str) -> Revision:
    git = _git(os.path.abspath(folder))
    head = _line(git, "HEAD") if git is not None else None
    if git is None or head is None:
        return Revision()
    if not head.startswith("ref:"):
        return Revision(None, _commit(head))
    name = head[4:].strip()
    # A further work tree has a head of its own, and its references where the others' are.
    shared = os.path.join(git, _line(git, "commondir") or "")
    commit = _commit(_line(git, name)) or _commit(_line(shared, name)) or _packed(shared, name)
    return Revision(name.removeprefix(_HEADS), commit)


def _git(folder: str) -> str | None:
    """Return git's own folder of the work tree that `folder` is in."""
    while True:
        place = os.path.join(folder, ".git")
        if os.path.isdir(place):
            return place
        # A further work tree and a submodule have a file there, which says where the folder is.
        said = _line(folder, ".git")
        if said is not None and said.startswith("gitdir:"):
            return os.path.join(folder, said[7:].strip())
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def _line(folder: str, name: str) -> str | None:
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return file.readline(4096).strip() or None
    except (OSError, ValueError):
        return None


def _packed(folder: str, name: str) -> str | None:
    try:
        with open(os.path.join(folder, "packed-refs"), encoding="utf-8") as file:
            for line in file.read(_LONGEST).splitlines():
                commit, _, reference = line.partition(" ")
                if reference == name:
                    return _commit(commit)
    except (OSError, ValueError):
        pass
    return None


def _commit(text: str | None) -> str | None:
    return text if text is not None and len(text) >= 40 and set(text) <= _HEX else None
