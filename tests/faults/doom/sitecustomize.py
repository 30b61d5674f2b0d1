"""Kills one process as it enters its n-th call that others could see the effect of.

Python imports this module at its start wherever PYTHONPATH names its directory. NANOSUP_TEST_DOOM
says which process is meant: `up`, the template, a keeper (a fork of the template), or a preparer (a
fork of the keeper). Between two such calls nothing happens that another process could tell, so
"before each of them" is "at any moment". While there is a file NANOSUP_TEST_NO_FORK, that process
cannot fork. NANOSUP_TEST_WALL_S sets the wall clock on, or back, by seconds.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import time
from typing import Any

_OS_CALLS = (
    "chown", "fork", "fsync", "ftruncate", "kill", "link", "mkdir", "posix_spawn", "rename",
    "replace", "rmdir", "symlink", "unlink", "waitpid", "write",
)  # fmt: skip


class Doom:
    def __init__(self, role: str, call: int, flag: str, log: str) -> None:
        self._role = role
        self._call = call
        # Opened now: a keeper can write nothing by its path while it furnishes a jail.
        self._place = os.open(os.path.dirname(flag), os.O_PATH | os.O_DIRECTORY)
        self._flag = os.path.basename(flag)  # made by the one that dies: those after it live
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666) if log else None
        self._born = os.getpid()
        self._counted = os.getpid()
        self._count = 0

    def role(self) -> str:
        if "supervisor.fleet.forkserver" not in sys.orig_argv:
            return "up" if "up" in sys.argv[1:2] and os.getpid() == self._born else ""
        if os.getpid() == self._born:
            return "template"
        # Only the leader of a session is a keeper; what it forks imports nothing new. Before there
        # is an order, there is nothing to be lost.
        acts = _acts()
        if os.getsid(0) == os.getpid():
            return "keeper" if acts & {"_keep_prepared", "_alone"} else ""
        return "preparer" if acts >= {"_prepare", "_told"} else ""

    def enter(self, name: str, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if self.role() == self._role:
                self._meet(name)
                if name == "fork" and os.path.exists(_NO_FORK):
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return real(*args, **options)

        return call

    def _meet(self, name: str) -> None:
        if self._counted != os.getpid():
            self._counted, self._count = os.getpid(), 0
        self._count += 1
        if self._log is not None:
            _write(self._log, f"{name}\n".encode())
        if self._count == self._call and self._is_first():
            _kill(os.getpid(), signal.SIGKILL)

    def _is_first(self) -> bool:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            os.close(os.open(self._flag, flags, 0o666, dir_fd=self._place))
        except FileExistsError:
            return False
        return True


def _acts() -> set[str]:
    """The functions of keepers that this process is in."""
    found = set()
    frame = sys._getframe()
    while (above := frame.f_back) is not None:
        frame = above
        if frame.f_code.co_filename.endswith("supervisor/keeper/keeper.py"):
            found.add(frame.f_code.co_name)
    return found


_NO_FORK = os.environ.get("NANOSUP_TEST_NO_FORK", "")
_write, _kill = os.write, os.kill
if wanted := os.environ.get("NANOSUP_TEST_DOOM"):
    from sandbox import syscalls

    role, call, flag, log = wanted.split(":", 3)
    doom = Doom(role, int(call), flag, log)
    for name in _OS_CALLS:
        setattr(os, name, doom.enter(name, getattr(os, name)))
    syscalls.renameat2 = doom.enter("renameat2", syscalls.renameat2)
    signal.pidfd_send_signal = doom.enter("pidfd_send_signal", signal.pidfd_send_signal)

    class Socket(socket.socket):
        sendall = doom.enter("sendall", socket.socket.sendall)
        sendmsg = doom.enter("sendmsg", socket.socket.sendmsg)

    # A method of a C class cannot be replaced; a connection's class can.
    socket.socket = Socket  # type: ignore[misc]

if shift := os.environ.get("NANOSUP_TEST_WALL_S"):
    wall, wall_ns, shift_s = time.time, time.time_ns, int(shift)
    time.time = lambda: wall() + shift_s
    time.time_ns = lambda: wall_ns() + shift_s * 10**9
