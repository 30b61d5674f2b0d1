"""Requests about parts of files: fallocate(2), copy_file_range(2), SEEK_DATA of lseek(2).

pyfuse3 has no handlers for them.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable

from sandbox.mount import wire
from sandbox.mount.asking import asking
from sandbox.mount.handle import Handles
from sandbox.mount.wire import Opcode
from sandbox.union.counter import Counter, Kind
from sandbox.union.node import Handle
from sandbox.union.overlay import Overlay, drop_privilege
from sandbox.union.upper import Upper

_BODY = wire.IN_HEADER.size
# Of one copy: no other request is answered meanwhile, and who asked asks for the rest again.
_COPY_BYTES = 64 << 20


class Extents:
    """Handlers of a write mount. In a read mount, where nothing is open, the kernel is told once
    that there are none, and takes files for data from end to end.

    Args:
        send: takes an answer.
    """

    def __init__(
        self,
        overlay: Overlay,
        handles: Handles,
        counter: Counter,
        request: mmap.mmap,
        send: Callable[[bytes], None],
    ) -> None:
        self._overlay = overlay
        self._handles = handles
        self._counts = counter.totals
        self._request = request
        self._send = send
        self.table: dict[int, Callable[[int, int, int, int], bool]] = {
            Opcode.FALLOCATE: self._allocate,
            Opcode.LSEEK: self._seek,
            Opcode.COPY_FILE_RANGE: self._copy,
        }

    def _allocate(self, unique: int, _nodeid: int, _uid: int, _length: int) -> bool:
        self._counts[Kind.WRITE] += 1
        number, offset, size, mode, _ = wire.FALLOCATE_IN.unpack_from(self._request, _BODY)
        handle = self._handles[number]
        self._about_to_write(handle).allocate(handle.fd, mode, offset, size)
        self._send(wire.bare(unique))
        return True

    def _seek(self, unique: int, _nodeid: int, _uid: int, _length: int) -> bool:
        number, offset, whence, _ = wire.LSEEK_IN.unpack_from(self._request, _BODY)
        handle = self._handles[number]
        if handle.fd >= 0:
            # The descriptor's own position is not used by anything.
            found = os.lseek(handle.fd, offset, whence)
        else:
            size = self._overlay.blobs.size(handle.node)
            if not 0 <= offset < size:
                raise OSError(errno.ENXIO, "outside of the file")
            found = offset if whence == os.SEEK_DATA else size
        self._send(wire.LSEEK_OUT.pack(wire.LSEEK_OUT.size, 0, unique, found))
        return True

    def _about_to_write(self, handle: Handle) -> Upper:
        drop_privilege(handle.node, handle.fd, asking(self._request))
        return self._overlay.require_upper()

    def _copy(self, unique: int, _nodeid: int, _uid: int, _length: int) -> bool:
        self._counts[Kind.WRITE] += 1
        given = wire.COPY_FILE_RANGE_IN.unpack_from(self._request, _BODY)
        source_number, source_at, _target_node, target_number, target_at, size, _flags = given
        source: Handle = self._handles[source_number]
        target: Handle = self._handles[target_number]
        size = min(size, _COPY_BYTES)
        upper = self._about_to_write(target)
        if source.fd < 0:
            data = self._overlay.read(source, source_at, size)
            copied = upper.write(target.fd, data, target_at)
        else:
            copied = upper.copy_range(source.fd, source_at, target.fd, target_at, size)
        self._counts[Kind.WRITE_BYTES] += copied
        self._send(wire.WRITE_OUT.pack(wire.WRITE_OUT.size, 0, unique, copied, 0))
        return True
