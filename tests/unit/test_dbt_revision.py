"""Branch and commit of a dbt project: as real git leaves them, and as CI says them."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from costinsights.dbt.revision import Revision, revision
from tests.backends import unavailable

if TYPE_CHECKING:
    from pathlib import Path

GIT = shutil.which("git")
if GIT is None:
    unavailable("git", "it is not on the path")


def git(folder: Path, *words: str) -> str:
    """Run git, with nobody's configuration."""
    who = ("-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main")
    nobodys = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *who, *words],
        cwd=folder,
        env=nobodys,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a commit on ``feature/costs``."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    git(folder, "checkout", "--quiet", "-b", "feature/costs")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "first")
    return folder


def test_a_work_tree_and_a_folder_in_it(repository: Path) -> None:
    below = repository / "warehouse" / "shop"
    below.mkdir(parents=True)
    commit = git(repository, "rev-parse", "HEAD")
    assert revision(str(repository), {}) == Revision("feature/costs", commit)
    assert revision(str(below), {}) == Revision("feature/costs", commit)


def test_packed_references(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "pack-refs", "--all")
    assert not (repository / ".git" / "refs" / "heads" / "feature" / "costs").exists()
    assert revision(str(repository), {}) == Revision("feature/costs", commit)


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "--quiet", "--detach")
    assert revision(str(repository), {}) == Revision(None, commit)


def test_a_further_work_tree(repository: Path, tmp_path: Path) -> None:
    further = tmp_path / "further"
    git(repository, "worktree", "add", "--quiet", "-b", "other", str(further))
    git(further, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert revision(str(further), {}) == Revision("other", git(further, "rev-parse", "HEAD"))
    assert git(further, "rev-parse", "HEAD") != git(repository, "rev-parse", "HEAD")


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert revision(str(tmp_path), {}) == Revision("main", None)


@pytest.mark.parametrize("head", ["", "ref:", "no commit", "\N{SNOWMAN}" * 3000, "\x00"])
def test_a_head_that_says_nothing(tmp_path: Path, head: str) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(head)
    assert revision(str(tmp_path), {}).commit is None


def test_ci_knows_better(repository: Path) -> None:
    here = {"GITHUB_REF_NAME": "12/merge", "GITHUB_SHA": "a" * 40}
    assert revision(str(repository), here) == Revision("12/merge", "a" * 40)
    pull_request = {**here, "GITHUB_HEAD_REF": "feature/pr"}
    assert revision(str(repository), pull_request) == Revision("feature/pr", "a" * 40)
    azure = {"BUILD_SOURCEBRANCH": "refs/heads/release/1", "BUILD_SOURCEVERSION": "b" * 40}
    assert revision(str(repository), azure) == Revision("release/1", "b" * 40)
    commit = git(repository, "rev-parse", "HEAD")
    assert revision(str(repository), {"CI_COMMIT_REF_NAME": "x"}) == Revision("x", commit)


def test_no_repository(tmp_path: Path) -> None:
    assert revision(str(tmp_path / "nowhere"), {}) == Revision()
