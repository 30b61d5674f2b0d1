"""The last steps in a jail before the command: limits, landlock, the filter of system calls. Pure.

bubblewrap has no place for them: a process that landlock confines can mount nothing, so they have
to come when the jail is built, and inside of it. So bubblewrap runs a program of these steps
(`elf.py`), which then becomes the command.
"""

from __future__ import annotations

import errno
import os.path
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sandbox.jail import elf, encoding, step
from sandbox.jail.elf import Constant, Exec, Put, Slot, Step
from sandbox.jail.feature import Features
from sandbox.jail.jail import ENTRY_FD, REPORT_FD, Bind, JailSpec, Mask, operations
from sandbox.jail.landlock import writes_only_below

_CLOSE_RANGE_CLOEXEC = 4
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_LOG, _SECCOMP_FILTER_FLAG_NEW_LISTENER = 2, 8
_SOL_SOCKET, _SCM_RIGHTS = 1, 1

# Reports about no step: what follows are attempts at execve(2); none of them succeeded.
_READY = elf.REPORT.pack(0, 0)
_NOT_EXECUTED = elf.REPORT.pack(0, 1)

_DEFAULT_PATH = "/bin:/usr/bin"

# What bubblewrap puts into /dev that takes files.
_DEVICES_FOR_ALL = ("/dev/shm", "/dev/mqueue")


@dataclass(frozen=True, slots=True)
class Entry:
    """The program, and what its steps are called.

    Attributes:
        names: of each step, counted from 1.
    """

    program: bytes
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the command was not executed.

    Attributes:
        ready: everything before it was done.
        error: errno.
        step: what did not work, where not `ready`.
    """

    ready: bool
    error: int
    step: str


def writable(spec: JailSpec) -> tuple[str, ...]:
    """The directories and files that the jail's mounts let the command change."""
    listed = operations(spec)
    return (
        *(at.target for at in listed if isinstance(at, Bind | Mask) and at.writable),
        *_DEVICES_FOR_ALL,
    )


def entry_of(
    spec: JailSpec,
    features: Features,
    *,
    limits: Mapping[int, int],
    filter_program: bytes | None,
) -> Entry:
    """The entry for `spec`; only for a machine of elf.MACHINES.

    Attributes:
        limits: number of a resource (getrlimit(2)) → soft and hard limit.
    """
    machine = features.machine
    steps: list[tuple[str, Step]] = []

    def call(name: str, number: str, *arguments: elf.Value, may_fail: bool = False) -> None:
        steps.append((name, step.call(machine, number, *arguments, may_fail=may_fail)))

    for kind, limit in sorted(limits.items()):
        value = Constant(struct.pack("=QQ", limit, limit))
        call(f"limit {kind} of {limit}", "prlimit64", 0, kind, value, 0)
    if features.confined:
        domain = writes_only_below(features.landlock_abi, writable(spec))
        steps += step.landlock(domain, machine)
    steps += (step.close_on_exec(machine, fd) for fd in (ENTRY_FD, REPORT_FD))
    # Nothing else is open, as far as anybody knows (Linux 5.11).
    call("close-on-exec", "close_range", 3, 0xFFFF_FFFF, _CLOSE_RANGE_CLOEXEC, may_fail=True)
    if filter_program is None:
        call("report", "write", REPORT_FD, Constant(_READY), len(_READY))
    else:
        steps += _seccomp(filter_program, machine, notify=features.notifies)
    # An answer: it was seen by who is told, before it becomes a command that may end at once.
    call("answer", "read", REPORT_FD, Slot(0, address=True), 1)
    steps += ((path, Exec(step.encoded(path))) for path in _candidates(spec))
    call("report", "write", REPORT_FD, Constant(_NOT_EXECUTED), len(_NOT_EXECUTED))
    return Entry(
        encoding.program(features.machine, [each for _, each in steps], report_fd=REPORT_FD),
        tuple(name for name, _ in steps),
    )


def _seccomp(program: bytes, machine: str, *, notify: bool) -> Iterable[tuple[str, Step]]:
    """Loads the filter, and reports that all is done; with the filter's listener, if there is one.

    Without a listener the kernel's audit is told what is denied (FLAG_LOG).
    """
    flag = _SECCOMP_FILTER_FLAG_NEW_LISTENER if notify else _SECCOMP_FILTER_FLAG_LOG
    message, vector, control = 2, 9, 11  # slots of a struct msghdr, an iovec and a cmsghdr
    yield "seccomp", Put(0, len(program) // 8)  # struct sock_fprog
    yield "seccomp", Put(1, Constant(program))
    loading = (_SECCOMP_SET_MODE_FILTER, flag, Slot(0, address=True))
    yield (
        "the filter of system calls",
        step.call(machine, "seccomp", *loading, into=control + 2 if notify else None),
    )
    if not notify:
        yield "report", step.call(machine, "write", REPORT_FD, Constant(_READY), len(_READY))
        return
    layout: list[elf.Value] = [
        *(0, 0, Slot(vector, address=True), 1, Slot(control, address=True), 24, 0),
        *(Constant(_READY), len(_READY)),
        *(20, _SOL_SOCKET | _SCM_RIGHTS << 32),  # then the listener
    ]
    for slot, item in enumerate(layout, message):
        yield "report", Put(slot, item)
    yield "report", step.call(machine, "sendmsg", REPORT_FD, Slot(message, address=True), 0)


def _candidates(spec: JailSpec) -> Iterable[str]:
    """Where execvp(3) would look for the command."""
    name = spec.argv[0]
    if "/" in name:
        return (name,)
    path = spec.env.get("PATH", _DEFAULT_PATH).split(":")
    return dict.fromkeys(os.path.join(entry or ".", name) for entry in path) if name else ()


def read_report(report: bytes, entry: Entry) -> Failure | None:
    """What the entry has told until its end of the pipe was closed; None: nothing went wrong that
    it could tell.
    """
    ready = False
    errors: list[int] = []
    for at in range(0, len(report) - len(report) % elf.REPORT.size, elf.REPORT.size):
        step, error = elf.REPORT.unpack_from(report, at)
        record = report[at : at + elf.REPORT.size]
        if record == _READY:
            ready = True
        elif record == _NOT_EXECUTED:
            # As execvp(3): what is there and cannot be executed outweighs what is not there.
            there = [error for error in errors if error not in (errno.ENOENT, errno.ENOTDIR)]
            return Failure(True, there[0] if there else errno.ENOENT, "")
        elif ready:
            errors.append(error)
        else:
            return Failure(False, error, entry.names[step - 1])
    return None


def has_begun(report: bytes) -> bool:
    """Whether the entry got as far as to the command."""
    return report[: elf.REPORT.size] == _READY
