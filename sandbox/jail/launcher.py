"""The first steps of a jail: from a process of the keeper's to the first one of a PID namespace,
which then becomes bubblewrap. Pure.

A program of system calls (`elf`), since the keeper, a Python process, would have to be forked for
it twice, and each time that copies the tables of all its pages.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sandbox.jail import elf, encoding, step
from sandbox.jail.elf import Constant, Exec, Fork, Put, Slot, Step
from sandbox.jail.landlock import ABI_SCOPES, Domain, Right, scopes

# Short of memory, the kernel is to take the agent, not its keeper or the file system under it.
_OOM_SCORE = b"500"

_SIGCHLD, _SIGKILL, _SIGTTOU = 17, 9, 22
_CLONE_PARENT = 0x8000
_CLONE_NEWPID, _CLONE_NEWNET = 0x2000_0000, 0x4000_0000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_O_WRONLY_CLOEXEC = 0x1 | 0x8_0000
_KEYCTL_JOIN_SESSION_KEYRING = 1
_TIOCSCTTY, _TIOCSPGRP = 0x540E, 0x5410
_SIGACTION_BYTES = 32
_IGNORED = (32, 33)  # glibc's own, which its posix_spawn(3) leaves ignored
_SIG_BLOCK, _SIG_SETMASK, _SIGSET_BYTES = 0, 2, 8
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_LINUX_CAPABILITY_VERSION_3 = 0x2008_0522
_POLLIN = 1
_UMASK = 0o022


class Terminal(Enum):
    """What the terminal on one of the descriptors 0 to 2 is to the process that launches.

    Attributes:
        OTHERS: of another session, or of none.
        OURS: of its session.
    """

    OTHERS = 1
    OURS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is to be done.

    Attributes:
        path: the program to become.
        pid_fd: takes the pid of the first process, as elf.PID.
        report_fd: takes an elf.REPORT of what did not work; closed when all did. The highest of
            the descriptors that stay open; those above are only for here.
        keeper_fd: pidfd of the process with whose death the jail is to end.
        group_fds: files of control groups to write `0` to.
        netns_fd: network namespace to be in; None: the present one.
        ids: uid and gid to become; None: neither changes, and no capability is to be left.
        limits: number of a resource → soft and hard limit.
        terminal: None: there is none.
        terminal_fd: one of 0 to 2, where there is one.
        scoped: no signals to, and no abstract unix sockets of, anything outside (landlock).
    """

    path: str
    pid_fd: int
    report_fd: int
    keeper_fd: int
    group_fds: tuple[int, ...]
    netns_fd: int | None
    ids: tuple[int, int] | None
    limits: Mapping[int, int]
    terminal: Terminal | None
    terminal_fd: int
    scoped: bool


@dataclass(frozen=True, slots=True)
class Launcher:
    """The program, and what its steps are called, counted from 1.

    It exits with 0 once there is the process, of which its parent is then the parent.
    """

    program: bytes
    names: tuple[str, ...]

    def failure(self, report: bytes) -> tuple[str, int]:
        """The step that did not work, and its errno."""
        if len(report) < elf.REPORT.size:
            return "it ended without a word", errno.EIO
        number, error = elf.REPORT.unpack_from(report)
        return self.names[number - 1], error


def launcher(machine: str, launch: Launch) -> Launcher:
    """The program for `machine`, one of elf.MACHINES.

    It mounts the /proc of the new namespace over that of the mount namespace which it starts in.
    """
    steps: list[tuple[str, Step]] = []

    def call(
        name: str, *arguments: elf.Value, into: int | None = None, may_fail: bool = False
    ) -> None:
        made = step.call(machine, name, *arguments, into=into, may_fail=may_fail)
        steps.append((f"{name}(2)", made))

    # Of the keeper, whose thread that launches it is not to outlive (PR_SET_PDEATHSIG(2const)).
    flags = _CLONE_NEWPID | _CLONE_PARENT | _SIGCHLD
    fork = Fork(step.number(machine, "clone"), flags, launch.pid_fd)
    steps.append(("a process namespace", fork))
    for signal in _IGNORED:
        call("rt_sigaction", signal, Constant(bytes(_SIGACTION_BYTES)), 0, _SIGSET_BYTES)
    if launch.terminal is None:
        call("setsid")
    for fd in launch.group_fds:
        call("write", fd, Constant(b"0"), 1)
    if launch.netns_fd is not None:
        call("setns", launch.netns_fd, _CLONE_NEWNET)
    # bubblewrap looks its children up there by pid.
    proc = step.text("proc")
    call("mount", proc, step.text("/proc"), proc, _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, 0)
    score = step.text("/proc/self/oom_score_adj")
    call("openat", step.AT_FDCWD, score, _O_WRONLY_CLOEXEC, into=0, may_fail=True)
    call("write", Slot(0), Constant(_OOM_SCORE), len(_OOM_SCORE), may_fail=True)
    call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, 0, may_fail=True)  # a kernel without keyrings
    if launch.terminal is Terminal.OTHERS:
        call("setsid")
        call("ioctl", launch.terminal_fd, _TIOCSCTTY, 0)
    elif launch.terminal is Terminal.OURS:
        # A group of its own in the keeper's session: then it is not orphaned, and Ctrl-Z stops what
        # is in it. (The first processes of PID namespaces it does not stop.)
        call("setpgid", 0, 0)
        stops = Constant(struct.pack("=Q", 1 << _SIGTTOU - 1))
        call("rt_sigprocmask", _SIG_BLOCK, stops, 0, _SIGSET_BYTES)
        call("ioctl", launch.terminal_fd, _TIOCSPGRP, Constant(elf.PID.pack(1)))
        call("rt_sigprocmask", _SIG_SETMASK, Constant(bytes(_SIGSET_BYTES)), 0, _SIGSET_BYTES)
    for kind, limit in launch.limits.items():
        call("prlimit64", 0, kind, Constant(struct.pack("=QQ", limit, limit)), 0)
    if launch.ids is not None:
        uid, gid = launch.ids
        call("setgroups", 0, 0)
        call("setresgid", gid, gid, gid)
        call("setresuid", uid, uid, uid)
    else:
        call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        header = Constant(struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0))
        call("capset", header, Constant(bytes(24)))
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if launch.scoped:
        # It handles no right to files, so bubblewrap can mount in it.
        steps += step.landlock(Domain(Right(0), scopes(ABI_SCOPES)), machine)
    # Only now: a change of uid clears it. And the keeper may have died before.
    call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    steps.append(("pollfd", Put(0, launch.keeper_fd | _POLLIN << 32)))
    at_once = Constant(bytes(16))
    polled = (Slot(0, address=True), 1, at_once, 0, _SIGSET_BYTES)
    steps.append(("ppoll(2)", step.call(machine, "ppoll", *polled, last=1)))
    call("umask", _UMASK)
    call("chdir", step.text("/"))
    steps.append(step.close_on_exec(machine, launch.report_fd))
    call("close_range", launch.report_fd + 1, 0xFFFF_FFFF, 0)
    steps.append((launch.path, Exec(step.encoded(launch.path))))
    return Launcher(
        encoding.program(machine, [each for _, each in steps], report_fd=launch.report_fd),
        tuple(name for name, _ in steps),
    )
