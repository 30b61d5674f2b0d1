"""The host's working tree against its index: what changed, read only. Never writes either.

Compares stat data as git does (read-cache.c), so that only files that may have changed are read.
"""

from __future__ import annotations

import os
import stat

from sandbox.errors import GitError
from sandbox.git.gitobject import (
    MODE_EXECUTABLE,
    MODE_FILE,
    MODE_SYMLINK,
    MODE_TREE,
    FormatError,
    Tree,
)
from sandbox.git.indexfile import Entry, Index, parse
from sandbox.git.store import Store
from sandbox.git.tracked import Tracked, TrackedTree
from sandbox.repository.repository import Repository


class TrackedIndex:
    """An index as a tree of directories. Directories have no object name (20 zero bytes)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries: Tree = {}
        self._children: dict[bytes, TrackedIndex] = {}
        self._kept: set[bytes] = set()

    def entries(self) -> Tree:
        return self._entries

    def child(self, name: bytes) -> Tracked:
        child = self._children.get(name)
        if child is not None:
            return child
        # A sparse index has one entry for a whole directory, which may exist all the same.
        return TrackedTree(self._store, self._entries[name][1], sparse=True)

    def keeps(self, name: bytes) -> bool:
        return name in self._kept

    def add(self, entry: Entry) -> None:
        """Adds a path; conflicting stages of one path count as one tracked path."""
        here = self
        *directories, name = entry.path.removesuffix(b"/").split(b"/")
        for directory in directories:
            below = here._children.get(directory)
            if below is None:
                below = here._children[directory] = TrackedIndex(self._store)
                here._entries[directory] = (MODE_TREE, bytes(20))
            if entry.skip_worktree:
                here._kept.add(directory)
            here = below
        oid = bytes(20) if entry.intent_to_add else entry.oid
        here._entries[name] = (entry.mode, oid)
        if entry.skip_worktree:
            here._kept.add(name)


def read_index(repo: Repository) -> tuple[Index, os.stat_result | None]:
    """The index of the repository's working tree, and its file's stat data (None: no index).

    Raises:
        GitError: it is damaged, or split in a way that cannot be read.
    """
    path = repo.git_dir / "index"
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            index = parse(file.read())
    except FileNotFoundError:
        return Index([], None), None
    except (OSError, FormatError) as error:
        raise GitError(
            f"the index {path} cannot be read: {error}", hint="try `git status`"
        ) from error
    if index.split is not None:
        raise GitError(
            f"the index {path} is split, which is not supported",
            hint="run `git update-index --no-split-index`",
        )
    return index, status


def _kind(mode: int) -> int:
    if stat.S_ISLNK(mode):
        return MODE_SYMLINK
    return MODE_EXECUTABLE if mode & stat.S_IXUSR else MODE_FILE


class Unchanged:
    """Tells files that are as the index has them, by stat data alone."""

    def __init__(
        self, index: Index, status: os.stat_result | None, *, file_mode: bool, ctime: bool
    ) -> None:
        self._entries = {
            entry.path: entry
            for entry in index.entries
            if not entry.stage and not entry.intent_to_add and not entry.skip_worktree
        }
        self._written_ns = status.st_mtime_ns if status is not None else 0
        self._file_mode = file_mode
        self._ctime = ctime

    def __call__(self, path: bytes, status: os.stat_result) -> tuple[int, bytes] | None:
        entry = self._entries.get(path)
        if entry is None or entry.size != status.st_size & 0xFFFFFFFF:
            return None
        mode = _kind(status.st_mode)
        if mode != entry.mode and not (
            not self._file_mode and {mode, entry.mode} <= {MODE_FILE, MODE_EXECUTABLE}
        ):
            return None
        seconds, nanos = divmod(status.st_mtime_ns, 1_000_000_000)
        if entry.mtime_s != seconds & 0xFFFFFFFF or (entry.mtime_ns and entry.mtime_ns != nanos):
            return None
        # Written in the same moment as the index: its stat data may hide a change ("racy git").
        if entry.mtime_s >= self._written_ns // 1_000_000_000:
            return None
        if self._ctime and entry.ctime_s:
            changed_s, changed_ns = divmod(status.st_ctime_ns, 1_000_000_000)
            if entry.ctime_s != changed_s & 0xFFFFFFFF or (
                entry.ctime_ns and entry.ctime_ns != changed_ns
            ):
                return None
        return entry.mode, entry.oid
