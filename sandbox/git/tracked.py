"""What git tracks, as a fold sees it."""

from __future__ import annotations

from typing import Protocol

from sandbox.git.gitobject import Tree
from sandbox.git.store import Store


class Tracked(Protocol):
    """What git tracks in a directory: a tree, or a part of an index."""

    def entries(self) -> Tree:
        """Names in this directory. The object names of subdirectories may be arbitrary."""
        ...

    def child(self, name: bytes) -> Tracked:
        """A subdirectory."""
        ...

    def keeps(self, name: bytes) -> bool:
        """Whether the entry counts although the working tree lacks it (sparse checkout)."""
        ...


class TrackedTree:
    """A tree of a commit. With `sparse`, one that a sparse checkout does not check out."""

    def __init__(self, store: Store, oid: bytes, *, sparse: bool = False) -> None:
        self._sparse = sparse
        self._store = store
        self._oid = oid
        self._entries: Tree | None = None

    def entries(self) -> Tree:
        if self._entries is None:
            self._entries = self._store.read_tree(self._oid)
        return self._entries

    def child(self, name: bytes) -> Tracked:
        return TrackedTree(self._store, self.entries()[name][1], sparse=self._sparse)

    def keeps(self, name: bytes) -> bool:
        return self._sparse
