"""The log of a lane: a file that the agent itself writes, whole whoever is killed, and bounded.

The bound is kept by punching holes at the front (fallocate(2)): offsets stay what they are, so
readers and the writer notice nothing, and how much was lost is where the data begin (lseek(2),
SEEK_DATA).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable

from sandbox import syscalls
from supervisor.board import disk
from supervisor.keeper.finale import Finale

NAMES = ("stdout.log", "stderr.log")

_BLOCK_BYTES = 4096
_HOLE = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE


def lost_bytes(fd: int) -> int:
    """How much of a log's beginning was dropped."""
    size = os.fstat(fd).st_size
    try:
        here = os.lseek(fd, 0, os.SEEK_CUR)
        begins = os.lseek(fd, 0, os.SEEK_DATA)
        os.lseek(fd, here, os.SEEK_SET)
    except OSError as error:
        # ENXIO: nothing but a hole. EINVAL: a file system without holes, so without loss.
        return size if error.errno == errno.ENXIO else 0
    return begins


def reserved_bytes(status: os.stat_result) -> int:
    """What a file takes behind its end: fallocate(2) gives it any number of blocks there, and no
    limit of its size is about those."""
    whole = -(-status.st_size // _BLOCK_BYTES) * _BLOCK_BYTES
    return max(0, status.st_blocks * 512 - whole)


def open_log(path: str) -> int:
    """A descriptor of the log at `path`, for who prints and for who tends it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


class Log:
    """One log, open for its keeper.

    Args:
        path: where `fd` was opened.
        limit_bytes: what it may take on the disk.

    Attributes:
        dropped_bytes: how much of its beginning was dropped to keep it within its limit.
        truncated_bytes: how much, at least, the agent itself has thrown away: a shell's
            `> /dev/stdout` opens the log anew and truncates it.
    """

    def __init__(self, path: str, fd: int, limit_bytes: int) -> None:
        self.path = path
        self.fd = fd
        self._limit_bytes = limit_bytes
        self._can_punch = True
        self._seen_bytes = 0
        self.dropped_bytes = 0
        self.truncated_bytes = 0

    def trim(self) -> None:
        """Drops what is older than the limit allows, and a little more, so that it is not always
        being trimmed."""
        size = os.fstat(self.fd).st_size
        if size < self._seen_bytes:
            self.truncated_bytes += self._seen_bytes - size
            self.dropped_bytes = min(self.dropped_bytes, size)
        self._seen_bytes = size
        if size - self.dropped_bytes <= self._limit_bytes or not self._can_punch:
            return
        keep_bytes = self._limit_bytes - self._limit_bytes // 8
        until = (size - keep_bytes) // _BLOCK_BYTES * _BLOCK_BYTES
        try:
            syscalls.fallocate(self.fd, _HOLE, 0, until)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            self._can_punch = False  # a file system without holes: it grows
            return
        self.dropped_bytes = until

    def release(self) -> None:
        """Gives back what the agent has reserved behind its end.

        That cuts off what is printed meanwhile, so this is for when nobody writes any more.
        """
        status = os.fstat(self.fd)
        if reserved_bytes(status):
            os.ftruncate(self.fd, status.st_size)

    def restore(self) -> bool:
        """Puts the log back if somebody has removed it or something else is in its place.

        What is written from then on goes to the old file still, so this is for when nobody writes
        any more. Returns whether it was missing.
        """
        mine = os.fstat(self.fd)
        try:
            if os.path.samestat(os.stat(self.path, follow_symlinks=False), mine):
                return False
        except FileNotFoundError:
            pass
        tmp = disk.tmp_path(os.path.dirname(self.path))
        with disk.explained(self.path):
            try:
                with open(f"/proc/self/fd/{self.fd}", "rb") as source, open(tmp, "xb") as target:
                    # The hole at the front stays one, and offsets what they were.
                    begins = lost_bytes(source.fileno())
                    source.seek(begins)
                    target.seek(begins)
                    shutil.copyfileobj(source, target, 1 << 20)
                    target.truncate(mine.st_size)
                os.chmod(tmp, 0o600)
                try:
                    os.rename(tmp, self.path)
                except IsADirectoryError:
                    os.rename(self.path, disk.tmp_path(os.path.dirname(self.path)))
                    os.rename(tmp, self.path)
            finally:
                disk.remove(tmp)
        return True


class Logs:
    """The logs of a running lane, tended when they have changed.

    A watch is for one event: each that has to be told costs who writes a sixth of a write of 4 KiB,
    and half of one of a line.

    What it opens stays open as long as the process: close(2) of an inotify instance waits for a
    grace period of the kernel, 10 to 20 ms, and everybody who waits for the outcome with it.

    Args:
        finale: looks for the agent's end-of-work event in what is printed.
    """

    def __init__(self, logs: Iterable[Log], finale: Finale | None = None) -> None:
        self._logs = tuple(logs)
        self.finale = finale
        try:
            self._inotify = syscalls.inotify_init1()
            self._listen()
        except OSError:
            # This user can have no more of them. What is readable at once is tended at once, and
            # `tend` says that it does not listen.
            self._inotify = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Readable when something was printed since `tend` has said that it listens."""
        return self._inotify

    def tend(self, now_s: float) -> bool:
        """Keeps the bound, and looks for the end of the work. Whether it listens for what is
        printed from now on: not where this host has no watches left, and then it is to be called
        again unasked."""
        try:
            while os.read(self._inotify, 1 << 16):
                pass
        except BlockingIOError:
            pass
        listens = True
        try:
            self._listen()  # first: what is printed after we have looked is news
        except OSError:
            listens = False
        for log in self._logs:
            log.trim()
        if self.finale is not None:
            self.finale.read(now_s)
        return listens

    def _listen(self) -> None:
        for log in self._logs:
            syscalls.inotify_add_watch(
                self._inotify,
                f"/proc/self/fd/{log.fd}",
                syscalls.IN_MODIFY | syscalls.IN_ONESHOT,
            )
