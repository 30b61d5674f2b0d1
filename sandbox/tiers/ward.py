"""A command in a lane without namespaces, seen by the keeper: what `child.Child` is elsewhere."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from sandbox import syscalls
from sandbox.descriptor import readable
from sandbox.errors import JailError
from sandbox.jail import census, reaper
from sandbox.jail.census import Process
from sandbox.jail.command import Command
from sandbox.jail.end import Cause, End, Exited, Signaled, Unstarted
from sandbox.jail.feature import Features
from sandbox.tiers import warden
from sandbox.tiers.confinement import Confinement

_START_S = 30.0
_HINT = "`nanosup doctor` shows what this host forbids"


class Ward(Command):
    """A running command, with its warden. Made by `start`.

    Attributes:
        pid: host pid of the warden, whose descendants all of the lane's processes are.
        agent: host pid of the command; None where it was not executed.
        is_clean: False: something of the lane could not be killed. Known once it has ended.
    """

    SEEN_LIMIT = 100_000

    def __init__(self, pid: int, *, report: int, control: int, spared: frozenset[int]) -> None:
        super().__init__(pid)
        self.is_clean = True
        self._report = report
        self._control = control
        self._spared = spared
        self._said = b""

    def fileno(self) -> int:
        """A pidfd, readable once nothing is left of the lane."""
        return self._pidfd

    @property
    def has_exited(self) -> bool:
        """The command has ended, and what it left is being killed."""
        if self._end is not None:
            return True
        return self._agent_pidfd is not None and readable(self._agent_pidfd, 0)

    def wait(self, timeout_s: float | None = None) -> End | None:
        """Waits until nothing of the lane is left and says how the command ended; None: timed out.

        Processes that the command left behind are killed as soon as it ends.

        Raises JailError, once, where that was not possible: what they write to is not to be used.
        """
        if self._end is None and readable(self._pidfd, timeout_s):
            os.waitpid(self.pid, 0)
            last = self._last_word()
            if last is None:
                # The warden was killed. What it watched over has come to us.
                self.is_clean = reaper.sweep(
                    os.getpid(), timeout_s=warden.SWEEP_S, spared=self._spared
                )
                self._end = Signaled(signal.SIGKILL, certain=False)
            else:
                self._end = _end_of(last)
                self.left = tuple(Process(**one) for one in last.get("left", ()))
                self.is_clean = bool(last.get("clean", True))
            if not self.is_clean:
                raise JailError(
                    "something of the lane is still running and cannot be killed",
                    hint="look for its processes in state D, or that fork faster than they die",
                )
        return self._end

    @property
    def denied(self) -> dict[str, int]:
        """Nobody counts what is denied without namespaces: the kernel's audit is told."""
        return {}

    def kill(self) -> None:
        """Has everything in the lane killed. `wait` says when it is done."""
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    def processes(self) -> tuple[Process, ...]:
        """The command and what it started."""
        if self._end is not None:
            return ()
        return tuple(p for p in self._look() if p.pid != self.pid and p.state != "Z")

    def close(self) -> None:
        """Kills what is left, waits for it and closes all descriptors."""
        if self._report < 0:
            return
        self.kill()
        self.wait()
        self.abandon()

    def abandon(self) -> None:
        """Closes all descriptors, whether or not anything is left."""
        if self._report < 0:
            return
        self.kill()
        os.close(self._pidfd)
        os.close(self._report)
        if self._agent_pidfd is not None:
            os.close(self._agent_pidfd)
        self._report = -1

    def await_started(self, timeout_s: float) -> None:
        """Returns when the command is being executed, or could not be. Raises JailError."""
        if not readable(self._report, timeout_s):
            self.close()
            raise JailError(f"the lane was not ready after {timeout_s:g} s", hint=_HINT)
        self._said = os.read(self._report, 65536)
        first = json.loads(self._said.partition(b"\n")[0] or b"{}")
        if "agent" in first:
            self.agent = int(first["agent"])
            try:
                self._agent_pidfd = os.pidfd_open(self.agent)
            except OSError:
                pass  # it is dead already
            return
        if first.get("unstarted"):
            return
        self.close()
        why = first.get("failed") or first.get("message") or "its warden died"
        raise JailError(f"the lane cannot be confined: {why}", hint=_HINT)

    def _last_word(self) -> dict[str, Any] | None:
        while part := os.read(self._report, 65536):
            self._said += part
        lines = [json.loads(line) for line in self._said.splitlines()]
        return lines[-1] if lines and "agent" not in lines[-1] else None


def start(
    confinement: Confinement,
    features: Features,
    *,
    stdout: int,
    stderr: int,
    lock: int,
    stdin: int | None = None,
    limits: Mapping[int, int] | None = None,
) -> Ward:
    """Runs `confinement` and returns when its command is being executed.

    This process becomes the one that orphans come to, should the warden be killed.

    Args:
        stdout, stderr: descriptors, which stay open here; stdin: None: /dev/null.
        lock: a descriptor that is held until nothing of the lane is left.
        limits: resource.RLIMIT_* → limit.

    Raises JailError when the lane cannot be confined. A command that cannot be executed is no
    error: the end is then `Unstarted`.
    """
    if not confinement.argv or any("\0" in argument for argument in confinement.argv):
        raise JailError("there is no command to run, or a NUL byte in it")
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    spared = frozenset(census.children(os.getpid()))
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if stdin is None else -1
    report, report_w = os.pipe()
    control_r, control = os.pipe()
    keeper = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid == 0:
        os.close(control)
        warden.serve(
            confinement,
            features.landlock_abi,
            fds={0: null if stdin is None else stdin, 1: stdout, 2: stderr},
            report=report_w,
            control=control_r,
            keeper=keeper,
            lock=lock,
            limits=limits or {},
        )
    for fd in (report_w, control_r, keeper, null):
        if fd >= 0:
            os.close(fd)
    ward = Ward(pid, report=report, control=control, spared=spared)
    ward.await_started(_START_S)
    return ward


def _end_of(last: dict[str, Any]) -> End:
    if number := last.get("unstarted"):
        missing = number in (errno.ENOENT, errno.ENOTDIR)
        cause = Cause.NOT_FOUND if missing else Cause.NOT_EXECUTABLE
        return Unstarted(cause, str(last.get("message", "")))
    status = last.get("status")
    if status is None:
        return Unstarted(Cause.JAIL, str(last.get("failed", "nobody knows how it ended")))
    if os.WIFSIGNALED(status):
        return Signaled(os.WTERMSIG(status))
    return Exited(os.WEXITSTATUS(status))
