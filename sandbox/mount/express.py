"""Answers the requests that matter for speed straight from the device, in their bytes.

libfuse and pyfuse3 make objects of each request and each answer, and a coroutine of each handler;
for a lookup or a read that costs several times what the answer itself does. What is not answered
here goes to them (`sandbox.mount.server`). Both call the same overlay.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
from collections import deque
from collections.abc import Callable

from sandbox.git.touched import UNKNOWN, is_token
from sandbox.mount import wire
from sandbox.mount.asking import asking
from sandbox.mount.extent import Extents
from sandbox.mount.handle import Handles
from sandbox.mount.listing import Listings
from sandbox.mount.mutation import Mutations
from sandbox.mount.reader import Reader
from sandbox.mount.reply import Replies
from sandbox.mount.wire import Opcode
from sandbox.mount.witness import GIT, Witness
from sandbox.union.change import Changes
from sandbox.union.counter import Counter, Kind
from sandbox.union.node import Answer, Directory, Node, Place
from sandbox.union.overlay import Overlay, drop_privilege

_log = logging.getLogger("nanosup.mount")

_LOOKUP = int(Kind.LOOKUP)
_GETATTR = int(Kind.GETATTR)
_READDIR = int(Kind.READDIR)
_OPENDIR = int(Kind.OPENDIR)
_OPEN = int(Kind.OPEN)
_READ = int(Kind.READ)
_READ_BYTES = int(Kind.READ_BYTES)
_RELEASE = int(Kind.RELEASE)
_WRITE = int(Kind.WRITE)
_WRITE_BYTES = int(Kind.WRITE_BYTES)
_ENTRY = int(Kind.ENTRY)
_FORGET = int(Kind.FORGET)

_TOLD_LIMIT = 32
_SPLICE_BYTES = 1 << 16
_PIPE_BYTES = 1 << 20
_BODY = wire.IN_HEADER.size
_ERROR_BYTES = wire.OUT_HEADER.size
_DATA = _BODY + wire.READ_IN.size

# (unique, nodeid, uid, length) → whether it has been answered
Handler = Callable[[int, int, int, int], bool]


class Express:
    """The fast handlers of one mount.

    Args:
        request: the buffer that requests are read into.
        device: where answers go.
        is_stateless: nothing ever changes, so the kernel may open files and directories without
            asking, and keep listings. Requests then come with a node, but no handle.
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
    ) -> None:
        self._overlay = overlay
        self._nodes = overlay.nodes
        self._handles = handles
        self._counts = counter.totals
        self._request = request
        self._view = memoryview(request)
        self._device = device
        self._replies = Replies(overlay)
        self._listings = Listings(self._replies)
        self._read_buffer = bytearray(1 << 17)
        self._pipe: tuple[int, int] | None = None
        self._told: deque[Answer] = deque()
        self._is_stateless = is_stateless
        self._witness = Witness(overlay, handles, request)
        self._sees = self._witness.sees if overlay.is_writable else None
        self._reader = Reader(overlay, counter.totals)
        self._table: dict[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._batch_forget,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.RELEASE: self._release,
            Opcode.FLUSH: self._flush,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.FSYNCDIR: self._fsyncdir,
            Opcode.INTERRUPT: self._interrupt,
        }

        mutations = Mutations(
            overlay, changes, handles, counter, request, self._replies, self._send
        ).table
        if overlay.is_writable:
            mutations |= Extents(overlay, handles, counter, request, self._send).table
        else:
            # Refused by the overlay, if root lets them come this far.
            for opcode in (Opcode.OPEN, Opcode.GETXATTR, Opcode.SETXATTR):
                del mutations[opcode]
        self._table |= mutations

    def answer(self, length: int) -> bool:
        """Answers the request of `length` bytes in the buffer. False: somebody else has to."""
        _, opcode, unique, nodeid, uid, _, _, _ = wire.IN_HEADER.unpack_from(self._request)
        if self._sees is not None and (see := self._sees(opcode)) is not None:
            see(opcode, nodeid, length)
        handler = self._table.get(opcode)
        if handler is None:
            return False
        try:
            return handler(unique, nodeid, uid, length)
        except KeyError:
            self._refuse(unique, errno.ESTALE)
        except OSError as error:
            self._refuse(unique, error.errno or errno.EIO)
        except Exception as error:
            _log.error("unexpected failure", exc_info=error)
            self._refuse(unique, errno.EIO)
        return True

    # -- replies

    def _send(self, reply: bytes) -> None:
        try:
            os.write(self._device, reply)
        except FileNotFoundError:
            pass  # who asked was interrupted, and waits no more

    def _refuse(self, unique: int, number: int) -> None:
        self._send(wire.OUT_HEADER.pack(_ERROR_BYTES, -number, unique))

    def _done(self, unique: int) -> bool:
        self._send(wire.OUT_HEADER.pack(_ERROR_BYTES, 0, unique))
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

    def _forget(self, _unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        self._counts[_FORGET] += 1
        self._drop(nodeid, wire.FORGET_IN.unpack_from(self._request, _BODY)[0])
        return True

    def _batch_forget(self, _unique: int, _nodeid: int, _uid: int, _length: int) -> bool:
        count = int.from_bytes(self._view[_BODY : _BODY + 4], "little")
        self._counts[_FORGET] += count
        first = _BODY + 8
        ones = self._view[first : first + count * wire.FORGET_ONE.size]
        for nodeid, lookups in wire.FORGET_ONE.iter_unpack(ones):
            self._drop(nodeid, lookups)
        return True

    def _drop(self, nodeid: int, count: int) -> None:
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

    def _interrupt(self, _unique: int, _nodeid: int, _uid: int, _length: int) -> bool:
        return True  # every request is answered before the next is read

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

    def _read(self, unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        counts = self._counts
        counts[_READ] += 1
        number, offset, size, _, _, _, _ = wire.READ_IN.unpack_from(self._request, _BODY)
        if self._is_stateless:
            node = self._nodes[nodeid]
            fd = self._reader.descriptor(node)
            if fd >= 0:
                self._read_descriptor(unique, fd, offset, size)
                return True
            data = self._reader.read(node, offset, size)
        else:
            handle = self._handles[number]
            if handle.fd >= 0:
                self._read_descriptor(unique, handle.fd, offset, size)
                return True
            data = self._overlay.read(handle, offset, size)
        self._send_data(unique, data)
        return True

    def _read_descriptor(self, unique: int, fd: int, offset: int, size: int) -> None:
        if size >= _SPLICE_BYTES and self._splice(unique, fd, offset, size):
            return
        if size > len(self._read_buffer):
            self._read_buffer = bytearray(size)
        # One buffer for all: a new one a read costs more page faults than copying does.
        room = memoryview(self._read_buffer)[:size]
        count = os.preadv(fd, [room], offset)
        self._send_data(unique, room[:count])

    def _splice(self, unique: int, fd: int, offset: int, size: int) -> bool:
        """Answers with pages of the file's own, by way of a pipe. False: it has to be copied."""
        count = min(size, os.fstat(fd).st_size - offset)
        if count < _SPLICE_BYTES or count > _PIPE_BYTES - _SPLICE_BYTES:
            return False
        if self._pipe is None:
            self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            except OSError:
                return False  # pipe-user-pages-soft; the pipe that there is fails the next splice
        source, sink = self._pipe
        whole = _ERROR_BYTES + count
        os.write(sink, wire.OUT_HEADER.pack(whole, 0, unique))
        held = _ERROR_BYTES
        try:
            while held < whole:
                moved = os.splice(fd, sink, whole - held, offset_src=offset + held - _ERROR_BYTES)
                if moved == 0:
                    break
                held += moved
        except OSError:
            pass
        if held < whole:
            os.read(source, held)
            return False
        self._counts[_READ_BYTES] += count
        try:
            os.splice(source, self._device, whole)
        except OSError as error:
            # What is left in the pipe must not get into the next answer.
            self._pipe = None
            os.close(source)
            os.close(sink)
            if error.errno != errno.ENOENT:  # who asked was interrupted
                raise
        return True

    def _send_data(self, unique: int, data: bytes | memoryview) -> None:
        self._counts[_READ_BYTES] += len(data)
        header = wire.OUT_HEADER.pack(_ERROR_BYTES + len(data), 0, unique)
        try:
            os.writev(self._device, (header, data))
        except FileNotFoundError:
            pass

    def _drop_pages(self, nodeid: int) -> None:
        """Makes the kernel read a file anew.

        It waits for pages that are being written, and for the answers to that: so another
        process has to ask.
        """
        if os.fork() == 0:
            try:
                os.write(self._device, wire.invalidation(nodeid))
            finally:
                os._exit(0)

    def _write(self, unique: int, nodeid: int, _uid: int, _length: int) -> bool:
        counts = self._counts
        counts[_WRITE] += 1
        number, offset, size, flags, _, _, _ = wire.READ_IN.unpack_from(self._request, _BODY)
        if not self._overlay.is_writable:
            # Root has lifted the read-only flag. What it has in the page cache must not stay.
            self._refuse(unique, errno.EROFS)
            self._drop_pages(nodeid)
            return True
        data = self._view[_DATA : _DATA + size]
        handle = self._handles[number]
        if flags & wire.WRITE_KILL_SUIDGID:
            drop_privilege(handle.node, handle.fd, asking(self._request))
        written = self._overlay.write(handle, offset, data)
        counts[_WRITE_BYTES] += written
        self._send(wire.WRITE_OUT.pack(wire.WRITE_OUT.size, 0, unique, written, 0))
        return True

    def _flush(self, unique: int, _nodeid: int, _uid: int, _length: int) -> bool:
        # The kernel never asks again.
        raise OSError(errno.ENOSYS, "not needed")

    def _release(self, unique: int, _nodeid: int, _uid: int, _length: int) -> bool:
        self._counts[_RELEASE] += 1
        number = wire.RELEASE_IN.unpack_from(self._request, _BODY)[0]
        handle = self._handles.pop(number, None)
        if handle is not None:
            self._overlay.release(handle)
        return self._done(unique)
