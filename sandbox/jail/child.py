"""A command in a jail, seen by the keeper that started it.

Order of processes: keeper → bubblewrap (first of a PID namespace of ours) → bubblewrap's init
(first of the jail's) → the command. Killing the first kills all, and when it has been waited for,
all are dead, daemons that forked twice included.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from contextlib import suppress

from sandbox import syscalls
from sandbox.descriptor import readable
from sandbox.errors import JailError
from sandbox.jail import census
from sandbox.jail.census import Process
from sandbox.jail.command import Command
from sandbox.jail.denial import Denials
from sandbox.jail.end import Cause, End, Unstarted, exit_code_of, read_end
from sandbox.jail.entry import Entry, Failure, has_begun, read_report
from sandbox.jail.latch import Latch

# In the jail: its init is the first process there, and forks nothing before the command.
_COMMAND_PID = 2


class Child(Command):
    """A running command. Made by `launch.begin`; the thread that made it must stay alive.

    Args:
        built: our end of what bubblewrap waits at until `await_built`.

    Attributes:
        pid: host pid of the jail's outermost process.
        agent: host pid of the command itself; None where it ended before it could be seen.
        left: what the command had left running when it ended; by `wait` it is dead.
    """

    SEEN_LIMIT = 10_000

    def __init__(
        self,
        pid: int,
        *,
        built: socket.socket,
        status_fd: int,
        stderr_fd: int,
        stderr_offset: int | None,
        command: str,
        program: str | None,
        report_fd: int | None = None,
        entry: Entry | None = None,
        machine: str | None = None,
    ) -> None:
        super().__init__(pid)
        self._epoll = select.epoll()
        self._epoll.register(self._pidfd, select.EPOLLIN)
        self._built_by = built
        self._latch = Latch(status_fd)
        self._is_latched = False
        self._status_fd = status_fd
        self._stderr_fd = stderr_fd
        self._stderr_offset = stderr_offset
        self._command = command
        self._program = program
        self._report_fd = report_fd
        self._entry = entry
        self._machine = machine
        self._denials: Denials | None = None
        self._hears = True
        self._failure: Failure | None = None
        self._built = False

    def fileno(self) -> int:
        """Readable when `poll` has something to find out: for select, epoll and event loops."""
        return self._epoll.fileno()

    @property
    def has_exited(self) -> bool:
        """The command has ended, and what it left is being killed. As far as `poll` knows."""
        return self._end is not None or (self._agent_pidfd is not None and not self._is_latched)

    def wait(self, timeout_s: float | None = None) -> End | None:
        """Waits until nothing of the jail is left and says how the command ended; None: timed out.

        Processes that the command left behind are killed as soon as it ends.
        """
        if self._end is None and self._await_death(timeout_s):
            _, launcher = os.waitpid(self.pid, 0)
            agent = self._agent_pidfd
            if self._failure is not None and self._built:
                self._end = self._unstarted(self._failure)
                return self._end
            self._end = read_end(
                launcher=launcher,
                agent=None if agent is None else syscalls.pidfd_exit_status(agent),
                reported=exit_code_of(self._latch.hear()),
                built=self._built,
                message=self._complaint(),
                found=self._program is not None,
            )
        return self._end

    def _await_death(self, timeout_s: float | None) -> bool:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        left_s: float | None = None
        while not readable(self._pidfd, 0):
            # One look, however many of a lane's calls wait to be denied.
            if left_s == 0:
                return False
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not readable(self._epoll.fileno(), left_s):
                return False
            if self._denials is not None and not self._denials.answer():
                self._unhear()
            latched = self._agent_pidfd if self._is_latched else None
            if latched is not None and readable(latched, 0):
                self.left = self._orphans()
                self._unlatch()
        return True

    def _unhear(self) -> None:
        """Nobody is left who could be denied anything: else it would be told for ever."""
        if self._hears and self._denials is not None:
            self._hears = False
            self._epoll.unregister(self._denials.fileno())

    def _shut(self) -> None:
        if not self._is_latched:
            self._is_latched = True
            self._latch.shut()

    def _unlatch(self) -> None:
        if self._is_latched:
            self._is_latched = False
            if self._agent_pidfd is not None:
                self._epoll.unregister(self._agent_pidfd)
            self._latch.open()

    def kill(self) -> None:
        """SIGKILL to everything in the jail at once. `wait` says when it is done."""
        if self._end is None:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._unlatch()

    def processes(self) -> tuple[Process, ...]:
        """The command and what it started, leaving out bubblewrap's own two."""
        if self._end is not None:
            return ()
        everyone = self._look()
        inner = {process.pid for process in everyone if process.parent == self.pid}
        return tuple(
            process
            for process in everyone
            if process.pid != self.pid and process.pid not in inner and process.state != "Z"
        )

    def _orphans(self) -> tuple[Process, ...]:
        """What the command has left running. It is being reaped, and while that is done the kernel
        may leave out the next of its list of children (fs/proc/array.c): so it is read twice."""
        return tuple({one.pid: one for one in (*self.processes(), *self.processes())}.values())

    @property
    def denied(self) -> dict[str, int]:
        """How often each system call was denied so far; where nobody is told, always empty."""
        return self._denials.counts if self._denials is not None else {}

    def close(self) -> None:
        """Kills what is left, waits for it and closes all descriptors."""
        if self._status_fd < 0:
            return
        self.kill()
        self.wait()
        self.abandon()

    def abandon(self) -> None:
        """Closes all descriptors, whether or not anything is left: a process in state D dies of
        its SIGKILL when the kernel lets it."""
        if self._status_fd < 0:
            return
        self._epoll.close()
        self._built_by.close()
        os.close(self._pidfd)
        os.close(self._status_fd)
        os.close(self._stderr_fd)
        if self._agent_pidfd is not None:
            os.close(self._agent_pidfd)
        if self._report_fd is not None:
            os.close(self._report_fd)
        if self._denials is not None:
            self._denials.close()
        self._status_fd = -1

    def await_built(self, timeout_s: float) -> None:
        """Has bubblewrap go on to the command (bwrap(1), --block-fd), and returns when that is
        about to be executed, or has ended.

        Raises JailError when the jail could not be built, or not in time.
        """
        with self._built_by as built:
            if self._report_fd is not None and self._latch.await_start(timeout_s):
                self._shut()  # before there is a command that could end
            going = _let_go(built)
            in_time = readable(built.fileno(), timeout_s)
            self._built = going and in_time and _was_read(built)
        if self._built and in_time and self._report_fd is not None:
            in_time = self._hear(self._report_fd, time.monotonic() + timeout_s)
        if self._failure is not None:
            self._unlatch()
            self.wait()
        elif self._built and in_time:
            if self._report_fd is None:
                self._find_agent(timeout_s)
        elif not in_time:
            self.close()
            raise JailError(
                f"the jail was not ready after {timeout_s:g} s",
                hint="a mount of this host may hang: look at `mount` for dead network file systems",
            )
        else:
            self._unlatch()
            self.wait()
        if isinstance(self._end, Unstarted) and self._end.cause is Cause.JAIL:
            self.close()
            raise JailError(
                f"the jail cannot be built: {self._end.message or 'bubblewrap gave no reason'}",
                hint="`nanosup doctor` shows what this host forbids",
            )

    def _hear(self, report_fd: int, deadline: float) -> bool:
        """Reads what the entry reports, until it has become the command or has ended."""
        assert self._entry is not None
        report = b""
        while readable(report_fd, max(deadline - time.monotonic(), 0)):
            part, fds = _received(report_fd)
            for listener in fds:
                assert self._machine is not None
                self._denials = Denials(listener, self._machine)
                self._epoll.register(listener, select.EPOLLIN)
            if not part:
                self._failure = read_report(report, self._entry)
                self._built = has_begun(report) or self._failure is not None
                return True
            if not report and has_begun(part):
                self._find_agent(deadline - time.monotonic())
                with suppress(BrokenPipeError):  # it was killed
                    os.write(report_fd, b"\0")
            report += part
        return False

    def _unstarted(self, failure: Failure) -> Unstarted:
        why = os.strerror(failure.error)
        if not failure.ready:
            return Unstarted(Cause.JAIL, f"{failure.step}: {why}")
        missing = failure.error in (errno.ENOENT, errno.ENOTDIR)
        cause = Cause.NOT_FOUND if missing else Cause.NOT_EXECUTABLE
        return Unstarted(cause, f"{self._command}: {why}")

    def _find_agent(self, timeout_s: float) -> None:
        """Opens a pidfd of the command, which bubblewrap is just forking, or has forked."""
        deadline = time.monotonic() + timeout_s
        init = next(iter(census.children(self.pid)), None)
        while init is not None and time.monotonic() < deadline:
            oldest = next(iter(census.children(init)), None)
            if oldest is not None and self._take(oldest, init):
                return
            # The command was there already: it has ended, and what is there are orphans of its.
            if oldest is not None or self._is_latched:
                self.left = self._orphans()
                break
            if self.wait(0.0005) is not None:
                return
        self._unlatch()

    def _take(self, pid: int, init: int) -> bool:
        """Whether `pid`, a child of `init` a moment ago, is the command. It is watched then."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        process = census.look_at(pid)
        # Still the parent's child: then the pidfd is not of a reused pid.
        if process is None or process.parent != init or census.inner_pid(pid) != _COMMAND_PID:
            os.close(pidfd)
            return False
        self.agent, self._agent_pidfd = pid, pidfd
        self.seen.add(pid)
        self._shut()
        self._epoll.register(pidfd, select.EPOLLIN)
        return True

    def _complaint(self) -> str:
        """bubblewrap's last line on stderr, where only it can have written: nothing else ran."""
        if self._stderr_offset is None:
            return ""
        try:
            # It may be open for writing only.
            readable = os.open(f"/proc/self/fd/{self._stderr_fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = os.pread(readable, 4096, self._stderr_offset)
            finally:
                os.close(readable)
        except OSError:
            return ""
        lines = text.decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("bwrap: ") if lines else ""


def _received(fd: int) -> tuple[bytes, list[int]]:
    """What comes in on the socket `fd`, and descriptors that come along (unix(7))."""
    channel = socket.socket(fileno=fd)
    try:
        data, fds, _, _ = socket.recv_fds(channel, 4096, 1, socket.MSG_CMSG_CLOEXEC)
    finally:
        channel.detach()
    return data, fds


def _let_go(built: socket.socket) -> bool:
    """Sends the byte that bubblewrap waits for; False where it is dead already."""
    try:
        built.send(b"\0")
    except BrokenPipeError:
        return False
    return True


def _was_read(built: socket.socket) -> bool:
    """Whether the byte that was sent has been read by a peer that is closed now (unix(7))."""
    try:
        built.recv(1)
    except ConnectionResetError:
        return False
    return True
