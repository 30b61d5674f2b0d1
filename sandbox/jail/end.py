"""How a child ended, as a value; and how bubblewrap's account of it is read. Pure."""

from __future__ import annotations

import errno
import json
import os
import signal
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Exited:
    """The agent returned `code` (0 to 255)."""

    code: int


@dataclass(frozen=True, slots=True)
class Signaled:
    """The agent was killed by `signal`.

    Attributes:
        certain: the kernel said so. False: bubblewrap reported 128 + signal, which an agent that
            exits with that code by itself (shells do) looks like as well.
    """

    signal: int
    certain: bool = True

    @property
    def name(self) -> str:
        """E.g. "SIGKILL"."""
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"SIG{self.signal}"


class Cause(StrEnum):
    """Why a command never ran."""

    NOT_FOUND = "not found"
    NOT_EXECUTABLE = "not executable"
    JAIL = "jail"


@dataclass(frozen=True, slots=True)
class Unstarted:
    """The agent's command was never executed; nothing of it ran.

    Attributes:
        message: bubblewrap's own words.
    """

    cause: Cause
    message: str

    @property
    def code(self) -> int:
        """What env(1) and docker exit with: 127 not found, 126 cannot run, 125 our own failure."""
        return {Cause.NOT_FOUND: 127, Cause.NOT_EXECUTABLE: 126, Cause.JAIL: 125}[self.cause]


End = Exited | Signaled | Unstarted

# What execve(2) says of a file that is there.
_NOT_EXECUTABLE = (errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.ELOOP, errno.ETXTBSY)
_SIGNALS = frozenset(int(number) for number in signal.valid_signals())


def exit_code_of(status: bytes) -> int | None:
    """The "exit-code" among the lines of bwrap's --json-status-fd; None when the command never ran.

    bubblewrap writes it only after a successful execve(2).
    """
    for line in status.splitlines():
        if b'"exit-code"' not in line:  # there may be thousands (`latch.py`)
            continue
        try:
            document = json.loads(line)
        except ValueError:  # cut off by SIGKILL
            continue
        if isinstance(document, dict) and isinstance(document.get("exit-code"), int):
            return int(document["exit-code"])
    return None


def read_end(
    *,
    launcher: int,
    agent: int | None,
    reported: int | None,
    built: bool,
    message: str,
    found: bool = False,
) -> End:
    """Puts together what is known of a dead child.

    Attributes:
        launcher: wait status of bubblewrap itself.
        agent: wait status of the agent as the kernel remembers it, where it can be had.
        reported: exit code of the agent as bubblewrap reported it (128 + n for a signal).
        built: bubblewrap got as far as to its last steps before the command.
        message: what bubblewrap wrote to stderr, if it can be told apart.
        found: the command seems to be there; decides where there is no message.
    """
    if agent is not None and (reported is not None or os.WIFSIGNALED(launcher)):
        if os.WIFSIGNALED(agent):
            return Signaled(os.WTERMSIG(agent))
        return Exited(os.WEXITSTATUS(agent))
    if reported is not None:
        if reported > 128 and reported - 128 in _SIGNALS:
            return Signaled(reported - 128, certain=False)
        return Exited(reported)
    if os.WIFSIGNALED(launcher):
        return Signaled(os.WTERMSIG(launcher))
    if not built or (message and not message.startswith("execvp ")):
        return Unstarted(Cause.JAIL, message)
    denied = message.endswith(tuple(os.strerror(code) for code in _NOT_EXECUTABLE))
    if denied or (found and not message):
        return Unstarted(Cause.NOT_EXECUTABLE, message)
    return Unstarted(Cause.NOT_FOUND, message)
