"""Lets the kernel read and write files of the upper directory by itself.

FUSE passthrough (linux/fuse.h, FOPEN_PASSTHROUGH): who has opened a file through the mount reads
and writes its file in the upper directory, through that file's own page cache. Which opens are
answered so is decided here.

All open files of an inode have to be of one kind, the kernel's page cache of the mount or
passed through, and all of the latter share one backing id; an open that breaks this is refused
(EIO). The kernel counts releases before it tells us, so what is open here is never less than
what the kernel takes for open.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Callable

from sandbox.mount import wire
from sandbox.syscalls import CAP_FSETID, capget, capset
from sandbox.union.counter import Kind
from sandbox.union.node import Handle, Place

# _IOW(229, 1, struct fuse_backing_map), _IOW(229, 2, uint32_t)
_BACKING_OPEN = 0x4010_E501
_BACKING_CLOSE = 0x4004_E502
_BACKING_MAP = struct.Struct("=iIQ")  # fd flags padding

# A smaller file that is only read is soon in the page cache of the mount, from where it costs
# less than a backing file does. A larger one is read as fast as its disk is, and held once.
_LARGE_BYTES = 1 << 20

# fcntl(2) takes these away from a file that is open, but not from its backing file, which would
# go on appending, and refusing what is not aligned: dd(1) ends a direct copy in that way. So who
# opens a file with them is served as ever, request by request.
_REVOCABLE = os.O_APPEND | os.O_DIRECT

# Whether writing clears these depends on who writes, which a backing file does not see.
_PRIVILEGE = stat.S_ISUID | stat.S_ISGID

# How often what is written is looked at while nobody asks for anything.
_LOOK_MS = 250

_EMPTY = (0, 0)  # of a file that was just made

Opened = tuple[int, int]  # FOPEN_… flags, backing id


class Passthrough:
    """What the kernel is told of open files.

    Attributes:
        unseen: inode numbers of files that somebody can change without any request: mappings
            of a passed-through file stay when it is closed.
    """

    def __init__(
        self,
        device: int,
        notify: Callable[[bytes], None],
        counts: memoryview[int],
        *,
        is_offered: bool,
    ) -> None:
        self._device = device
        self._notify = notify
        self._counts = counts
        self._written: dict[Handle, tuple[int, int]] = {}
        self._is_possible = is_offered
        self.unseen: set[int] = set()
        # Inode numbers of files that may be mapped still, though nobody has them open. What is
        # mapped so is the upper directory's file: who opens it has to see that one's pages too.
        # And the mount's cache may have pages of before what was written to them: readahead(2)
        # puts them there.
        self._mappable: set[int] = set()
        self._request = bytearray(_BACKING_MAP.size)
        self._capabilities = capget()
        effective, rest = self._capabilities[:4], self._capabilities[4:]
        lowered = int.from_bytes(effective, "little") & ~(1 << CAP_FSETID)
        self._lowered = lowered.to_bytes(4, "little") + rest

    def created(self, handle: Handle, flags: int, uid: int) -> Opened:
        """A file was created and opened by `uid`."""
        if flags & (os.O_ACCMODE | _REVOCABLE) == os.O_WRONLY:
            self._begin(handle, uid)
            if handle.backing:
                self._written[handle] = _EMPTY
        return self._answer(handle, flags)

    def opened(self, handle: Handle, flags: int, uid: int) -> Opened:
        """A file was opened by `uid`."""
        node = handle.node
        if node.place is Place.UPPER:
            mode = flags & os.O_ACCMODE
            others = node.extras().handles
            if len(others) > 1:
                handle.backing = others[0].backing
            elif node.ino in self._mappable:
                self._begin(handle, uid)
            elif flags & _REVOCABLE:
                pass
            elif mode == os.O_WRONLY or (
                mode == os.O_RDONLY and os.fstat(handle.fd).st_size >= _LARGE_BYTES
            ):
                self._begin(handle, uid)
            if handle.backing and mode != os.O_WRONLY:
                self._mappable.add(node.ino)
            if handle.backing and mode == os.O_RDWR and node.ino not in self.unseen:
                self.unseen.add(node.ino)
                self._notify(wire.invalidation(node.ino, attributes_only=True))
            if handle.backing and mode != os.O_RDONLY and not flags & _REVOCABLE:
                self._written[handle] = _state(handle)
        return self._answer(handle, flags)

    def released(self, handle: Handle) -> None:
        """A file that is passed through is about to be released."""
        if handle in self._written:
            self._note(handle)
            del self._written[handle]
        extra = handle.node.extra
        if extra is None or len(extra.handles) <= 1:
            fcntl.ioctl(self._device, _BACKING_CLOSE, handle.backing.to_bytes(4, "little"))

    @property
    def look_again_ms(self) -> int | None:
        """When to `look` again, if nothing happens until then; None for never."""
        return _LOOK_MS if self._written else None

    def look(self) -> None:
        """Counts what is being written, though nobody asks: it is a sign of life."""
        for handle in self._written:
            self._note(handle)

    def _note(self, handle: Handle) -> None:
        """Of what is written in place nobody knows how much it is: it counts as one write."""
        before = self._written[handle]
        now = self._written[handle] = _state(handle)
        if now[0] != before[0] or (now != before and before is not _EMPTY):
            self._counts[Kind.WRITE] += 1
            self._counts[Kind.WRITE_BYTES] += max(0, now[0] - before[0])

    def _answer(self, handle: Handle, flags: int) -> Opened:
        if handle.backing and flags & _REVOCABLE:
            # It is mapped as the others are, but read and written by requests.
            return wire.FOPEN_PASSTHROUGH | wire.FOPEN_DIRECT_IO, handle.backing
        if handle.backing:
            # Without FOPEN_KEEP_CACHE the kernel drops the pages that it has in the mount's cache.
            return wire.FOPEN_PASSTHROUGH, handle.backing
        # Dropping the pages writes them back first. What a mapping has changed nobody has told us,
        # and who asks for holes next would be told of one where there are data: cp(1) does.
        if handle.node.ino in self._mappable or _is_mapped(handle):
            return 0, 0
        return wire.FOPEN_KEEP_CACHE, 0

    def _begin(self, handle: Handle, uid: int) -> None:
        if not self._is_possible or handle.node.mode & _PRIVILEGE:
            return
        _BACKING_MAP.pack_into(self._request, 0, handle.fd, 0, 0)
        try:
            # Whoever writes does so with the capabilities of this moment. With CAP_FSETID, which
            # is root's, a file that is made set-user-ID while it is open stays so.
            if uid:
                capset(self._lowered)
            handle.backing = fcntl.ioctl(self._device, _BACKING_OPEN, self._request)
        except OSError:
            self._is_possible = False
        finally:
            if uid:
                capset(self._capabilities)


def _is_mapped(handle: Handle) -> bool:
    """Whether somebody else has the file open so that a mapping may write to it.

    A mapping holds the open file that it was made of, so that one stays as long as it does.
    """
    extra = handle.node.extra
    return extra is not None and any(
        other is not handle
        and other.fd >= 0
        and fcntl.fcntl(other.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        for other in extra.handles
    )


def _state(handle: Handle) -> tuple[int, int]:
    """Size in bytes and modification time of an open file."""
    status = os.fstat(handle.fd)
    return status.st_size, status.st_mtime_ns
