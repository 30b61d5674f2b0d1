"""What files that nobody has changed hold: blobs of the git tree, as a checkout would have them."""

from __future__ import annotations

import errno
import stat
from collections.abc import MutableSequence

from sandbox.git.smudge import to_worktree
from sandbox.union.ahead import Ahead
from sandbox.union.counter import Kind
from sandbox.union.node import Answer, Directory, Node, Smudged
from sandbox.union.tree import GitTree


class Blobs:
    """Contents and sizes of nodes of Place.TREE.

    Args:
        counts: indexed by `Kind`, told what was inflated.

    Attributes:
        ahead: has what was read before it was asked for.
    """

    def __init__(
        self, tree: GitTree | None, counts: MutableSequence[int] | memoryview[int]
    ) -> None:
        self._tree = tree
        self._counts = counts
        self.ahead = Ahead(self.size, self._inflate)

    def size(self, node: Node) -> int:
        """In bytes. Raises OSError (EIO)."""
        if node.size < 0:
            assert self._tree is not None and node.oid is not None
            self._counts[Kind.SIZE_MISS] += 1
            if isinstance(node, Smudged):
                node.size = len(self._checked_out(node))
            else:
                node.size = self._tree.size(node.oid)
        return node.size

    def tree_size(self, directory: Directory) -> int:
        """Of the git tree itself, in bytes. Raises OSError (EIO)."""
        assert self._tree is not None and directory.oid is not None
        return self._tree.size(directory.oid)

    def content(self, node: Node) -> bytes:
        """All of a file or symbolic link. Raises OSError (EISDIR, EIO)."""
        if isinstance(node, Answer):
            return node.content
        if node.oid is None or isinstance(node, Directory):
            raise OSError(errno.EISDIR, "not a file")
        if stat.S_ISREG(node.mode):
            data = self._held(node)
            if data is not None:
                self._counts[Kind.BLOB_HIT] += 1
                return data
        return self._inflate(node)

    def _held(self, node: Node) -> bytes | None:
        if node.extra is not None:
            for handle in node.extra.handles:
                if handle.data is not None:
                    return handle.data
        return self.ahead.take(node)

    def _inflate(self, node: Node) -> bytes:
        data = self._checked_out(node)
        self._counts[Kind.BLOB_MISS] += 1
        self._counts[Kind.BLOB_BYTES] += len(data)
        return data

    def _checked_out(self, node: Node) -> bytes:
        assert self._tree is not None and node.oid is not None
        data = self._tree.read(node.oid)
        if isinstance(node, Smudged):
            return to_worktree(data, node.smudge, node.oid.hex())
        return data
