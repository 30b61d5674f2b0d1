"""Answers requests for what is in files (see `express`)."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable

from sandbox.mount import wire
from sandbox.mount.asking import asking
from sandbox.mount.handle import Handles
from sandbox.mount.reader import Reader
from sandbox.mount.wire import Opcode
from sandbox.union.counter import Counter, Kind
from sandbox.union.overlay import Overlay, drop_privilege

_READ = int(Kind.READ)
_READ_BYTES = int(Kind.READ_BYTES)
_WRITE = int(Kind.WRITE)
_WRITE_BYTES = int(Kind.WRITE_BYTES)

_SPLICE_BYTES = 1 << 16
_PIPE_BYTES = 1 << 20
_BODY = wire.IN_HEADER.size
_DATA = _BODY + wire.READ_IN.size
_ERROR_BYTES = wire.OUT_HEADER.size


class Contents:
    """Handlers of reads and writes.

    Args:
        device: where data goes.
        send: takes any other answer.
        is_stateless: requests come with a node, but no handle.
    """

    def __init__(
        self,
        overlay: Overlay,
        handles: Handles,
        counter: Counter,
        request: mmap.mmap,
        device: int,
        send: Callable[[bytes], None],
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
        self._send = send
        self._is_stateless = is_stateless
        self._reader = Reader(overlay, counter.totals)
        self._read_buffer = bytearray(1 << 17)
        self._pipe: tuple[int, int] | None = None
        self.table: dict[int, Callable[[int, int, int, int], bool]] = {
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
        }

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
            self._send(wire.bare(unique, errno.EROFS))
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
