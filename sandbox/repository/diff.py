"""What changed between two snapshots, as a patch and as a list.

libgit2 runs neither external diff programs nor textconv.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pygit2
from pygit2.enums import DeltaStatus, DiffFind

from sandbox.errors import GitError
from sandbox.repository.autoload import autoload_reason
from sandbox.repository.repository import Repository


class Change(StrEnum):
    """What happened to a file."""

    ADDED = "added"
    DELETED = "deleted"
    MODIFIED = "modified"
    RENAMED = "renamed"
    COPIED = "copied"
    RETYPED = "retyped"


_CHANGES = {
    DeltaStatus.ADDED: Change.ADDED,
    DeltaStatus.DELETED: Change.DELETED,
    DeltaStatus.RENAMED: Change.RENAMED,
    DeltaStatus.COPIED: Change.COPIED,
    DeltaStatus.TYPECHANGE: Change.RETYPED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file of a difference.

    Attributes:
        path: where it is now (or was, if deleted), from the top of the repository.
        old_path: where it was.
        added, deleted: lines.
        flag: why a tool of the host may act on the file by itself, or None.
    """

    path: str
    old_path: str
    change: Change
    added: int
    deleted: int
    binary: bool
    flag: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A unified patch, as bytes of unknown encoding, and what it touches."""

    patch: bytes
    files: tuple[FileChange, ...]

    @property
    def text(self) -> str:
        """The patch for people; undecodable bytes are shown escaped."""
        return self.patch.decode("utf-8", "backslashreplace")

    @property
    def added(self) -> int:
        return sum(file.added for file in self.files)

    @property
    def deleted(self) -> int:
        return sum(file.deleted for file in self.files)

    @property
    def flagged(self) -> tuple[FileChange, ...]:
        """Files that tools of the host load or run by themselves."""
        return tuple(file for file in self.files if file.flag is not None)


def _tree(handle: pygit2.Repository, oid: str) -> pygit2.Tree:
    try:
        return handle[oid].peel(pygit2.Tree)
    except (KeyError, ValueError, pygit2.GitError) as error:
        raise GitError(f"the repository has no commit or tree {oid}") from error


def diff(
    repo: Repository,
    base: str,
    other: str,
    *,
    object_dirs: tuple[Path, ...] = (),
    context_lines: int = 3,
) -> Difference:
    """The difference from `base` to `other`, commits or trees in hex.

    `object_dirs` are read besides the repository's (nanosup's own).

    Raises:
        GitError: one of them is not there.
    """
    handle = repo.open()
    for path in object_dirs:
        if path.is_dir():
            handle.odb.add_disk_alternate(str(path))
    found = _tree(handle, base).diff_to_tree(_tree(handle, other), context_lines=context_lines)
    found.find_similar(flags=DiffFind.FIND_RENAMES)
    files, patches = [], []
    for patch in found:
        if patch is None:
            continue
        files.append(_describe(patch))
        patches.append(patch.data)
    return Difference(b"".join(patches), tuple(files))


def _describe(patch: pygit2.Patch) -> FileChange:
    delta = patch.delta
    path = os.fsdecode(delta.new_file.raw_path)
    _context, added, deleted = patch.line_stats
    return FileChange(
        path=path,
        old_path=os.fsdecode(delta.old_file.raw_path),
        change=_CHANGES.get(delta.status, Change.MODIFIED),
        added=added,
        deleted=deleted,
        binary=bool(delta.is_binary),
        flag=autoload_reason(path) or autoload_reason(os.fsdecode(delta.old_file.raw_path)),
    )
