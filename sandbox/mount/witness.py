"""Sees each request that can change a lane's working tree, and notes which paths it is about.

Before the request is answered, whoever answers it, and whether or not it then succeeds.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator

from sandbox.git.touched import EVERYTHING, Touched
from sandbox.mount import wire
from sandbox.mount.handle import Handles
from sandbox.mount.wire import Opcode
from sandbox.union import layer
from sandbox.union.node import Directory, Node, Place
from sandbox.union.overlay import Overlay

GIT = b".git"

_BODY = wire.IN_HEADER.size
_LINK_NAME = _BODY + 8
# Where the name stands in requests that make or remove one.
_NAME_AT = {
    Opcode.SYMLINK: _BODY,
    Opcode.UNLINK: _BODY,
    Opcode.RMDIR: _BODY,
    Opcode.MKDIR: _BODY + 8,
    Opcode.LINK: _LINK_NAME,
    Opcode.MKNOD: _BODY + 16,
    Opcode.CREATE: _BODY + wire.CREATE_IN.size,
}
_NAMES_AT = {Opcode.RENAME: _BODY + 8, Opcode.RENAME2: _BODY + wire.RENAME2_IN.size}
_TARGET = struct.Struct("=QQQ")  # of copy_file_range: handle, offset, node to write to


class Witness:
    """Notes the changes of one mount."""

    def __init__(
        self, overlay: Overlay, handles: Handles, request: mmap.mmap, unseen: Iterable[int]
    ) -> None:
        self._overlay = overlay
        self._nodes = overlay.nodes
        self._handles = handles
        self._request = request
        self._unseen = unseen
        self._noted: dict[int, int] = {}
        self.touched = Touched(os.urandom(8).hex().encode(), self._first)
        # By opcode; called with it, the node and the length of the request.
        self.sees: dict[int, Callable[[int, int, int], None]] = {
            **dict.fromkeys(_NAME_AT, self._see_name),
            **dict.fromkeys(_NAMES_AT, self._see_rename),
            **dict.fromkeys((Opcode.SETATTR, Opcode.WRITE, Opcode.FALLOCATE), self._see_file),
            Opcode.OPEN: self._see_open,
            Opcode.COPY_FILE_RANGE: self._see_copy,
        }

    def answer(self, token: bytes) -> bytes:
        """What has changed since `token`. Open files of the upper directory count: a mapping is
        written to without any request."""
        return self.touched.answer(token, self._held())

    def _held(self) -> Iterator[bytes]:
        for handle in self._handles.values():
            if handle.node.place is Place.UPPER:
                yield from paths_of(handle.node)
        for nodeid in self._unseen:
            node = self._nodes.get(nodeid)
            if node is not None:
                yield from paths_of(node)

    # -- requests

    def _see_name(self, opcode: int, nodeid: int, _length: int) -> None:
        self._note(nodeid, self._name(_NAME_AT[Opcode(opcode)]))

    def _see_rename(self, opcode: int, nodeid: int, _length: int) -> None:
        at = _NAMES_AT[Opcode(opcode)]
        target = wire.FORGET_IN.unpack_from(self._request, _BODY)[0]
        old = self._name(at)
        new = self._name(at + len(old) + 1)
        # Where a directory is involved on either side, all below both names is.
        slash = b"/" if self._is_directory(nodeid, old) or self._is_directory(target, new) else b""
        for directory, name in ((nodeid, old), (target, new)):
            self._note(directory, name)
            if slash:
                self._note(directory, name + slash)

    def _see_file(self, _opcode: int, nodeid: int, _length: int) -> None:
        if self._noted.get(nodeid) == self.touched.serial:
            return
        node = self._nodes.get(nodeid)
        if node is not None and not isinstance(node, Directory):
            self.see_file(node)

    def see_file(self, node: Node) -> None:
        """Notes that a file has changed, or is about to."""
        serial = self.touched.serial
        if self._noted.get(node.ino) == serial:
            return
        for path in paths_of(node):
            self.touched.note(path)
        if node.extra is not None and node.extra.links and not self._has_all_names(node):
            self.touched.note(EVERYTHING)
        self._noted[node.ino] = serial

    def _has_all_names(self, node: Node) -> bool:
        """Whether no further name is in a directory that nobody has looked into yet."""
        try:
            return self._overlay.attributes(node).nlink == len(node.extras().links)
        except OSError:
            return False

    def _see_open(self, opcode: int, nodeid: int, length: int) -> None:
        flags = wire.OPEN_IN.unpack_from(self._request, _BODY)[0]
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self._see_file(opcode, nodeid, length)

    def _see_copy(self, opcode: int, _nodeid: int, length: int) -> None:
        # fh_in, off_in, then the node that is written to.
        self._see_file(opcode, _TARGET.unpack_from(self._request, _BODY)[2], length)

    def _name(self, at: int) -> bytes:
        return self._request[at : self._request.find(b"\0", at)]

    def _is_directory(self, nodeid: int, name: bytes) -> bool:
        directory = self._nodes.get(nodeid)
        if not isinstance(directory, Directory):
            return False
        return isinstance((directory.children or {}).get(name), Directory)

    def _note(self, nodeid: int, name: bytes) -> None:
        directory = self._nodes.get(nodeid)
        if isinstance(directory, Directory) and (path := path_of(directory, name)) is not None:
            self.touched.note(path)
            self._noted.clear()  # a name may now mean another file

    # -- the beginning

    def _first(self) -> Iterable[bytes]:
        try:
            return tuple(first_paths(self._overlay))
        except (OSError, RecursionError):
            # A layer that cannot be listed, or is deeper than any tree of git's can be.
            return (EVERYTHING,)


def path_of(directory: Directory, name: bytes) -> bytes | None:
    """The path of a name from the root; None in a directory that has none."""
    names = [name]
    above: Directory | None = directory
    while above is not None and above.parent is not None:
        names.append(above.name)
        above = above.parent
    if above is None or above.ino != 1:
        return None
    return b"/".join(reversed(names))


def paths_of(node: Node) -> Iterator[bytes]:
    """All paths of a file."""
    links = node.extra.links if node.extra is not None and node.extra.links else None
    if links is None:
        links = [(node.parent, node.name)] if node.parent is not None else []
    for directory, name in links:
        path = path_of(directory, name)
        if path is not None:
            yield path


def first_paths(overlay: Overlay) -> Iterator[bytes]:
    """What may differ from the snapshot's index before anything is changed.

    All that the layers have, since a layer may hold what no commit has; an upper directory that
    was there before; and what the kernel binds over the mount, which is changed unseen.
    """
    for path in overlay.grafts:
        if path != GIT:
            yield path
            yield path + b"/"
    for root in overlay.roots():
        yield from _walk(root)


def _walk(root: int) -> Iterator[bytes]:
    for prefix, _, files, fd in os.fwalk(b".", dir_fd=root):
        below = prefix[2:] + b"/" if len(prefix) > 1 else b""
        # A directory is no change of its own, and naming it would mean all that is in it: but where
        # it hides what was below, which may have been a file.
        if below and layer.is_opaque(_opacity(fd)):
            yield below[:-1]
            yield below
        for name in files:
            yield below + name
            # A whiteout, or a file where a directory was: all that was below is gone.
            yield below + name + b"/"


def _opacity(fd: int) -> bytes | None:
    try:
        return os.getxattr(fd, layer.OPAQUE_XATTR)
    except OSError:
        return None
