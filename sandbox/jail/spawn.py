"""Starting a jail's first process: between the two nothing is inherited but what is named.

Python's subprocess cannot put the child into a PID namespace and drop root *and* bind its life to
its parent's in the right order, so `launcher` does it.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from sandbox import syscalls
from sandbox.descriptor import write_whole
from sandbox.errors import JailError
from sandbox.jail import elf
from sandbox.jail.launcher import Launch, Launcher, Terminal, launcher

# RLIMIT_CORE of 1: no file can be as small, and it is the one value for which the kernel does not
# start a core_pattern pipe either (core(5) says that 0 does not hold for pipes; fs/coredump.c).
_NO_CORE = 1

_SIGNALS = tuple(
    int(number)
    for number in signal.valid_signals()
    if number not in (signal.SIGKILL, signal.SIGSTOP)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A process to be.

    Attributes:
        fds: descriptor in the child → descriptor here. Nothing else stays open.
        uid, gid: to become, when root; else one's own.
        limits: resource.RLIMIT_* → limit, soft and hard. Never above the present hard limit.
        terminal: one of the descriptors 0 to 2 is a terminal, which is to be the controlling one.
        groups: descriptors of files to write `0` to, to be in the lane's control groups.
        netns: descriptor of the network namespace to be in; None: one's own.
        scoped: no signals to, and no abstract unix sockets of, anything outside (landlock).
    """

    argv: tuple[str, ...]
    fds: Mapping[int, int]
    uid: int
    gid: int
    limits: Mapping[int, int] = field(default_factory=dict)
    terminal: bool = False
    groups: tuple[int, ...] = ()
    netns: int | None = None
    scoped: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """What `spawn` starts.

    Attributes:
        argv, fds: as in `Image`.
        others: descriptors that only the launcher has, in their order.
        program: descriptor of the launcher.
        launcher: that.
    """

    argv: tuple[bytes, ...]
    fds: Mapping[int, int]
    others: tuple[int, ...]
    program: int
    launcher: Launcher

    @property
    def passed(self) -> tuple[int, ...]:
        """All its descriptors here."""
        return (*self.fds.values(), *self.others, self.program)

    def moved(self, place: Mapping[int, int]) -> Ready:
        """The same, with each descriptor here at its `place`."""
        return replace(
            self,
            fds={target: place[fd] for target, fd in self.fds.items()},
            others=tuple(place[fd] for fd in self.others),
            program=place[self.program],
        )


@contextmanager
def ready(image: Image) -> Iterator[Ready]:
    """All that goes before `spawn`, perhaps in another process; while the block lasts."""
    made = launcher(os.uname().machine, _plan(image, max(image.fds) + 1))
    netns = () if image.netns is None else (image.netns,)
    program = executable("launcher", made.program)
    try:
        argv = tuple(map(os.fsencode, image.argv))
        yield Ready(argv, image.fds, (*image.groups, *netns), program, made)
    finally:
        os.close(program)


def spawn(image: Ready) -> int:
    """Starts `image` as the first process of a new PID namespace, and returns its pid here.

    Whatever is started in that namespace is killed by the kernel when this process dies, and this
    one is killed when the *thread* that called spawn dies (PR_SET_PDEATHSIG(2const)). Once it has
    been waited for, nothing of the namespace is left (pid_namespaces(7)).

    The caller has CAP_SYS_ADMIN in its user namespace (`namespace.enter`). Raises JailError.
    """
    with ExitStack() as stack:
        reports, complaint = os.pipe()
        pids, announcement = os.pipe()
        for fd in (reports, pids):
            stack.callback(os.close, fd)
        middle = _launch(image, complaint, announcement)
        _, status = os.waitpid(middle, 0)
        announced = os.read(pids, elf.PID.size)
        # Closed by a successful execve(2).
        complained = os.read(reports, elf.REPORT.size)
        if status == 0 and announced and not complained:
            return int(elf.PID.unpack(announced)[0])
        if announced:
            os.waitpid(elf.PID.unpack(announced)[0], 0)
        what, error = image.launcher.failure(complained)
        raise JailError(
            f"the jail's first process cannot be started: {what}: {os.strerror(error)}",
            hint="`nanosup doctor` shows what this host forbids",
        )


def _launch(image: Ready, complaint: int, announcement: int) -> int:
    """Starts the launcher, and returns its pid. The two descriptors are closed here."""
    with ExitStack() as stack:

        def own(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        keeper = own(os.pidfd_open(os.getpid()))
        passed = (own(complaint), own(announcement), keeper, *image.others)
        first = max(image.fds) + 1
        # Out of the way of all the numbers that they are to get.
        aside = {
            target: own(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first + len(passed)))
            for target, fd in {**image.fds, **dict(enumerate(passed, first))}.items()
        }
        with _capable():
            return os.posix_spawn(
                f"/proc/self/fd/{image.program}",
                (b"launcher", *image.argv),
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in aside.items()],
                setsigmask=(),
                setsigdef=_SIGNALS,
            )


def _plan(image: Image, first: int) -> Launch:
    """What the launcher does; `first` is where the descriptors begin that are only for it: what
    it reports to, what it announces to, the keeper, and the `others`."""
    groups = range(first + 3, first + 3 + len(image.groups))
    terminal_fd = _terminal_of(image) if image.terminal else 0
    return Launch(
        path=image.argv[0],
        report_fd=first,
        pid_fd=first + 1,
        keeper_fd=first + 2,
        group_fds=tuple(groups),
        netns_fd=groups.stop if image.netns is not None else None,
        ids=(image.uid, image.gid) if os.getuid() != image.uid else None,
        limits=settable(image.limits),
        terminal=_whose(image.fds[terminal_fd]) if image.terminal else None,
        terminal_fd=terminal_fd,
        scoped=image.scoped,
    )


def _terminal_of(image: Image) -> int:
    """The first of the child's descriptors that is a terminal; from now on the child's own."""
    target = next(target for target in (0, 1, 2) if os.isatty(image.fds[target]))
    os.fchown(image.fds[target], image.uid, image.gid)
    return target


def _whose(fd: int) -> Terminal:
    try:
        os.tcgetpgrp(fd)
    except OSError:  # ENOTTY: not of this session
        return Terminal.OTHERS
    return Terminal.OURS


@contextmanager
def _capable() -> Iterator[None]:
    """What is executed meanwhile has CAP_SYS_ADMIN, as root has anyway (capabilities(7))."""
    if os.getuid() == 0:
        yield
        return
    syscalls.raise_ambient(syscalls.CAP_SYS_ADMIN)
    try:
        yield
    finally:
        syscalls.clear_ambient()


def executable(name: str, content: bytes) -> int:
    """A file in memory that can be executed: nobody has it open for writing (ETXTBSY)."""
    try:
        writable = os.memfd_create(name, os.MFD_CLOEXEC | syscalls.MFD_EXEC)
    except OSError:  # before Linux 6.3 every one is executable
        writable = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        write_whole(writable, content)
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)


def settable(limits: Mapping[int, int]) -> dict[int, int]:
    """`limits` (resource.RLIMIT_* → limit), none above the present hard one, and no core dumps."""
    found = {}
    for kind, limit in {resource.RLIMIT_CORE: _NO_CORE, **limits}.items():
        hard = resource.getrlimit(kind)[1]
        found[kind] = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    return found
