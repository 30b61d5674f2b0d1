"""Waiting for the board to change, without polling: inotify(7) and pidfd_open(2)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

import anyio

from sandbox import syscalls


class Watch:
    """Wakes up when a file of the board changes or a process ends.

    A wake-up says only *look again*: it may come for nothing, but a change is never missed, since
    the watches are set before the board is read.
    """

    def __init__(self) -> None:
        self._inotify = syscalls.inotify_init1()
        self._pidfds: dict[int, int] = {}
        self._nudge = anyio.Event()

    def close(self) -> None:
        os.close(self._inotify)
        for fd in self._pidfds.values():
            os.close(fd)
        self._pidfds.clear()

    def directory(self, path: str) -> None:
        """Wakes up for whatever appears or disappears in a directory. Idempotent.

        Raises:
            OSError: no such directory, or no inotify watches are left (ENOSPC).
        """
        mask = syscalls.IN_CREATE | syscalls.IN_MOVED_TO | syscalls.IN_DELETE
        syscalls.inotify_add_watch(self._inotify, path, mask)

    def file(self, path: str) -> None:
        """Wakes up for each write to a file. Idempotent. Raises as `directory`."""
        syscalls.inotify_add_watch(self._inotify, path, syscalls.IN_MODIFY)

    def processes(self, pids: Iterable[int]) -> None:
        """Wakes up when one of `pids` ends; replaces the pids named before."""
        wanted = set(pids)
        for pid in self._pidfds.keys() - wanted:
            os.close(self._pidfds.pop(pid))
        for pid in wanted - self._pidfds.keys():
            try:
                self._pidfds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                self.nudge()  # gone already: that is the change

    def nudge(self) -> None:
        """Wakes up the waiter now."""
        self._nudge.set()

    async def changed(self, timeout_s: float | None = None) -> None:
        """Returns after a change, or after `timeout_s` seconds."""
        with anyio.move_on_after(math.inf if timeout_s is None else timeout_s):
            async with anyio.create_task_group() as group:
                nudge = self._nudge

                async def first(wait: object, *args: object) -> None:
                    await wait(*args)  # type: ignore[operator]
                    group.cancel_scope.cancel()

                group.start_soon(first, nudge.wait)
                group.start_soon(first, anyio.wait_readable, self._inotify)
                for fd in self._pidfds.values():
                    group.start_soon(first, anyio.wait_readable, fd)
        if self._nudge.is_set():
            self._nudge = anyio.Event()
        self._drain()

    def _drain(self) -> None:
        while True:
            try:
                os.read(self._inotify, 65536)
            except BlockingIOError:
                return
