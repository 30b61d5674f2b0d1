"""Moves a branch of the user's forward to a commit, as `git branch` would, and runs no hook.

Only a branch that no working tree has checked out is moved: its files would stay behind, and the
next commit there would undo the move without a word.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pygit2

from sandbox.errors import GitError
from sandbox.repository.gitdir import identity
from sandbox.repository.reference import give_to_owner, resolve
from sandbox.repository.repository import Repository

HEADS = "refs/heads/"
_LOCK_S = 2.0
_LOCK_STEP_S = 0.01


@dataclass(frozen=True, slots=True)
class Advance:
    """How a branch was moved.

    Attributes:
        old: where it was, in hex; None where there was none of this name.
        new: where it is.
    """

    ref: str
    old: str | None
    new: str


def advance(repo: Repository, branch: str, commit: str, *, message: str) -> Advance:
    """Makes a branch at `commit`, or fast-forwards it there. Nothing happens if it is there.

    Git's own lock and a look under it decide, so whoever moves the branch meanwhile is not undone.

    Args:
        message: for the reflog.

    Raises:
        GitError: it cannot be the name of a branch, a working tree has it checked out, it has
            commits that `commit` has not, its lock is held, or the repository cannot be written.
    """
    ref = HEADS + branch
    if branch == "HEAD" or branch.startswith("-") or not pygit2.reference_is_valid_name(ref):
        raise GitError(
            f"{branch!r} cannot be the name of a branch", hint="see git-check-ref-format"
        )
    handle = repo.open()
    handle.set_ident(*identity(repo))  # who the reflog says it was
    deadline = time.monotonic() + _LOCK_S
    while True:
        old = resolve(repo, ref)
        if old == commit:
            return Advance(ref, old, commit)
        _check_free(repo, branch)
        _check_forward(handle, branch, old, commit)
        try:
            if _set(repo, handle, ref, commit, old, message):
                give_to_owner(repo, ref)
                return Advance(ref, old, commit)
        except (KeyError, ValueError, OSError, pygit2.GitError) as error:
            lock = repo.common_dir / f"{ref}.lock"
            if not lock.exists() and not _is_lock(error):
                raise GitError(f"the branch {branch} cannot be set: {error}") from error
            if time.monotonic() > deadline:
                raise GitError(
                    f"the branch {branch} is locked: {lock} is there",
                    hint="another git moves it; remove the file if none runs",
                ) from error
            time.sleep(
                _LOCK_STEP_S
            )  # git too waits for the lock of a ref (core.filesRefLockTimeout)


def checked_out(repo: Repository, branch: str) -> Path | None:
    """The git directory of a working tree that is on a branch, or in the middle of something
    that will come back to it; None where there is none."""
    for git_dir in _git_dirs(repo):
        if _text(git_dir / "HEAD") == f"ref: {HEADS}{branch}":
            return git_dir
        for state in ("rebase-merge/head-name", "rebase-apply/head-name"):
            if _text(git_dir / state) == f"{HEADS}{branch}":
                return git_dir
        if _text(git_dir / "BISECT_START") == branch:
            return git_dir
    return None


def _git_dirs(repo: Repository) -> Iterator[Path]:
    yield repo.common_dir
    try:
        linked = sorted((repo.common_dir / "worktrees").iterdir())
    except OSError:
        return
    yield from linked


def _text(path: Path) -> str:
    try:
        return os.fsdecode(path.read_bytes()).strip()
    except OSError:
        return ""


def _check_free(repo: Repository, branch: str) -> None:
    where = checked_out(repo, branch)
    if where is not None:
        linked = _text(where / "gitdir")  # gitrepository-layout(5)
        tree = Path(linked).parent if linked else where.parent
        raise GitError(
            f"the branch {branch} is checked out in {tree}: its files would stay behind",
            hint="merge the commit there with git, or name another branch",
        )


def _check_forward(handle: pygit2.Repository, branch: str, old: str | None, commit: str) -> None:
    try:
        forward = old is None or handle.descendant_of(commit, old)
    except (KeyError, ValueError, pygit2.GitError) as error:
        raise GitError(f"the history of {branch} cannot be read: {error}") from error
    if not forward:
        raise GitError(
            f"the branch {branch} is at {str(old)[:10]}, which {commit[:10]} does not grow from",
            hint="name another branch, or merge with git",
        )


def _set(
    repo: Repository,
    handle: pygit2.Repository,
    ref: str,
    commit: str,
    old: str | None,
    message: str,
) -> bool:
    """False if the ref is no longer at `old`."""
    with handle.transaction() as transaction:
        transaction.lock_ref(ref)
        # Read under the lock, so that nobody comes between.
        if resolve(repo, ref) != old:
            return False
        transaction.set_target(ref, pygit2.Oid(hex=commit), message=message)
    return True


def _is_lock(error: Exception) -> bool:
    return "lock" in str(error).lower()
