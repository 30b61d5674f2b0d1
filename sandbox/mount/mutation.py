"""Answers the frequent requests that change a tree, in their bytes (see `express`)."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable

from sandbox.mount import wire
from sandbox.mount.asking import asking
from sandbox.mount.handle import Handles
from sandbox.mount.passthrough import Passthrough
from sandbox.mount.reply import Replies
from sandbox.mount.wire import Opcode
from sandbox.union.alteration import Alterations
from sandbox.union.attributes import Change
from sandbox.union.change import Changes
from sandbox.union.counter import Counter, Kind
from sandbox.union.node import BORN, Place
from sandbox.union.overlay import Overlay

_BODY = wire.IN_HEADER.size
_NS = 1_000_000_000
_CAPABILITY = b"security.capability"

_OPEN = int(Kind.OPEN)
_CREATE = int(Kind.CREATE)
_REMOVE = int(Kind.REMOVE)
_SETATTR = int(Kind.SETATTR)
_XATTR = int(Kind.XATTR)


class Mutations:
    """Handlers of a write mount.

    Args:
        send: takes an answer.
    """

    def __init__(
        self,
        overlay: Overlay,
        changes: Changes,
        handles: Handles,
        counter: Counter,
        request: mmap.mmap,
        replies: Replies,
        passthrough: Passthrough,
        send: Callable[[bytes], None],
    ) -> None:
        self._overlay = overlay
        self._changes = changes
        self._alterations = Alterations(overlay)
        self._handles = handles
        self._counts = counter.totals
        self._request = request
        self._view = memoryview(request)
        self._replies = replies
        self._passthrough = passthrough
        self._send = send
        self.table: dict[int, Callable[[int, int, int, int], bool]] = {
            Opcode.OPEN: self._open,
            Opcode.CREATE: self._create,
            Opcode.TMPFILE: self._create_nameless,
            Opcode.MKDIR: self._mkdir,
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.SETATTR: self._setattr,
            Opcode.GETXATTR: self._getxattr,
            Opcode.SETXATTR: self._see_attribute,
        }
        self._with_attributes: set[int] = set()

    def _owner(self) -> tuple[int, int]:
        owner: tuple[int, int] = wire.IN_HEADER.unpack_from(self._request)[4:6]
        return owner

    def _done(self, unique: int) -> bool:
        self._send(wire.bare(unique))
        return True

    def _open(self, unique: int, nodeid: int, uid: int, _length: int) -> bool:
        self._counts[_OPEN] += 1
        flags = wire.OPEN_IN.unpack_from(self._request, _BODY)[0]
        node = self._overlay.node(nodeid)
        place = node.place
        handle = self._overlay.open(node, flags, asking(self._request))
        if node.place is not place:
            # Copy-up gave it a change time of its own.
            self._send(wire.invalidation(nodeid, attributes_only=True))
        number = self._handles.keep(handle)
        opened = self._passthrough.opened(handle, flags, uid)
        self._send(wire.OPEN_OUT.pack(wire.OPEN_OUT.size, 0, unique, number, *opened))
        return True

    def _create(self, unique: int, nodeid: int, uid: int, length: int) -> bool:
        self._counts[_CREATE] += 1
        flags, mode, _, _ = wire.CREATE_IN.unpack_from(self._request, _BODY)
        name = bytes(self._view[_BODY + wire.CREATE_IN.size : length - 1])
        parent = self._overlay.directory(nodeid)
        handle = self._changes.create(parent, name, mode, flags, self._owner())
        handle.node.lookups += 1
        number = self._handles.keep(handle)
        opened = self._passthrough.created(handle, flags, uid)
        self._send(self._replies.created(unique, handle.node, number, opened))
        return True

    def _create_nameless(self, unique: int, nodeid: int, uid: int, _length: int) -> bool:
        self._counts[_CREATE] += 1
        flags, mode, _, _ = wire.CREATE_IN.unpack_from(self._request, _BODY)
        parent = self._overlay.directory(nodeid)
        handle = self._changes.create_nameless(parent, mode, flags, self._owner())
        handle.node.lookups += 1
        number = self._handles.keep(handle)
        opened = self._passthrough.created(handle, flags, uid)
        self._send(self._replies.created(unique, handle.node, number, opened))
        return True

    def _mkdir(self, unique: int, nodeid: int, _uid: int, length: int) -> bool:
        self._counts[_CREATE] += 1
        self._overlay.trim()
        mode = int.from_bytes(self._view[_BODY : _BODY + 4], "little")
        name = bytes(self._view[_BODY + 8 : length - 1])
        node = self._changes.mkdir(self._overlay.directory(nodeid), name, mode, self._owner())
        node.lookups += 1
        self._send(self._replies.entry(unique, node))
        return True

    def _unlink(self, unique: int, nodeid: int, _uid: int, length: int) -> bool:
        self._counts[_REMOVE] += 1
        name = bytes(self._view[_BODY : length - 1])
        self._changes.unlink(self._overlay.directory(nodeid), name)
        return self._done(unique)

    def _rmdir(self, unique: int, nodeid: int, _uid: int, length: int) -> bool:
        self._counts[_REMOVE] += 1
        self._overlay.trim()
        name = bytes(self._view[_BODY : length - 1])
        self._changes.rmdir(self._overlay.directory(nodeid), name)
        return self._done(unique)

    def _setattr(self, unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        self._counts[_SETATTR] += 1
        given = wire.SETATTR_IN.unpack_from(self._request, _BODY)
        valid, number, size, mode, uid, gid = (
            given[0],
            given[2],
            given[3],
            given[11],
            given[13],
            given[14],
        )
        node = self._overlay.node(nodeid)
        change = Change(
            mode if valid & wire.FATTR_MODE else None,
            uid if valid & wire.FATTR_UID else None,
            gid if valid & wire.FATTR_GID else None,
            size if valid & wire.FATTR_SIZE else None,
            _time_ns(given[5], given[8]) if valid & wire.FATTR_ATIME else None,
            _time_ns(given[6], given[9]) if valid & wire.FATTR_MTIME else None,
        )
        handle = self._handles.get(number) if valid & wire.FATTR_FH else None
        self._alterations.setattr(node, change, handle, asking(self._request))
        self._send(self._replies.stat(unique, node))
        return True

    def _getxattr(self, unique: int, nodeid: int, _uid: int, length: int) -> bool:
        """The kernel asks before the first write to a file whether it has capabilities."""
        if self._view[_BODY + 8 : length - 1] != _CAPABILITY:
            return False
        node = self._overlay.node(nodeid)
        if node.place is Place.LAYER or (
            node.place is Place.UPPER and (nodeid <= BORN or nodeid in self._with_attributes)
        ):
            return False
        # Of the git tree, or made in this mount and never given an attribute.
        self._counts[_XATTR] += 1
        self._send(wire.bare(unique, errno.ENODATA))
        return True

    def _see_attribute(self, _unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        self._with_attributes.add(nodeid)
        return False


def _time_ns(seconds: int, nanoseconds: int) -> int:
    # The protocol's field is unsigned, the kernel's time is not.
    if seconds >> 63:
        seconds -= 1 << 64
    return seconds * _NS + nanoseconds
