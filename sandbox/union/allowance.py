"""How many bytes an upper directory may take: at the limit, ENOSPC to who writes, not to the host.

What is added is counted as it comes; what is taken away is found by counting again, and that only
once the limit is reached and something has been taken away since. So nothing costs more than two
fstat(2) a write, and that only where there is a limit.

A file without a name counts as long as anybody holds it. Whoever reaches the limit may have let go
of one just now, and the news of it be behind the request that is being answered; so it is asked
for before anything is counted.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterable

# Of a name, whatever is behind it: an inode and its share of a directory. So a lane cannot use up
# all inodes with empty files either.
ENTRY_BYTES = 4096

_BLOCK_BYTES = 512  # of st_blocks, everywhere (stat(2))
_FIEMAP = 0xC020660B  # linux/fiemap.h
_FIEMAP_HEAD = struct.Struct("=QQIIII")  # start length flags mapped_extents extent_count reserved
_FIEMAP_EXTENT = struct.Struct("=QQQQQIIII")  # logical physical length … flags …
_FIEMAP_EXTENT_SHARED = 0x2000  # with another file: to write there takes blocks of its own
_EXTENTS = 64  # of one call
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Allowance:
    """What is used of `limit_bytes` by the directories that `fds` (O_PATH will do) are of.

    Attributes:
        hear: lets go of what, by now, nobody holds any more.
    """

    def __init__(self, limit_bytes: int, fds: Iterable[int]) -> None:
        self.limit_bytes = limit_bytes
        self.hear: Callable[[], None] = _nothing
        self._fds = tuple(fds)
        self._freed = False
        self._has_nameless = False  # closing a file that has no name frees it, and nobody tells us
        self.used_bytes = self._count()

    @property
    def left_bytes(self) -> int:
        """What may still be added, as far as is known without counting again."""
        return max(0, self.limit_bytes - self.used_bytes)

    def claim(self, size: int) -> None:
        """Counts `size` bytes more. Raises OSError (ENOSPC) where that would be too much."""
        if self.used_bytes + size > self.limit_bytes and (self._freed or self._has_nameless):
            self._freed = False
            self.hear()
            self.used_bytes = self._count()
        if self.used_bytes + size > self.limit_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.used_bytes += size

    def within(self, fd: int, offset: int, size: int, act: Callable[[], int]) -> int:
        """Does what changes `size` bytes of the file. Raises OSError (ENOSPC) where it would grow
        by too much."""
        growth = self._growth(fd, offset, size)
        if growth:
            self.claim(growth)
        before = os.fstat(fd).st_blocks
        try:
            return act()
        finally:
            self.used_bytes += (os.fstat(fd).st_blocks - before) * _BLOCK_BYTES - growth

    def _growth(self, fd: int, offset: int, size: int) -> int:
        """How many bytes writing there adds at most. What there are blocks for is written in its
        place; but that is looked at only where all of it would be too much."""
        if self.used_bytes + size <= self.limit_bytes:
            return size
        return _without_blocks(fd, offset, size)

    def note_freed(self) -> None:
        """Something was removed or made shorter: counting again may find less."""
        self._freed = True

    def write(self, fd: int, data: bytes | memoryview[int], offset: int) -> int:
        """pwrite(2). Raises OSError (ENOSPC) where the file would grow by too much."""
        return self.within(fd, offset, len(data), lambda: os.pwrite(fd, data, offset))

    def _count(self) -> int:
        """All that is in the directories, and what is open without a name any more."""
        total = sum(map(_bytes_below, self._fds))
        self._has_nameless = False
        for name in os.listdir("/proc/self/fd"):
            try:
                status = os.fstat(int(name))
            except OSError:  # the listing's own
                continue
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                total += status.st_blocks * _BLOCK_BYTES
                self._has_nameless = True
        return total


def _nothing() -> None:
    pass


def _without_blocks(fd: int, offset: int, size: int) -> int:
    """How many bytes of a range of a file have no blocks, or none of their own."""
    missing, at, end = 0, offset, offset + size
    answer = bytearray(_FIEMAP_HEAD.size + _EXTENTS * _FIEMAP_EXTENT.size)
    while at < end:
        _FIEMAP_HEAD.pack_into(answer, 0, at, end - at, 0, 0, _EXTENTS, 0)
        try:
            fcntl.ioctl(fd, _FIEMAP, answer)
        except OSError:  # tmpfs
            return missing + _holes(fd, at, end)
        found = _FIEMAP_HEAD.unpack_from(answer)[3]
        extents = memoryview(answer)[_FIEMAP_HEAD.size :][: found * _FIEMAP_EXTENT.size]
        for start, _, length, _, _, flags, _, _, _ in _FIEMAP_EXTENT.iter_unpack(extents):
            missing += max(0, start - at)
            after = min(end, start + length)
            if flags & _FIEMAP_EXTENT_SHARED:
                missing += after - max(at, start)
            at = after
        if not found:
            return missing + end - at
    return missing


def _holes(fd: int, at: int, end: int) -> int:
    """How many bytes of a range of a file are no data."""
    total = 0
    while at < end:
        try:
            data = min(end, os.lseek(fd, at, os.SEEK_DATA))
        except OSError:  # none is behind
            return total + end - at
        total += data - at
        at = os.lseek(fd, data, os.SEEK_HOLE) if data < end else end
    return total


def _bytes_below(top: int) -> int:
    """A tree may be deeper than Python's recursion, and than PATH_MAX; each level is one fd."""
    total = 0
    frames = [_listed(os.open(".", _OPEN_DIRECTORY, dir_fd=top))]
    while frames:
        fd, directories, size = frames[-1]
        if size:
            total += size
            frames[-1] = (fd, directories, 0)
        if not directories:
            os.close(fd)
            frames.pop()
            continue
        try:
            frames.append(_listed(os.open(directories.pop(), _OPEN_DIRECTORY, dir_fd=fd)))
        except OSError:  # gone, or not to be read: then the count is too small by what is in it
            continue
    return total


def _listed(fd: int) -> tuple[int, list[str], int]:
    """A directory, the directories in it, and what all its entries take."""
    directories, size = [], 0
    with os.scandir(fd) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            shared = max(1, status.st_nlink) if stat.S_ISREG(status.st_mode) else 1
            size += ENTRY_BYTES + status.st_blocks * _BLOCK_BYTES // shared
            if stat.S_ISDIR(status.st_mode):
                directories.append(entry.name)
    return fd, directories, size
