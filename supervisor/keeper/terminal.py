"""The terminal of `nanosup run`: the command gets one of its own, and what is typed and shown is
passed on.

The user's terminal itself never goes into a jail: whoever holds it can change its settings, and
push keystrokes into it (TIOCSTI). Two processes share the work. The front one keeps the user's
terminal, raw while it is in the foreground. The back one, the keeper, has the new terminal (pty(7))
as its controlling one, and starts the command in a process group of its own there: so the kernel
stops the command on Ctrl-Z as it does in a shell, since its group is no orphaned one (setpgid(2)).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from sandbox.jail import census

_STDIO = (0, 1, 2)
_CHUNK = 65536
# Ctrl-Z as a key; the terminal's own VSUSP may be another, but agents that put themselves to sleep
# know this one.
_CTRL_Z = 0x1A
# How long after such a key the command may take to stop, and in which steps that is looked at: the
# kernel tells only a process's parent, which is inside the jail.
_STOPS_WITHIN_S = 0.6
_LOOK_EVERY_MS = 20
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Passed:
    """What the back process has been given.

    Attributes:
        stderr: the descriptor that the command gets as its stderr. The back process's own is kept
            apart: what it says while the terminal is raw is shown when it is not any more.
    """

    stderr: int


def is_one() -> bool:
    """Whether stdin, stdout or stderr of this process is a terminal."""
    return any(os.isatty(fd) for fd in _STDIO)


def attend(back: Callable[[Passed], int]) -> int:
    """Runs `back` in a process of its own, with a terminal of its own in the place of this one,
    and passes on what is typed and shown until it ends. Returns its exit status.

    In that process it returns, or raises, what `back` does: the caller is to exit with it.

    Raises:
        OSError: there are no more terminals, or no more processes.
    """
    host = next(fd for fd in _STDIO if os.isatty(fd))
    are_terminals = [os.isatty(fd) for fd in _STDIO]
    master, slave = os.openpty()
    said = os.memfd_create("said", os.MFD_CLOEXEC)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, _size(host))
    termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(host))
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(master)
        return back(_take_place(slave, said, are_terminals))
    os.close(slave)
    front = Front(pid, master, host if are_terminals[0] else None, host)
    try:
        status = front.run()
    finally:
        os.close(master)
        _say(said)
    if os.WIFSIGNALED(status):
        print(
            f"nanosup: its keeper was killed by {signal.Signals(os.WTERMSIG(status)).name}",
            file=sys.stderr,
        )
        return 125
    return os.WEXITSTATUS(status)


def _take_place(slave: int, said: int, are_terminals: list[bool]) -> Passed:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    stderr = 2
    for fd in (0, 1):
        if are_terminals[fd]:
            os.dup2(slave, fd)
    if are_terminals[2]:
        os.dup2(said, 2)
        stderr = slave
    return Passed(stderr)


class Front:
    """The process at the user's terminal.

    Args:
        pid: the back process.
        master: the other side of the command's terminal.
        keyboard: the user's terminal, if the command reads from it.
        host: the user's terminal.
    """

    def __init__(self, pid: int, master: int, keyboard: int | None, host: int) -> None:
        self._pid = pid
        self._master = master
        self._keyboard = keyboard
        self._host = host
        # stdin may be open for reading only.
        self._screen = next((fd for fd in (1, 2) if os.isatty(fd)), host)
        self._typed = b""
        self._cooked: list[object] | None = None
        self._stops_until: float | None = None
        self._wakeup, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Returns the wait status of the back process, once all that it has shown was passed on."""
        os.set_blocking(self._master, False)
        handled = {number: signal.getsignal(number) for number in _HANDLED}
        previous = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, _nothing)
        try:
            self._grasp()
            return self._pump()
        finally:
            self._let_go()
            signal.set_wakeup_fd(previous)
            for number, handler in handled.items():
                signal.signal(number, handler)
            os.close(self._wakeup)
            os.close(self._writer)

    def _pump(self) -> int:
        while True:
            poll = select.poll()
            poll.register(self._wakeup, select.POLLIN)
            writes = select.POLLOUT if self._typed else 0
            poll.register(self._master, select.POLLIN | writes)
            # Not more than the command takes: the terminal's own buffer holds it back.
            if self._keyboard is not None and self._cooked is not None and not self._typed:
                poll.register(self._keyboard, select.POLLIN)
            ready = dict(poll.poll(_LOOK_EVERY_MS if self._stops_until is not None else None))
            if self._keyboard in ready:
                self._read_keyboard()
            if self._typed:
                self._write()
            if self._master in ready:
                self._show()
            if self._wakeup in ready and (status := self._answer()) is not None:
                while self._show():
                    pass
                return status
            if self._stops_until is not None:
                self._look_whether_stopped(self._stops_until)

    def _read_keyboard(self) -> None:
        assert self._keyboard is not None
        try:
            self._typed = os.read(self._keyboard, _CHUNK)
        except OSError:
            self._typed = b""
        if not self._typed:
            self._keyboard = None  # the terminal is gone: SIGHUP says the rest
        elif _CTRL_Z in self._typed:
            self._stops_until = time.monotonic() + _STOPS_WITHIN_S

    def _write(self) -> None:
        try:
            self._typed = self._typed[os.write(self._master, self._typed) :]
        except BlockingIOError:
            pass
        except OSError:
            self._typed = b""  # nobody reads any more

    def _show(self) -> bool:
        """Passes on what the command has shown. False: there is nothing more for now."""
        try:
            shown = os.read(self._master, _CHUNK)
        except OSError:  # EAGAIN; or EIO: no process has the other side open
            shown = b""
        view = memoryview(shown)
        while view:
            try:
                view = view[os.write(self._screen, view) :]
            except BlockingIOError:
                select.select([], [self._screen], [])
            except OSError:
                break  # whoever looked on has gone
        return bool(shown)

    def _answer(self) -> int | None:
        """Answers signals. Returns the wait status of the back process, if that has ended."""
        for number in os.read(self._wakeup, 512):
            if number == signal.SIGWINCH:
                self._resize()
            elif number == signal.SIGCONT:
                self._grasp_again()
            elif number == signal.SIGTSTP:
                self._suspend(signal.SIGTSTP)
            elif number in _PASSED_ON:
                _send(self._pid, number)
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return status if pid else None

    def _resize(self) -> None:
        try:
            # The kernel tells the command by SIGWINCH, if it is another size.
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, _size(self._host))
        except OSError:
            pass

    def _look_whether_stopped(self, until: float) -> None:
        group = self._group()
        if group is not None and _is_stopped(group):
            self._stops_until = None
            self._suspend(None)
        elif time.monotonic() >= until:
            self._stops_until = None

    def _suspend(self, number: signal.Signals | None) -> None:
        """Stops the command with `number` (None: it is stopped), and this process with it, as the
        user's shell expects it of a job; goes on when that is continued."""
        group = self._group()
        if number is not None and group is not None:
            _send(-group, number)
        self._let_go()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # All of the job, if it is a pipeline. Where there is no shell that could continue us the
        # kernel does not stop us (an orphaned process group), and the command goes on at once.
        os.killpg(os.getpgrp(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._grasp()
        self._resize()
        if group is not None:
            _send(-group, signal.SIGCONT)

    def _group(self) -> int | None:
        """The process group in the foreground of the command's terminal, once it has one."""
        try:
            group = os.tcgetpgrp(self._master)
        except OSError:
            return None
        return group if group > 0 and group != self._pid else None

    def _grasp(self) -> None:
        """Makes the user's terminal raw, if this job is in its foreground."""
        if self._keyboard is None or self._cooked is not None:
            return
        try:
            if os.tcgetpgrp(self._keyboard) != os.getpgrp():
                return
            self._cooked = termios.tcgetattr(self._keyboard)
            tty.setraw(self._keyboard, termios.TCSADRAIN)
        except (OSError, termios.error):
            self._cooked = None

    def _grasp_again(self) -> None:
        """After a stop that this process was not asked about (SIGSTOP): a shell has put the
        terminal back as it likes it."""
        cooked = self._cooked
        self._cooked = None
        self._grasp()
        if cooked is not None:
            self._cooked = cooked

    def _let_go(self) -> None:
        """Puts the user's terminal back as it was."""
        if self._cooked is None or self._keyboard is None:
            return
        try:
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._cooked)  # type: ignore[arg-type]
        except (OSError, termios.error):
            pass  # it is gone
        self._cooked = None


_HANDLED = (*_PASSED_ON, signal.SIGWINCH, signal.SIGCHLD, signal.SIGCONT, signal.SIGTSTP)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """What counts is the byte in the pipe."""


def _is_stopped(group: int) -> bool:
    """Whether the command in a terminal's foreground group is stopped.

    The group's leader is the jail's first process, below which are its init and the command; or,
    without namespaces, the command itself. The first two never stop. A shell that gives its jobs
    groups of their own looks after them itself.
    """
    below: int | None = group
    for _ in range(3):
        found = census.look_at(below) if below is not None else None
        if found is None:
            return False
        if found.state == "T":
            return True
        below = next(iter(census.children(found.pid)), None)
    return False


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _size(fd: int) -> bytes:
    """ioctl_tty(2), TIOCGWINSZ."""
    return fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8)


def _say(said: int) -> None:
    """Prints what the back process had to say."""
    os.lseek(said, 0, os.SEEK_SET)
    while text := os.read(said, _CHUNK):
        try:
            os.write(2, text)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                break
    os.close(said)
