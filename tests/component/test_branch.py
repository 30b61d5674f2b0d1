"""Moving a branch: forward only, and never over what somebody else has done meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.errors import GitError
from sandbox.repository import branch, reference, repository
from tests.gitbox import git, make_repository


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Three commits, each tagged: one ← two ← three; and `side`, which grows from one."""
    made = make_repository(tmp_path / "repo", {"a": "1"})
    git(made, "tag", "one")
    for name in ("two", "three"):
        git(made, "commit", "-q", "--allow-empty", "-m", name)
        git(made, "tag", name)
    git(made, "tag", "side", git(made, "commit-tree", "one^{tree}", "-p", "one", "-m", "side"))
    return made


def advance(top: Path, name: str, to: str) -> branch.Advance:
    return branch.advance(repository.find(top), name, git(top, "rev-parse", to), message="test")


def test_branch_is_made_moved_and_left(top: Path) -> None:
    assert advance(top, "out", "one").old is None
    moved = advance(top, "out", "three")
    assert (moved.old, moved.new) == (git(top, "rev-parse", "one"), git(top, "rev-parse", "three"))
    assert advance(top, "out", "three").old == moved.new
    with pytest.raises(GitError, match="does not grow from"):
        advance(top, "out", "one")
    with pytest.raises(GitError, match="does not grow from"):
        advance(top, "out", "side")
    assert len(git(top, "reflog", "out").splitlines()) == 2


@pytest.mark.parametrize(
    ("meanwhile", "ends"), [("two", "three"), ("three", "three"), ("side", None)]
)
def test_who_moves_it_meanwhile_is_not_undone(
    top: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str, ends: str | None
) -> None:
    """Somebody moves the branch after we have looked at it, and before we hold its lock."""
    git(top, "branch", "out", "one")
    check = branch._check_forward
    moves = [meanwhile]

    def check_and_lose_time(*arguments: object) -> None:
        check(*arguments)  # type: ignore[arg-type]
        if moves:
            git(top, "branch", "-f", "out", moves.pop())

    monkeypatch.setattr(branch, "_check_forward", check_and_lose_time)
    if ends is None:
        with pytest.raises(GitError, match="does not grow from"):
            advance(top, "out", "three")
    else:
        advance(top, "out", "three")
    assert git(top, "rev-parse", "out") == git(top, "rev-parse", ends or meanwhile)


def test_branch_in_the_middle_of_a_rebase_or_a_bisection_is_in_use(top: Path) -> None:
    git(top, "checkout", "-q", "-b", "busy", "one")
    git(top, "checkout", "-q", "--detach")
    repo = repository.find(top)
    assert branch.checked_out(repo, "busy") is None
    (top / ".git/rebase-merge").mkdir()
    (top / ".git/rebase-merge/head-name").write_text("refs/heads/busy\n")
    assert branch.checked_out(repo, "busy") == repo.common_dir
    (top / ".git/rebase-merge/head-name").unlink()
    (top / ".git/BISECT_START").write_text("busy\n")
    with pytest.raises(GitError, match="is checked out in"):
        advance(top, "busy", "three")


def test_refs_go_only_where_other_refs_have_their_commits(top: Path) -> None:
    repo = repository.find(top)
    git(top, "update-ref", "refs/nanosup/s/build", "two")
    git(top, "update-ref", "refs/nanosup/s/ship", git(top, "commit-tree", "HEAD^{tree}", "-m", "x"))
    git(top, "update-ref", "refs/nanosup/other/build", "two")
    git(top, "tag", "blob", git(top, "hash-object", "-w", os.devnull))

    removed, kept = reference.prune(repo, "refs/nanosup/s/")

    assert (removed, kept) == (["refs/nanosup/s/build"], ["refs/nanosup/s/ship"])
    left = git(top, "for-each-ref", "--format=%(refname)", "refs/nanosup").splitlines()
    assert left == ["refs/nanosup/other/build", "refs/nanosup/s/ship"]
    with pytest.raises(GitError, match="refs below refs/nanosup/ only"):
        reference.prune(repo, "refs/heads/")
