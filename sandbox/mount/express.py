"""Answers the requests that matter for speed straight from the device, in their bytes.

libfuse and pyfuse3 make objects of each request and each answer, and a coroutine of each handler;
for a lookup or a read that costs several times what the answer itself does. What is not answered
here goes to them (`sandbox.mount.server`). Both call the same overlay.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
from collections import deque
from collections.abc import Callable

from sandbox.git.touched import UNKNOWN, is_token
from sandbox.mount import wire
from sandbox.mount.asking import asking
from sandbox.mount.content import Contents
from sandbox.mount.extent import Extents
from sandbox.mount.handle import Handles
from sandbox.mount.listing import Listings
from sandbox.mount.mutation import Mutations
from sandbox.mount.passthrough import Passthrough
from sandbox.mount.reply import Replies
from sandbox.mount.wire import Opcode
from sandbox.mount.witness import GIT, Witness
from sandbox.union.change import Changes
from sandbox.union.counter import Counter, Kind
from sandbox.union.node import Answer, Directory, Node, Place
from sandbox.union.overlay import Overlay

_log = logging.getLogger("nanosup.mount")

_LOOKUP = int(Kind.LOOKUP)
_GETATTR = int(Kind.GETATTR)
_READDIR = int(Kind.READDIR)
_OPENDIR = int(Kind.OPENDIR)
_OPEN = int(Kind.OPEN)
_RELEASE = int(Kind.RELEASE)
_ENTRY = int(Kind.ENTRY)
_FORGET = int(Kind.FORGET)

_TOLD_LIMIT = 32
_BODY = wire.IN_HEADER.size
_ERROR_BYTES = wire.OUT_HEADER.size
_NOBODY = (None, None)

# (unique, nodeid, uid, length) → whether it has been answered
Handler = Callable[[int, int, int, int], bool]


class Express:
    """The fast handlers of one mount.

    Args:
        request: the buffer that requests are read into.
        device: where answers go.
        is_stateless: nothing ever changes, so the kernel may open files and directories without
            asking, and keep listings. Requests then come with a node, but no handle.
        is_passing: the kernel can read and write files by itself.

    Attributes:
        passthrough: those that it does.
    """

    def __init__(
        self,
        overlay: Overlay,
        changes: Changes,
        handles: Handles,
        counter: Counter,
        request: mmap.mmap,
        device: int,
        *,
        is_stateless: bool,
        is_passing: bool,
    ) -> None:
        self._overlay = overlay
        self._nodes = overlay.nodes
        self._handles = handles
        self._counts = counter.totals
        self._request = request
        self._view = memoryview(request)
        self._device = device
        self.passthrough = Passthrough(device, self._send, counter.totals, is_offered=is_passing)
        self._replies = Replies(overlay, self.passthrough.unseen)
        self._listings = Listings(self._replies)
        self._ahead = overlay.blobs.ahead
        self._walk = overlay.walk
        self._told: deque[Answer] = deque()
        self._is_stateless = is_stateless
        self._witness = Witness(overlay, handles, request, self.passthrough.unseen)
        table: dict[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.FORGET: self._wants_no_answer,
            Opcode.BATCH_FORGET: self._wants_no_answer,
            Opcode.OPEN: self._open,
            Opcode.RELEASE: self._release,
            Opcode.FLUSH: self._flush,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.FSYNCDIR: self._fsyncdir,
            Opcode.INTERRUPT: self._wants_no_answer,
        }

        mutations = Mutations(
            overlay,
            changes,
            handles,
            counter,
            request,
            self._replies,
            self.passthrough,
            self._send,
        ).table
        if overlay.is_writable:
            mutations |= Extents(overlay, handles, counter, request, self._send).table
        else:
            # Refused by the overlay, if root lets them come this far.
            for opcode in (Opcode.OPEN, Opcode.GETXATTR, Opcode.SETXATTR):
                del mutations[opcode]
        table |= mutations
        table |= Contents(
            overlay, handles, counter, request, device, self._send, is_stateless=is_stateless
        ).table
        sees = self._witness.sees if overlay.is_writable else {}
        self._table = {n: (sees.get(n), table.get(n)) for n in sees.keys() | table.keys()}

    def answer(self, length: int) -> bool:
        """Answers the request of `length` bytes in the buffer. False: somebody else has to."""
        opcode, unique, nodeid, uid = wire.IN_HEAD.unpack_from(self._request)
        see, handler = self._table.get(opcode, _NOBODY)
        if see is not None:
            see(opcode, nodeid, length)
        if handler is None:
            return False
        try:
            is_answered = handler(unique, nodeid, uid, length)
            if self._ahead.due is not None:
                self._ahead.go_on()
            return is_answered
        except KeyError:
            self._refuse(unique, errno.ESTALE)
        except OSError as error:
            self._refuse(unique, error.errno or errno.EIO)
        except Exception as error:
            _log.error("unexpected failure", exc_info=error)
            self._refuse(unique, errno.EIO)
        return True

    def take(self, request: memoryview) -> bool:
        """Takes a request that wants no answer, whatever else is being answered."""
        opcode, _unique, nodeid, _uid = wire.IN_HEAD.unpack_from(request)
        if opcode == Opcode.FORGET:
            self._drop(nodeid, wire.FORGET_IN.unpack_from(request, _BODY)[0])
        elif opcode == Opcode.BATCH_FORGET:
            self._drop_all(request)
        else:
            # Every other one is answered before the next is read.
            return bool(opcode == Opcode.INTERRUPT)
        return True

    # -- replies

    def _send(self, reply: bytes) -> None:
        try:
            os.write(self._device, reply)
        except FileNotFoundError:
            pass  # who asked was interrupted, and waits no more

    def _refuse(self, unique: int, number: int) -> None:
        self._send(wire.bare(unique, number))

    def _done(self, unique: int) -> bool:
        self._send(wire.bare(unique))
        return True

    # -- names and attributes

    def _lookup(self, unique: int, nodeid: int, _uid: int, length: int) -> bool:
        self._counts[_LOOKUP] += 1
        name = bytes(self._view[_BODY : length - 1])
        parent = self._nodes[nodeid]
        node: Node | None
        if name == b"." or name == b"..":
            node = parent if name == b"." else parent.parent
            if node is None:
                raise OSError(errno.ESTALE, "no parent")
        elif parent.place is Place.GRAFT and parent.name == GIT and is_token(name):
            self._tell(unique, parent, name)
            return True
        elif isinstance(parent, Directory):
            node = self._overlay.lookup(parent, name)
        else:
            raise OSError(errno.ENOTDIR, "not a directory")
        self._send(self._replies.entry(unique, node))
        if node is not None:
            node.lookups += 1
        return True

    def _tell(self, unique: int, parent: Node, token: bytes) -> None:
        """Answers git's fsmonitor hook, which reads a file named after its token.

        In the lane, the lane's own git directory hides this one (`sandbox.repository.gitdir`).
        """
        assert isinstance(parent, Directory)
        ino = self._overlay.merge.born_ino()
        node = Answer(ino, parent, token, self._witness.answer(token))
        node.lookups = 1
        # The kernel lets go of names when it is short of memory, which we may be long before.
        self._told.append(node)
        if len(self._told) > _TOLD_LIMIT:
            self._told.popleft().content = UNKNOWN
        self._nodes[ino] = node
        self._send(self._replies.entry(unique, node, 0))

    def _getattr(self, unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        self._counts[_GETATTR] += 1
        self._send(self._replies.stat(unique, self._nodes[nodeid]))
        return True

    def _wants_no_answer(self, _unique: int, _nodeid: int, _uid: int, length: int) -> bool:
        return self.take(self._view[:length])

    def _drop_all(self, request: memoryview) -> None:
        count = int.from_bytes(request[_BODY : _BODY + 4], "little")
        first = _BODY + 8
        ones = request[first : first + count * wire.FORGET_ONE.size]
        for nodeid, lookups in wire.FORGET_ONE.iter_unpack(ones):
            self._drop(nodeid, lookups)

    def _drop(self, nodeid: int, count: int) -> None:
        self._counts[_FORGET] += 1
        node = self._nodes.get(nodeid)
        if node is None:
            return
        if node.parent is not None:
            node.lookups -= count
            if node.lookups <= 0 and isinstance(node, Answer):
                del self._nodes[nodeid]
            return
        try:
            self._overlay.forget(node, count)
        except OSError as error:
            _log.error("forget failed", exc_info=error)

    # -- directories

    def _opendir(self, unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        self._counts[_OPENDIR] += 1
        if self._is_stateless:
            # The kernel never asks again.
            raise OSError(errno.ENOSYS, "not needed")
        self._overlay.directory(nodeid)
        self._overlay.trim()
        number = self._handles.number()
        self._listings.open(number)
        self._send(wire.OPEN_OUT.pack(wire.OPEN_OUT.size, 0, unique, number, 0, 0))
        return True

    def _releasedir(self, unique: int, _nodeid: int, _uid: int, _length: int) -> bool:
        number = wire.RELEASE_IN.unpack_from(self._request, _BODY)[0]
        self._listings.close(number)
        return self._done(unique)

    def _fsyncdir(self, unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        self._counts[Kind.FSYNC] += 1
        self._overlay.fsync_directory(self._overlay.directory(nodeid))
        return self._done(unique)

    def _readdir(self, unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        return self._list(unique, nodeid, is_plus=False)

    def _readdirplus(self, unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        return self._list(unique, nodeid, is_plus=True)

    def _list(self, unique: int, nodeid: int, *, is_plus: bool) -> bool:
        self._counts[_READDIR] += 1
        number, start, room, _, _, _, _ = wire.READ_IN.unpack_from(self._request, _BODY)
        directory = self._overlay.directory(nodeid)
        children = self._overlay.children(directory)
        parts = self._listings.batch(number, directory, children, start, room, is_plus=is_plus)
        self._counts[_ENTRY] += len(parts)
        listing = b"".join(parts)
        header = wire.OUT_HEADER.pack(_ERROR_BYTES + len(listing), 0, unique)
        self._send(header + listing)
        if not parts:
            self._walk.listed(directory)
        return True

    # -- files

    def _open(self, unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        if self._is_stateless:
            self._counts[_OPEN] += 1
            raise OSError(errno.ENOSYS, "not needed")
        flags = wire.OPEN_IN.unpack_from(self._request, _BODY)[0]
        self._counts[_OPEN] += 1
        handle = self._overlay.open(self._nodes[nodeid], flags, asking(self._request))
        number = self._handles.keep(handle)
        self._send(
            wire.OPEN_OUT.pack(wire.OPEN_OUT.size, 0, unique, number, wire.FOPEN_KEEP_CACHE, 0)
        )
        return True

    def _flush(self, unique: int, _nodeid: int, _uid: int, _length: int) -> bool:
        # The kernel never asks again.
        raise OSError(errno.ENOSYS, "not needed")

    def _release(self, unique: int, _nodeid: int, _uid: int, _length: int) -> bool:
        self._counts[_RELEASE] += 1
        number = wire.RELEASE_IN.unpack_from(self._request, _BODY)[0]
        handle = self._handles.pop(number, None)
        if handle is not None:
            if handle.backing:
                self.passthrough.released(handle)
                self._witness.see_file(handle.node)
            self._overlay.release(handle)
        return self._done(unique)
