"""The base git tree, read straight from the object store: no checkout, nothing written.

Bytes are given as the repository stores them; `sandbox.git.smudge` knows what a checkout makes of
them.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pygit2

from sandbox.errors import GitError
from sandbox.git.packed import Packs
from sandbox.syscalls import MADV_DONTNEED, madvise

# gitformat(5) modes of tree entries
S_IFTREE = 0o040000
S_IFGITLINK = 0o160000

_TREE_TYPE = 2

# libgit2 maps whole packs, and a walk of the tree touches all of their pages in the end. Smaller
# windows (GIT_OPT_SET_MWINDOW_SIZE) made reading headers five times slower.
_MAPPED_PAGES = (40 << 20) // mmap.PAGESIZE
_READS_BETWEEN = 256


class GitTree:
    """An object store with one tree in it.

    An `Odb` alone is opened, not a `Repository`: it follows `info/alternates`, and neither reads
    configuration nor refuses directories of another owner.
    """

    __slots__ = ("_odb", "_oid_size", "_packs", "_unwatched", "root")

    def __init__(self, git_dir: str, tree: str, object_dirs: Sequence[str] = ()) -> None:
        """Opens the store. Raises GitError if `tree` is not the id of a tree in it."""
        # Objects were checked when they were fetched or packed; hashing each again on every
        # read costs more than inflating it. Caching would keep a second copy of what the
        # kernel's page cache already has.
        pygit2.settings.enable_strict_hash_verification(False)
        pygit2.settings.enable_caching(False)
        self._odb = pygit2.Odb(os.path.join(git_dir, "objects"))
        for directory in object_dirs:
            self._odb.add_disk_alternate(directory)
        self._unwatched = 0
        self.root = bytes.fromhex(tree)
        self._oid_size = len(self.root)
        directories = (os.path.join(git_dir, "objects"), *object_dirs)
        self._packs = Packs(map(Path, directories), self._oid_size)
        try:
            kind, _size = self._odb.read_header(pygit2.Oid(raw=self.root))
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise GitError(
                f"tree {tree} is not in the object store of {git_dir}",
                hint="check that the base snapshot was recorded, and that no prune removed it",
            ) from error
        if kind != _TREE_TYPE:
            raise GitError(f"object {tree} is not a tree")

    def entries(self, oid: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        """Yields (mode, name, object id) of each entry. Raises OSError (EIO) if it is gone."""
        return self.parse(self.read(oid))

    def parse(self, data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        """Yields (mode, name, object id) of each entry of a tree with this content."""
        size = self._oid_size
        at, end = 0, len(data)
        while at < end:
            space = data.index(b" ", at)
            nul = data.index(b"\0", space)
            after = nul + 1 + size
            yield int(data[at:space], 8), data[space + 1 : nul], data[nul + 1 : after]
            at = after

    def size(self, oid: bytes) -> int:
        """Size of an object in bytes, from its header alone. Raises OSError (EIO)."""
        self._unwatched += 1
        if self._unwatched >= _READS_BETWEEN:
            self._let_go()
        try:
            return int(self._odb.read_header(pygit2.Oid(raw=oid))[1])
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise _unreadable(oid) from error

    def read(self, oid: bytes) -> bytes:
        """Content of an object, whole. Raises OSError (EIO) if it is missing or damaged."""
        self._unwatched += 1
        if self._unwatched >= _READS_BETWEEN:
            self._let_go()
        data = self._packs.read(oid)
        if data is not None:
            return data
        try:
            return bytes(self._odb.read(pygit2.Oid(raw=oid))[1])
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise _unreadable(oid) from error

    def _let_go(self) -> None:
        """Takes pages of packs out of this process where there are many; they stay cached."""
        self._unwatched = 0
        with open("/proc/self/statm", "rb") as sizes:
            if int(sizes.read().split()[2]) < _MAPPED_PAGES:
                return
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                if line.endswith(b".pack\n"):
                    first, last = (int(end, 16) for end in line.split(b" ", 1)[0].split(b"-"))
                    madvise(first, last - first, MADV_DONTNEED)


def _unreadable(oid: bytes) -> OSError:
    return OSError(errno.EIO, f"git object {oid.hex()} is missing or damaged")
