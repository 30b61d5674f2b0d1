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
import os
import stat
from collections.abc import Callable, Iterable

# Of a name, whatever is behind it: an inode and its share of a directory. So a lane cannot use up
# all inodes with empty files either.
ENTRY_BYTES = 4096

_BLOCK_BYTES = 512  # of st_blocks, everywhere (stat(2))
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

    def within(self, fd: int, most_bytes: int, act: Callable[[], int]) -> int:
        """Does what adds at most that many bytes to the file. Raises OSError (ENOSPC)."""
        self.claim(most_bytes)
        before = os.fstat(fd).st_blocks
        try:
            return act()
        finally:
            growth = (os.fstat(fd).st_blocks - before) * _BLOCK_BYTES
            self.used_bytes += growth - most_bytes

    def note_freed(self) -> None:
        """Something was removed or made shorter: counting again may find less."""
        self._freed = True

    def write(self, fd: int, data: bytes | memoryview[int], offset: int) -> int:
        """pwrite(2). Raises OSError (ENOSPC) where the file would grow by too much."""
        before = os.fstat(fd)
        if self.used_bytes + len(data) > self.limit_bytes:
            # What is there already, and no hole, is written in its place.
            is_whole = before.st_blocks * _BLOCK_BYTES >= before.st_size
            growth = max(0, offset + len(data) - before.st_size) if is_whole else len(data)
            self.claim(growth)
            self.used_bytes -= growth
        written = os.pwrite(fd, data, offset)
        self.used_bytes += max(0, os.fstat(fd).st_blocks - before.st_blocks) * _BLOCK_BYTES
        return written

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
