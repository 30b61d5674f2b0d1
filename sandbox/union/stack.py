"""The sealed layers of a mount: reading only, by descriptors, never following a symlink."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from sandbox.errors import MountError
from sandbox.union.node import Directory, Node

_OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LayerStack:
    """Sealed layers, index 0 at the bottom."""

    def __init__(self, layers: Sequence[str], root: Directory, *, fd_limit: int = 512) -> None:
        """Opens all layers. Raises MountError if one is missing."""
        self._root = root
        self._roots: list[int] = []
        self._fds: OrderedDict[tuple[Directory, int], int] = OrderedDict()
        self._fd_limit = fd_limit
        # By layer and inode number; a layer is searched when such a file is first copied up.
        self._links: dict[int, dict[int, list[tuple[bytes, ...]]]] = {}
        try:
            for path in layers:
                self._roots.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            self.close()
            raise MountError(f"cannot open layer {error.filename}: {error.strerror}") from error

    def roots(self) -> list[int]:
        """O_PATH descriptors of the layers; not to be closed."""
        return list(self._roots)

    def close(self) -> None:
        """Closes all descriptors."""
        self.trim(0)
        while self._roots:
            os.close(self._roots.pop())

    def trim(self, limit: int) -> None:
        """Closes the least recently used descriptors; between operations only."""
        while len(self._fds) > limit:
            os.close(self._fds.popitem(last=False)[1])

    def trim_if_many(self) -> None:
        """Keeps the number of open directories within the limit."""
        if len(self._fds) > self._fd_limit:
            self.trim(self._fd_limit // 2)

    def fd(self, directory: Directory, layer: int) -> int:
        """An O_PATH descriptor of the directory in a layer that has it. Do not close it."""
        chain: list[Directory] = []
        above: Directory | None = directory
        fd = -1
        while above is not None:
            if above is self._root:
                fd = self._roots[layer]
                break
            held = self._fds.get((above, layer))
            if held is not None:
                self._fds.move_to_end((above, layer))
                fd = held
                break
            chain.append(above)
            above = above.parent
        if fd < 0:
            raise OSError(errno.ESTALE, "directory is gone")
        for below in reversed(chain):
            fd = self._fds[below, layer] = os.open(below.name, _OPEN_DIRECTORY, dir_fd=fd)
        return fd

    def handle(self, node: Node) -> int:
        """A new O_PATH descriptor of a node that is in a layer; the caller closes it."""
        if node.extra is not None and node.extra.anchor >= 0:
            return os.dup(node.extra.anchor)
        if isinstance(node, Directory):
            return os.dup(self.fd(node, node.layers[0]))
        parent = self._parent(node)
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(node.name, flags, dir_fd=self.fd(parent, node.layer))

    def status(self, node: Node) -> os.stat_result:
        """lstat(2) of a node that is in a layer."""
        if node.extra is not None and node.extra.anchor >= 0:
            return os.fstat(node.extra.anchor)
        if isinstance(node, Directory):
            return os.fstat(self.fd(node, node.layers[0]))
        fd = self.fd(self._parent(node), node.layer)
        return os.stat(node.name, dir_fd=fd, follow_symlinks=False)

    def open(self, node: Node) -> int:
        """A new readable descriptor of a regular file; the caller closes it."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        if node.extra is not None and node.extra.anchor >= 0:
            return os.open(f"/proc/self/fd/{node.extra.anchor}", flags)
        fd = self.fd(self._parent(node), node.layer)
        return os.open(node.name, flags | os.O_NOFOLLOW, dir_fd=fd)

    def names_of(self, layer: int, inode: int) -> list[tuple[bytes, ...]]:
        """The paths in a layer, each as its parts, of a file that has several names there."""
        links = self._links.get(layer)
        if links is None:
            links = self._links[layer] = {}
            for path, found in _linked_files(self._roots[layer]):
                links.setdefault(found, []).append(path)
        return links.get(inode, [])

    def readlink(self, node: Node) -> bytes:
        """Target of a symlink in a layer."""
        if node.extra is not None and node.extra.anchor >= 0:
            return os.readlink(b"", dir_fd=node.extra.anchor)
        return os.readlink(node.name, dir_fd=self.fd(self._parent(node), node.layer))

    def _parent(self, node: Node) -> Directory:
        if node.parent is None:
            raise OSError(errno.ESTALE, "file is gone")
        return node.parent


def _linked_files(root: int) -> Iterator[tuple[tuple[bytes, ...], int]]:
    """(path, inode number) of every name of all files below that have several names."""
    pending: list[tuple[bytes, ...]] = [()]
    while pending:
        directory = pending.pop()
        fd = os.dup(root)
        for name in (*directory, b"."):
            below = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        os.close(fd)
        try:
            with os.scandir(readable) as entries:
                for entry in entries:
                    path = (*directory, os.fsencode(entry.name))
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path)
                    elif entry.stat(follow_symlinks=False).st_nlink > 1:
                        yield path, entry.inode()
        finally:
            os.close(readable)
