"""A running command as the keeper sees it: what is alike in a jail and without namespaces."""

from __future__ import annotations

import os
import signal
from types import TracebackType
from typing import Self

from sandbox.jail import census
from sandbox.jail.census import Process
from sandbox.jail.end import End


class Command:
    """What `child.Child` and `ward.Ward` have in common.

    Attributes:
        pid: host pid of the outermost process, whose descendants all of the lane's processes are.
        agent: host pid of the command itself; None where it ended before it could be seen.
        left: what the command had left running when it ended.
        seen: pids of the lane that were seen so far by looking (`processes`, `cpu_s`).
    """

    SEEN_LIMIT: int

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.agent: int | None = None
        self.left: tuple[Process, ...] = ()
        self.seen: set[int] = set()
        self._pidfd = os.pidfd_open(pid)
        self._agent_pidfd: int | None = None
        self._end: End | None = None

    @property
    def has_exited(self) -> bool:
        """The command has ended, and what it left is being killed. As far as `poll` knows."""
        raise NotImplementedError

    @property
    def end(self) -> End | None:
        """How it ended, as far as `poll` or `wait` have found out."""
        return self._end

    def poll(self) -> End | None:
        """How it ended, or None. Never blocks."""
        return self.wait(0)

    def wait(self, timeout_s: float | None = None) -> End | None:
        """Waits until nothing of the lane is left and says how the command ended; None: timed out.

        Processes that the command left behind are killed as soon as it ends.
        """
        raise NotImplementedError

    def terminate(self, number: int = signal.SIGTERM) -> bool:
        """Sends a signal to the command. False: there is none any more, or none was ever seen."""
        if self._agent_pidfd is None or self._end is not None:
            return False
        try:
            signal.pidfd_send_signal(self._agent_pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def agent_state(self) -> str:
        """The command's state as in /proc/PID/stat: "T" is stopped; empty where it has ended."""
        if self.agent is None or self.has_exited:
            return ""
        process = census.look_at(self.agent)
        return process.state if process is not None else ""

    def cpu_s(self) -> float:
        """CPU seconds used in the lane, by what lives and by the dead that were waited for."""
        return sum(process.cpu_ticks for process in self._look()) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Kills what is left, waits for it and closes all descriptors."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _look(self) -> tuple[Process, ...]:
        everyone = tuple(census.descend(self.pid))
        if len(self.seen) < self.SEEN_LIMIT:
            self.seen.update(process.pid for process in everyone)
        return everyone
