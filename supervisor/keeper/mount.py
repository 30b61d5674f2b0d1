"""The FUSE server of a lane: a process of its own, between the keeper and the kernel."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from sandbox import syscalls
from sandbox.channel import Channel, ClosedError
from sandbox.descriptor import readable
from sandbox.errors import MountError
from sandbox.mount import server
from sandbox.union.counter import Counter
from sandbox.union.spec import MountSpec

_READY_S = 30.0
_STOP_S = 30.0
_DEATH_S = 5.0


class UnservedError(Exception):
    """Raised where the view of a lane has gone before its command ran: nobody serves it."""


class Mount(Protocol):
    """A lane's view of the repository, however it is made.

    Attributes:
        pid: of the process that serves it, or stands for it.
    """

    pid: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def fileno(self) -> int:
        """Readable once the view is gone."""

    def operations(self) -> int:
        """How often the view was asked for anything: a sign of life; 0 where nobody counts."""

    def counters(self) -> dict[str, int]:
        """Operations, bytes and cache hits by kind."""

    def await_ready(self) -> None:
        """Returns when it can be used. Raises MountError or UnservedError."""

    def attend(self, jail: int) -> None:
        """Is told the process with whose death everything that uses the view is dead."""

    def kill(self) -> None:
        """Takes the view away at once; whoever waits for an answer of it fails."""

    def stop(self) -> None:
        """Returns when everything written is in the upper layer. Raises MountError."""


@dataclass(frozen=True, slots=True)
class _Serve:
    """What a server is told.

    Attributes:
        pid, pidfd: of the process whose namespaces it is to serve in.
        jail: our end of the socket that tells of the jail.
    """

    spec: MountSpec
    pid: int
    pidfd: int
    jail: int


class Server:
    """A forked process that serves a mount. Leaving it kills the server if it still runs.

    A process that serves a mount must never start a child whose working directory is in it: that
    deadlocks in the kernel. So the keeper, which starts the jail, does not serve.

    Args:
        spec: what to serve; None: it stands by until `serve`. The sooner it is forked, the less
            memory has it of what the keeper has touched, and the less has the keeper to copy.
        train: what it does before it stands by.
    """

    def __init__(
        self, spec: MountSpec | None = None, *, train: Callable[[], None] = lambda: None
    ) -> None:
        self._ready, ready = os.pipe()
        self._orders, orders = map(Channel, socket.socketpair())
        self._parent = keeper = os.getpid()
        self._counter = Counter()
        self._is_writable = False
        self._jail: socket.socket | None = None
        try:
            self.pid = os.fork()
        except BaseException:
            for fd in (self._ready, ready):
                os.close(fd)
            self._orders.close()
            orders.close()
            raise
        if self.pid == 0:
            try:
                os.close(self._ready)
                self._orders.close()
                train()
                _stand_by(keeper, orders, ready, self._counter)
            finally:
                os._exit(1)
        os.close(ready)
        orders.close()
        self._pidfd = os.pidfd_open(self.pid)
        self._reaped = False
        self._is_open = True
        if spec is not None:
            self.serve(spec)

    def serve(self, spec: MountSpec, *, lock: int | None = None) -> None:
        """Has it mount and serve, in the namespaces that this process is in now.

        Args:
            lock: a descriptor that it is to keep open as long as it lives.
        """
        self.serves(is_writable=spec.upper is not None)
        us = os.pidfd_open(os.getpid())
        self._jail, jail = socket.socketpair()
        given = pickle.dumps(_Serve(spec, os.getpid(), us, jail.fileno()))
        kept = () if lock is None else (lock,)
        try:
            self._orders.send(given, (us, jail.fileno(), *kept))
        except ClosedError:
            pass  # it is dead, and `await_ready` says so
        finally:
            os.close(us)
            jail.close()
            self._orders.close()

    def serves(self, *, is_writable: bool) -> None:
        """It was told to serve, perhaps by another process, which has this one's end of it."""
        self._is_writable = is_writable

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills the server if it still runs, and waits for that. Harmless when it is done already,
        and in a fork of the process that is its parent."""
        if not self._is_open:
            return
        self._is_open = False
        if not self._reaped:
            # Also where it hangs: the kernel then aborts the connection, and the mount goes with
            # the namespace.
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            # One in state D (a disk that hangs) dies when the kernel lets it; it is not waited for.
            if readable(self._pidfd, _DEATH_S) and os.getpid() == self._parent:
                self._reap()
        self._orders.close()
        if self._jail is not None:
            self._jail.close()
        os.close(self._ready)
        os.close(self._pidfd)

    def fileno(self) -> int:
        """A pidfd: readable once the server is dead."""
        return self._pidfd

    def operations(self) -> int:
        """How many requests the mount has had so far: a sign of life. Reads memory, never waits."""
        return self._counter.operations()

    def counters(self) -> dict[str, int]:
        """Operations, bytes and cache hits by kind (`counter.Kind`); also once it ended."""
        return self._counter.totals_by_name()

    def await_ready(self) -> None:
        """Returns when the mount can be used.

        Raises:
            MountError: it cannot be mounted; says why.
            UnservedError: its server died without a word.
        """
        if not readable(self._ready, _READY_S):
            raise MountError(
                f"the lane's file system was not mounted after {_READY_S:g} s",
                hint="`nanosup doctor` shows what this host lacks",
            )
        answer = os.read(self._ready, 4096)
        if not answer:
            raise UnservedError
        if answer[:1] != b"\1":
            said = answer.decode(errors="replace").strip()
            raise MountError(
                f"the lane's file system cannot be mounted: {said}",
                hint="`nanosup doctor` shows what this host lacks",
            )

    def attend(self, jail: int) -> None:
        """Files that the jail has open are written to without the server. So it stays, and with it
        the lane's lock, until the jail is dead, even if we are before."""
        if not self._is_writable or self._jail is None:
            return
        try:
            pidfd = os.pidfd_open(jail)
        except ProcessLookupError:
            return
        try:
            socket.send_fds(self._jail, [b"\0"], [pidfd])
        except OSError:
            pass  # the server is dead, which is noticed elsewhere
        finally:
            os.close(pidfd)

    def kill(self) -> None:
        """SIGKILL: the kernel then aborts the connection, and whoever waits for an answer fails."""
        if not self._reaped:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def stop(self) -> None:
        """Unmounts, and returns when everything written is in the upper layer.

        Where nothing can have been written there is nothing to wait for: the server is killed, and
        its mount goes with the namespace.

        Raises:
            MountError: it did not end well, so what was written last may be missing.
        """
        if not self._is_writable:
            self.kill()
            return
        signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)
        signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)  # somebody may have stopped it
        deadline = time.monotonic() + _STOP_S
        if not readable(self._pidfd, deadline - time.monotonic()):
            raise MountError(f"the lane's file system was not unmounted after {_STOP_S:g} s")
        if (status := self._reap()) != 0:
            raise MountError(f"the server of the lane's file system ended with status {status}")

    def _reap(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self._reaped = True
        return status


def _stand_by(keeper: int, orders: Channel, ready: int, counter: Counter) -> None:
    """Waits for what to serve, and serves it. Returns where it is not wanted (any more)."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    # TERM, not KILL: what is still in the page cache is to reach the upper layer.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != keeper:
        return
    try:
        message, place = orders.receive()
    except ClosedError:
        return
    given: _Serve = pickle.loads(message)  # by the process that has forked this one
    orders.close()
    _join(given.pid, place[given.pidfd])
    os.close(place[given.pidfd])
    # Another user namespace has cleared it.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == keeper:
        jail = socket.socket(fileno=place[given.jail])
        server.serve(given.spec, ready, jail=jail, counter=counter)


def _join(pid: int, pidfd: int) -> None:
    """Enters the user and mount namespaces of a process where they differ (setns(2), Linux 5.8)."""
    kinds = {"user": syscalls.CLONE_NEWUSER, "mnt": syscalls.CLONE_NEWNS}
    differ = sum(
        kind
        for name, kind in kinds.items()
        if os.stat(f"/proc/{pid}/ns/{name}").st_ino != os.stat(f"/proc/self/ns/{name}").st_ino
    )
    if differ:
        syscalls.setns(pidfd, differ)
