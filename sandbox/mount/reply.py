"""What nodes look like in answers to the kernel, as bytes."""

from __future__ import annotations

from collections.abc import Container

from sandbox.mount import wire
from sandbox.union.node import Directory, Node, Place
from sandbox.union.overlay import Overlay

# All changes go through this server, so what the kernel was told stays true.
FOR_EVER_S = 31_536_000

_NS = 1_000_000_000
_U64 = (1 << 64) - 1
_BLOCK_BYTES = 4096
_TREE = Place.TREE
_UPPER = Place.UPPER


class Replies:
    """Packs attributes, entries and directory entries.

    `unseen` has the inode numbers of what may change without any request.
    """

    def __init__(self, overlay: Overlay, unseen: Container[int]) -> None:
        self._overlay = overlay
        self._upper = overlay.upper
        self._unseen = unseen
        epoch_s, epoch_ns = divmod(overlay.epoch_ns, _NS)
        # Of all that comes from the git tree: access, modification, change.
        self._epoch = (epoch_s & _U64,) * 3 + (epoch_ns,) * 3
        self._owner = (overlay.uid, overlay.gid, 0, _BLOCK_BYTES, 0)

    def attributes(self, node: Node) -> tuple[int, ...]:
        """struct fuse_attr."""
        if node.place is _TREE and node.oid is not None and node.parent is not None:
            size = node.size
            if size < 0:
                size = 4096 if isinstance(node, Directory) else self._overlay.blobs.size(node)
            return (node.ino, size, size + 511 >> 9, *self._epoch, node.mode, 1, *self._owner)
        if node.place is _UPPER and self._upper is not None and not isinstance(node, Directory):
            # As `Overlay.attributes` has it, which makes one more object of it.
            status = self._upper.status(node)
            return _struct(
                node.ino,
                status.st_mode,
                status.st_nlink,
                status.st_uid,
                status.st_gid,
                status.st_rdev,
                status.st_size,
                status.st_blocks,
                status.st_atime_ns,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
        return _struct(node.ino, *self._overlay.attributes(node))

    def entry(self, unique: int, node: Node | None, valid_s: int = FOR_EVER_S) -> bytes:
        """The answer to a lookup; None means that there is no such name, for ever.

        `valid_s`: seconds for which the name means this node.
        """
        size = wire.ENTRY_OUT.size
        if node is None:
            return wire.ENTRY_OUT.pack(size, 0, unique, 0, 0, FOR_EVER_S, 0, 0, 0, *(0,) * 16)
        return wire.ENTRY_OUT.pack(
            size,
            0,
            unique,
            node.ino,
            0,
            valid_s,
            self._valid_s(node),
            0,
            0,
            *self.attributes(node),
        )

    def _valid_s(self, node: Node) -> int:
        """Seconds for which the node's attributes may be taken for true."""
        return 0 if node.ino in self._unseen else FOR_EVER_S

    def created(self, unique: int, node: Node, number: int, opened: tuple[int, int]) -> bytes:
        """The answer to create: the entry, the open file's number, and how it was `opened`."""
        return wire.CREATE_OUT.pack(
            wire.CREATE_OUT.size,
            0,
            unique,
            node.ino,
            0,
            FOR_EVER_S,
            FOR_EVER_S,
            0,
            0,
            *self.attributes(node),
            number,
            *opened,
        )

    def stat(self, unique: int, node: Node) -> bytes:
        """The answer to getattr and setattr."""
        size = wire.ATTR_OUT.size
        valid_s = self._valid_s(node)
        return wire.ATTR_OUT.pack(size, 0, unique, valid_s, 0, 0, *self.attributes(node))

    def dirent(self, node: Node, name: bytes, cookie: int) -> bytes:
        """A name in the answer to readdir."""
        length = len(name)
        head = wire.DIRENT.pack(node.ino, cookie, length, node.mode >> 12)
        return head + name + bytes(-length % 8)

    def dirent_plus(self, node: Node, name: bytes, cookie: int, *, is_counted: bool) -> bytes:
        """A name in the answer to readdirplus.

        Where it is counted the kernel has one more reference to the node, else it is told no
        node id: so it is for "." and "..", and for what cannot be read.
        """
        nodeid = node.ino if is_counted else 0
        try:
            attributes = self.attributes(node)
        except OSError:
            # The name is there; a lookup will say what is wrong with it.
            attributes = (node.ino, 0, 0, 0, 0, 0, 0, 0, 0, node.mode, 0, 0, 0, 0, 0, 0)
            nodeid = 0
        if nodeid:
            node.lookups += 1
        length = len(name)
        head = wire.DIRENT_PLUS.pack(
            nodeid,
            0,
            FOR_EVER_S,
            self._valid_s(node),
            0,
            0,
            *attributes,
            node.ino,
            cookie,
            length,
            node.mode >> 12,
        )
        return head + name + bytes(-length % 8)


def _struct(
    ino: int,
    mode: int,
    nlink: int,
    uid: int,
    gid: int,
    rdev: int,
    size: int,
    blocks: int,
    atime_ns: int,
    mtime_ns: int,
    ctime_ns: int,
) -> tuple[int, ...]:
    """struct fuse_attr, of an inode number and what `Attributes` has, in its order."""
    atime_s, atime_ns = divmod(atime_ns, _NS)
    mtime_s, mtime_ns = divmod(mtime_ns, _NS)
    ctime_s, ctime_ns = divmod(ctime_ns, _NS)
    return (
        ino,
        size,
        blocks,
        atime_s & _U64,
        mtime_s & _U64,
        ctime_s & _U64,
        atime_ns,
        mtime_ns,
        ctime_ns,
        mode,
        nlink,
        uid,
        gid,
        wire.device_number(rdev) if rdev else 0,
        _BLOCK_BYTES,
        0,
    )
