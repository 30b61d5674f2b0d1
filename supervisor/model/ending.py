"""How the watch over a lane ended, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sandbox.jail.census import Process


class Cause(Enum):
    """Why a lane ended."""

    EXIT = "the command ended by itself"
    TIMEOUT = "it took longer than timeout_s"
    STALL = "it gave no sign of life for stall_s"
    DONE = "it said that it was done, and then nothing more"
    REQUEST = "somebody asked for it"
    MOUNT = "its file system went away"
    DISK = "it had more on disk than limits.disk"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a vigil ended.

    Attributes:
        stopped: the command was stopped (SIGSTOP) when it was given up.
        served: its file system's server is still there, and was not in the way.
        left: what the command had left running when it ended; dead by now.
        stuck: what could not be killed, and may live on.
    """

    cause: Cause
    stopped: bool = False
    served: bool = True
    left: tuple[Process, ...] = ()
    stuck: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """An agent's own end-of-work event, as far as it matters here.

    Attributes:
        type: its "type".
        failed: it says that the work has failed.
    """

    type: str
    failed: bool
