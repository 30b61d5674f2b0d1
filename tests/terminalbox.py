"""A person at a terminal: a command runs on a pty, in a session with a shell's habits."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_S = 30

# Does what a shell does with a foreground job: a process group of its own, the terminal given to it
# and taken back, and told when it stops. `fg` on its stdin continues it.
SHELL = r"""
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
tty = os.open("/dev/tty", os.O_RDWR)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(tty, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execvp(sys.argv[2], sys.argv[2:])
report = int(sys.argv[1])
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    os.tcsetpgrp(tty, os.getpgrp())
    if not os.WIFSTOPPED(status):
        code = os.waitstatus_to_exitcode(status)
        os.write(report, b"ended %d\n" % code)
        break
    os.write(report, b"stopped\n")
    signal.sigwait({signal.SIGUSR1})
    os.tcsetpgrp(tty, os.getpgid(job))
    os.killpg(os.getpgid(job), signal.SIGCONT)
"""


class Terminal:
    """A terminal with a command in its foreground. Use as a context manager."""

    def __init__(
        self, command: Sequence[str], cwd: Path, env: dict[str, str], *, rows: int, columns: int
    ) -> None:
        self.master, slave = os.openpty()
        self.slave = slave
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self._report, report = os.pipe()
        self.shown = ""
        self._said = b""

        def take() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            # Tests may run under nohup(1).
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            # Blocked, so that none is lost before the shell waits for it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

        self._shell = subprocess.Popen(
            [sys.executable, "-c", SHELL, str(report), *command],
            cwd=cwd, env=env, stdin=slave, stdout=slave, stderr=slave,
            pass_fds=(report,), preexec_fn=take,
        )  # fmt: skip
        os.close(report)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shell.poll() is None:
            self._shell.kill()
        self._shell.wait()
        for fd in (self.master, self.slave, self._report):
            if fd >= 0:
                os.close(fd)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def hang_up(self) -> None:
        """Closes the window."""
        os.close(self.slave)
        os.close(self.master)
        self.master = self.slave = -1

    def expect(self, pattern: str) -> re.Match[str]:
        """Waits until what is shown, since the last match, has `pattern`."""
        deadline = time.monotonic() + TIMEOUT_S
        while (found := re.search(pattern, self.shown)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} is not in {self.shown!r}"
            if select.select([self.master], [], [], left)[0]:
                self.shown += os.read(self.master, 65536).decode()
        self.shown = self.shown[found.end() :]
        return found

    def status(self) -> str:
        """What became of the job: "stopped" or "ended CODE". Waits for it; shows meanwhile."""
        deadline = time.monotonic() + TIMEOUT_S
        while b"\n" not in self._said:
            left = deadline - time.monotonic()
            watched = [self._report] + ([self.master] if self.master >= 0 else [])
            ready = select.select(watched, [], [], max(left, 0))[0]
            assert ready, f"nothing became of it; it shows {self.shown!r}"
            if self.master in ready:
                self.shown += os.read(self.master, 65536).decode()
            if self._report in ready:
                part = os.read(self._report, 100)
                assert part, "the shell has died"
                self._said += part
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def continue_job(self) -> None:
        """What `fg` does. Returns once the job has the terminal in its own way again."""
        os.kill(self._shell.pid, signal.SIGUSR1)
        deadline = time.monotonic() + TIMEOUT_S
        while self.is_restored:
            assert time.monotonic() < deadline, "the job was continued, and left the terminal alone"
            time.sleep(0.01)

    @property
    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before
