"""Where git objects are read from and written to: object directories, without a repository.

No configuration is read and nothing is executed; only object directories are opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pygit2

from sandbox.errors import GitError
from sandbox.git.gitobject import Kind, Tree, name_object, name_stream, parse_commit, parse_tree
from sandbox.git.pack import PackWriter


def _missing(oid: bytes) -> GitError:
    return GitError(
        f"the repository lacks the git object {oid.hex()}",
        hint="run `git fsck`; in a partial clone, `git fetch --refetch` brings what is missing",
    )


class Store:
    """Reads objects from `sources`, and gathers new ones in one pack for `destination`.

    What was put can be read back at once, and by everybody after `flush`.
    With no destination objects are given their names and go nowhere.
    """

    def __init__(self, sources: Sequence[Path], destination: Path | None = None) -> None:
        self._odb = pygit2.Odb()
        seen: set[Path] = set()
        for path in (*sources, *((destination,) if destination else ())):
            if path not in seen and path.is_dir():
                seen.add(path)
                # Alternates of these directories are followed by libgit2.
                self._odb.add_disk_alternate(str(path))
        self._target: pygit2.Odb | None = None
        self._pack: PackWriter | None = None
        if destination is not None:
            self._pack = PackWriter(destination)
            # What the destination must not rely on: sources that are not its own alternates.
            self._target = pygit2.Odb()
            if destination.is_dir():
                self._target.add_disk_alternate(str(destination))

    def read(self, oid: bytes) -> tuple[Kind, bytes]:
        """The object's type and content.

        Raises:
            GitError: it is not there, or does not match its name.
        """
        if self._pack is not None and oid in self._pack:
            return self._pack.read(oid)
        try:
            kind, data = self._odb.read(oid.hex())
        except (KeyError, pygit2.GitError) as error:
            raise _missing(oid) from error
        return Kind(int(kind)), data

    def read_tree(self, oid: bytes) -> Tree:
        """The entries of a tree (GitError where it is missing or is no tree)."""
        kind, data = self.read(oid)
        if kind is not Kind.TREE:
            raise GitError(f"the git object {oid.hex()} is not a tree", hint="run `git fsck`")
        return parse_tree(data)

    def tree_of(self, commit: bytes) -> bytes:
        """The tree of a commit (GitError where it is missing or is no commit)."""
        kind, data = self.read(commit)
        if kind is not Kind.COMMIT:
            raise GitError(f"the git object {commit.hex()} is not a commit", hint="run `git fsck`")
        return parse_commit(data).tree

    def size(self, oid: bytes) -> int:
        """Size in bytes, without reading the content. Raises GitError where it is missing."""
        try:
            return int(self._odb.read_header(oid.hex())[1])
        except (KeyError, pygit2.GitError) as error:
            raise _missing(oid) from error

    def exists(self, oid: bytes) -> bool:
        """Whether the destination (or its alternates) has the object, or will after `flush`."""
        assert self._pack is not None and self._target is not None
        return oid in self._pack or bool(self._target.exists(oid.hex()))

    def put(self, kind: Kind, data: bytes) -> bytes:
        """Adds an object where it is new. Returns its name."""
        oid = name_object(kind, data)
        if self._pack is not None and not self.exists(oid):
            self._pack.add(kind, data, oid)
        return oid

    def put_stream(self, source: BinaryIO, size: int) -> bytes:
        """Adds a blob of `size` bytes from a file. Returns its name."""
        if self._pack is None:
            return name_stream(source, size)
        return self._pack.add_stream(source, size, self.exists)

    def copy_commit(self, commit: bytes) -> None:
        """Brings a commit and what it needs from the sources into the destination.

        Stops at everything that is there already. Its cost is that of the difference.
        """
        pending = [commit]
        trees: list[bytes] = []
        while pending:
            oid = pending.pop()
            if self.exists(oid):
                continue
            kind, data = self.read(oid)
            parsed = parse_commit(data)
            self.put(kind, data)
            trees.append(parsed.tree)
            pending.extend(parsed.parents)
        while trees:
            oid = trees.pop()
            if self.exists(oid):
                continue
            kind, data = self.read(oid)
            self.put(kind, data)
            for mode, entry in parse_tree(data).values():
                if mode == 0o040000:
                    trees.append(entry)
                elif mode != 0o160000 and not self.exists(entry):
                    self.put(*self.read(entry))

    def mark(self) -> tuple[int, int]:
        """Where the writing stands, for `rollback`."""
        assert self._pack is not None
        return self._pack.mark()

    def rollback(self, mark: tuple[int, int]) -> None:
        """Forgets what was put since `mark`."""
        assert self._pack is not None
        self._pack.rollback(mark)

    def flush(self) -> None:
        """Makes all that was put durable and visible. Raises OSError (disk full, not writable)."""
        assert self._pack is not None
        self._pack.finish()

    def abandon(self) -> None:
        """Drops all that was put and not flushed."""
        if self._pack is not None:
            self._pack.abandon()
