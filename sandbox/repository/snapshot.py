"""Records the working tree as a commit, without touching it, the index, refs or hooks."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

import pygit2

from sandbox.errors import GitError
from sandbox.git.gitobject import FormatError, Kind, build_commit
from sandbox.git.store import Store
from sandbox.repository.fold import Fold
from sandbox.repository.gitdir import identity
from sandbox.repository.note import Notes
from sandbox.repository.repository import Repository
from sandbox.repository.setting import read_setting
from sandbox.repository.worktree import TrackedIndex, Unchanged, read_index
from sandbox.union.strata import open_worktree


class Mode(StrEnum):
    """What a snapshot is of."""

    COMMIT = "commit"  # HEAD
    WORKTREE = "worktree"  # what `git add -A` would make of the working tree


def snapshot(repo: Repository, mode: Mode | str, object_dir: Path) -> tuple[str, str]:
    """Returns (commit, tree), in hex.

    In worktree mode tracked changes and untracked files that are not ignored become a tree and a
    commit on HEAD, whose objects go into `object_dir`, with the repository as its alternate. The
    same working tree on the same HEAD gives the same commit. Where nothing is dirty it is HEAD.
    Submodules stay at the commit that the index has.

    Raises:
        GitError: the index is damaged, or the objects cannot be written.
    """
    if Mode(mode) is Mode.COMMIT:
        return repo.commit, repo.tree
    _prepare(repo, object_dir)
    store = Store(repo.object_dirs, object_dir)
    try:
        tree = _record(repo, store)
        if tree.hex() == repo.tree:
            return repo.commit, repo.tree
        name, mail = identity(repo)
        data = build_commit(
            tree=tree,
            parents=(bytes.fromhex(repo.commit),),
            author=f"{name} <{mail}>",
            # Not the present: a snapshot is a function of what it is of.
            when_s=repo.open()[repo.commit].peel(pygit2.Commit).commit_time,
            message=f"Working tree on {repo.commit[:12]}",
        )
        commit = store.put(Kind.COMMIT, data)
        store.flush()
    except (OSError, FormatError) as error:
        raise GitError(f"the working tree cannot be recorded: {error}") from error
    finally:
        store.abandon()
    return commit.hex(), tree.hex()


def dirty(repo: Repository) -> bool:
    """Whether a snapshot of the working tree would differ from HEAD. Writes nothing."""
    return _record(repo, Store(repo.object_dirs, None)).hex() != repo.tree


def _record(repo: Repository, store: Store) -> bytes:
    setting = read_setting(repo)
    index, status = read_index(repo)
    tracked = TrackedIndex(store)
    for entry in index.entries:
        tracked.add(entry)
    try:
        ctime = bool(repo.open().config.get_bool("core.trustctime"))
    except (KeyError, ValueError, pygit2.GitError):
        ctime = True
    fold = Fold(
        store,
        setting,
        notes=Notes(),
        reuse=Unchanged(index, status, file_mode=setting.file_mode, ctime=ctime),
        top_git=True,
    )
    with open_worktree(repo.root) as level:
        return fold.run(level, None, tracked)


def _prepare(repo: Repository, object_dir: Path) -> None:
    """Makes an object directory that any git can read, with the repository's as its alternate."""
    try:
        (object_dir / "info").mkdir(parents=True, exist_ok=True)
        (object_dir / "pack").mkdir(exist_ok=True)
        alternates = object_dir / "info/alternates"
        wanted = os.fsencode(repo.objects) + b"\n"
        if not alternates.exists() or alternates.read_bytes() != wanted:
            alternates.write_bytes(wanted)
    except OSError as error:
        raise GitError(f"{object_dir} cannot be written: {error}") from error
