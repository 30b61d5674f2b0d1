"""The FUSE server of a lane: a process of its own, between the keeper and the kernel."""

from __future__ import annotations

import os
import signal
import time
from types import TracebackType
from typing import Protocol, Self

from sandbox import syscalls
from sandbox.descriptor import readable
from sandbox.errors import MountError
from sandbox.mount import server
from sandbox.union.counter import Counter
from sandbox.union.spec import MountSpec

_READY_S = 30.0
_STOP_S = 30.0
_DEATH_S = 5.0


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
        """Returns when it can be used. Raises MountError."""

    def attend(self, jail: int) -> None:
        """Is told the process with whose death everything that uses the view is dead."""

    def kill(self) -> None:
        """Takes the view away at once; whoever waits for an answer of it fails."""

    def stop(self) -> None:
        """Returns when everything written is in the upper layer. Raises MountError."""


class Server:
    """Serves `spec` from a forked process. Leaving it kills the server if it still runs.

    A process that serves a mount must never start a child whose working directory is in it: that
    deadlocks in the kernel. So the keeper, which starts the jail, does not serve.
    """

    def __init__(self, spec: MountSpec) -> None:
        self._ready, ready = os.pipe()
        keeper = os.getpid()
        self._counter = Counter()
        self._is_writable = spec.upper is not None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._ready)
                # TERM, not KILL: what is still in the page cache is to reach the upper layer.
                syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
                if os.getppid() == keeper:
                    server.serve(spec, ready, counter=self._counter)
            finally:
                os._exit(1)
        os.close(ready)
        self._pidfd = os.pidfd_open(self.pid)
        self._reaped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._reaped:
            # Also where it hangs: the kernel then aborts the connection, and the mount goes with
            # the namespace.
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            # One in state D (a disk that hangs) dies when the kernel lets it; it is not waited for.
            if readable(self._pidfd, _DEATH_S):
                self._reap()
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
        """
        if not readable(self._ready, _READY_S):
            raise MountError(
                f"the lane's file system was not mounted after {_READY_S:g} s",
                hint="`nanosup doctor` shows what this host lacks",
            )
        answer = os.read(self._ready, 4096)
        if answer[:1] != b"\1":
            said = answer.decode(errors="replace").strip() or "its server died"
            raise MountError(
                f"the lane's file system cannot be mounted: {said}",
                hint="`nanosup doctor` shows what this host lacks",
            )

    def attend(self, jail: int) -> None:
        """The kernel tells this server when nobody uses the mount any more."""

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
