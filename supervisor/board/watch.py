"""Waiting for the board to change, without polling: inotify(7) and pidfd_open(2)."""

from __future__ import annotations

import errno
import math
import os
import select
from collections.abc import Iterable

import anyio

from sandbox import syscalls

_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_NO_WATCHES = frozenset({errno.ENOSPC, errno.ENOMEM})
_LOOK_AGAIN_S = 1.0


class Watch:
    """Wakes up when a file of the board changes or a process ends.

    A wake-up says only *look again*: it may come for nothing, but a change is never missed, since
    the watches are set before the board is read.
    """

    def __init__(self) -> None:
        self._inotify = _inotify()
        self._nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # One descriptor to wait for, however many processes there are (epoll(7) nests).
        self._epoll = select.epoll()
        if self._inotify is not None:
            self._epoll.register(self._inotify, select.EPOLLIN)
        self._epoll.register(self._nudge, select.EPOLLIN)
        self._pidfds: dict[int, int] = {}
        self._unwatched: set[str] = set()
        self._unseen = False

    def close(self) -> None:
        self._epoll.close()
        for fd in (self._inotify, self._nudge, *self._pidfds.values()):
            if fd is not None:
                os.close(fd)
        self._pidfds.clear()

    def directory(self, path: str) -> None:
        """Wakes up for whatever appears or disappears in a directory. Idempotent.

        Where no watches are left (fs.inotify.max_user_watches), it wakes up every second instead.

        Raises:
            FileNotFoundError: no such directory.
        """
        self._add(path, syscalls.IN_CREATE | syscalls.IN_MOVED_TO | syscalls.IN_DELETE)

    def file(self, path: str) -> None:
        """Wakes up for each write to a file. Idempotent. As `directory`, and every second too while
        there is none: somebody may remove a journal, and who writes to it next makes it again."""
        try:
            self._add(path, syscalls.IN_MODIFY)
        except FileNotFoundError:
            self._unwatched.add(path)

    def processes(self, pids: Iterable[int]) -> None:
        """Wakes up when one of `pids` ends; replaces the pids named before.

        Where descriptors have run out, it wakes up every second instead.
        """
        wanted = set(pids)
        self._unseen = False
        for pid in self._pidfds.keys() - wanted:
            fd = self._pidfds.pop(pid)
            self._epoll.unregister(fd)
            os.close(fd)
        for pid in wanted - self._pidfds.keys():
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                self.nudge()  # gone already: that is the change
            except OSError as error:
                if error.errno not in _SHORT:
                    raise
                self._unseen = True
            else:
                self._pidfds[pid] = fd
                self._epoll.register(fd, select.EPOLLIN)

    def nudge(self) -> None:
        """Wakes up the waiter now, or the next one. From any thread."""
        os.eventfd_write(self._nudge, 1)

    async def changed(self, timeout_s: float | None = None) -> None:
        """Returns after a change, or after `timeout_s` seconds."""
        with anyio.move_on_after(self._limit_s(timeout_s)):
            await anyio.wait_readable(self._epoll)
        self._drain()

    def wait(self, timeout_s: float | None = None, fd: int = -1) -> bool:
        """For who has no event loop: returns after a change, after `timeout_s` seconds, or when
        `fd` is readable. Says whether that is."""
        poll = select.poll()
        poll.register(self._epoll, select.POLLIN)
        if fd >= 0:
            poll.register(fd, select.POLLIN)
        limit_s = self._limit_s(timeout_s)
        found = poll.poll(None if limit_s == math.inf else limit_s * 1000)
        self._drain()
        return any(ready == fd for ready, _ in found)

    def _limit_s(self, timeout_s: float | None) -> float:
        limit_s = math.inf if timeout_s is None else timeout_s
        return min(limit_s, _LOOK_AGAIN_S) if self._unseen or self._unwatched else limit_s

    def _add(self, path: str, mask: int) -> None:
        self._unwatched.discard(path)
        if self._inotify is None:
            self._unwatched.add(path)
            return
        try:
            syscalls.inotify_add_watch(self._inotify, path, mask)
        except OSError as error:
            if error.errno not in _NO_WATCHES:
                raise
            self._unwatched.add(path)

    def _drain(self) -> None:
        for fd in (self._inotify, self._nudge):
            try:
                while fd is not None and os.read(fd, 65536):
                    pass
            except BlockingIOError:
                pass


def _inotify() -> int | None:
    """None where this user can have no more (fs.inotify.max_user_instances)."""
    try:
        return syscalls.inotify_init1()
    except OSError as error:
        if error.errno not in _SHORT:
            raise
        return None
