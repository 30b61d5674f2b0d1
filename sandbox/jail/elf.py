"""A tiny static program, put together from system calls (elf(5), the psABIs). Pure.

Something has to run in a jail between bubblewrap and the command, and it has to be quick: another
interpreter would take longer than everything else of a lane's start, need not be visible in there,
and could be fooled by what is. A program that only makes a list of system calls needs no compiler,
no libc, and no memory but its stack.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MACHINES = frozenset({"x86_64", "aarch64"})

FAILED = 125  # exit status where a step did not work
REPORT = struct.Struct("=II")  # the step, counted from 1, and its errno
PID = struct.Struct("=i")

SLOTS = 32


@dataclass(frozen=True, slots=True)
class Constant:
    """The address of `content`, which nothing can change."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Slot:
    """What is in one of SLOTS variables of 64 bits; `address`: where it is."""

    number: int
    address: bool = False


@dataclass(frozen=True, slots=True)
class Arguments:
    """The argument vector without its first."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment vector."""


Value = int | Constant | Slot | Arguments | Environment


@dataclass(frozen=True, slots=True)
class Put:
    """Stores `value` in a slot."""

    slot: int
    value: Value


@dataclass(frozen=True, slots=True)
class Call:
    """A system call.

    Attributes:
        into: slot for what it returns.
        may_fail: go on whatever it returns; else the program reports it and exits with FAILED.
        last: what it returns where there is nothing more to be done: the program exits with FAILED.
    """

    number: int
    arguments: tuple[Value, ...]
    into: int | None = None
    may_fail: bool = False
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    """clone(2) without a stack of its own, so fork(2) with flags. The child goes on; the parent
    writes the child's pid, an int, to a descriptor, and exits with 0.

    Attributes:
        number: of the system call.
    """

    number: int
    flags: int
    pid_fd: int


@dataclass(frozen=True, slots=True)
class Exec:
    """execve(2) of `path` with the program's arguments and environment.

    What is no program is given to the shell, as execvp(3) does. An error is reported, and the next
    step follows.
    """

    path: bytes


Step = Put | Call | Fork | Exec
