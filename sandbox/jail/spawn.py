"""fork and exec for a jail: between the two nothing is inherited but what is named.

Python's subprocess cannot put the child into a PID namespace and drop root *and* bind its life to
its parent's in the right order, so this is done by hand.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import struct
import termios
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from sandbox import syscalls
from sandbox.descriptor import close_others
from sandbox.errors import JailError
from sandbox.jail import domain
from sandbox.jail.landlock import ABI_SCOPES, Domain, Right, scopes

# RLIMIT_CORE of 1: no file can be as small, and it is the one value for which the kernel does not
# start a core_pattern pipe either (core(5) says that 0 does not hold for pipes; fs/coredump.c).
_NO_CORE = 1

# Mounts below directories that a jail masks or has its own of: `jail.exposure`, bwrap's --dev.
_UNSEEN = (
    "/dev/hugepages",
    "/dev/mqueue",
    "/sys/firmware/efi/efivars",
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
    "/sys/fs/fuse/connections",
    "/sys/fs/pstore",
    "/sys/kernel/config",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
)

# Short of memory, the kernel is to take the agent, not its keeper or the file system under it.
_OOM_SCORE = "500"


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


def spawn(image: Image) -> int:
    """Starts `image` as the first process of a new PID namespace, and returns its pid here.

    Whatever is started in that namespace is killed by the kernel when this process dies, and this
    one is killed when the *thread* that called spawn dies (PR_SET_PDEATHSIG(2const)). Once it has
    been waited for, nothing of the namespace is left (pid_namespaces(7)).

    The caller has CAP_SYS_ADMIN in its user namespace (`namespace.enter`). Raises JailError.
    """
    report, complaint = os.pipe()  # closed by a successful execve
    keeper = os.pidfd_open(os.getpid())
    try:
        pid = _fork(lambda: _become(image, keeper, complaint))
        os.close(complaint)
        complaint = -1
        complained = os.read(report, 4096)
    finally:
        os.close(report)
        os.close(keeper)
        if complaint >= 0:
            os.close(complaint)
    if complained:
        os.waitpid(pid, 0)
        raise JailError(
            f"the jail's first process cannot be started: {complained.decode(errors='replace')}",
            hint="`nanosup doctor` shows what this host forbids",
        )
    return pid


def _fork(run: Callable[[], NoReturn]) -> int:
    """Forks twice: fork(2) with Python's and libc's handlers, for a child that is single-threaded
    whatever this process is; that one clones (see `syscalls.clone`) a sibling, whose parent we are.
    """
    receive, send = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            pid = syscalls.clone(syscalls.CLONE_NEWPID | syscalls.CLONE_PARENT)
            if pid == 0:
                run()
            os.write(send, struct.pack("i", pid))
        except BaseException as error:
            os.write(send, struct.pack("i", -(getattr(error, "errno", None) or 1)))
        finally:
            os._exit(0)
    os.close(send)
    answer = os.read(receive, 4)
    os.close(receive)
    os.waitpid(middle, 0)
    (pid,) = struct.unpack("i", answer) if len(answer) == 4 else (-1,)
    if pid < 0:
        raise JailError(
            f"a process namespace is refused by this host: {os.strerror(-pid)}",
            hint="`nanosup doctor` shows which setting forbids it and how to change that",
        )
    return int(pid)


def _become(image: Image, keeper: int, complaint: int) -> NoReturn:
    try:
        if not image.terminal:
            os.setsid()
        for group in image.groups:
            os.write(group, b"0")
        if image.netns is not None:
            syscalls.setns(image.netns, syscalls.CLONE_NEWNET)
        _private_mounts()
        complaint, keeper = arrange(image.fds, complaint, keeper)
        _prefer_for_oom()
        syscalls.join_session_keyring()
        if image.terminal:
            take_terminal(image.uid, image.gid)
        for kind, limit in {resource.RLIMIT_CORE: _NO_CORE, **image.limits}.items():
            set_limit(kind, limit)
        if os.getuid() != image.uid:
            os.setgroups([])
            os.setresgid(image.gid, image.gid, image.gid)
            os.setresuid(image.uid, image.uid, image.uid)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if image.scoped:
            # It handles no right to files, so bubblewrap can mount in it.
            domain.enter(Domain(Right(0), scopes(ABI_SCOPES)))
        # Only now: a change of uid clears it. And the keeper may have died before.
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if select.select([keeper], [], [], 0)[0]:
            os._exit(1)
        os.close(keeper)
        os.umask(0o022)
        os.chdir("/")
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(image.argv[0], image.argv, {})
    except BaseException as error:
        os.write(complaint, str(error).encode(errors="replace")[:4096] or b"?")
    finally:
        os._exit(1)


def _private_mounts() -> None:
    """A /proc of the new PID namespace, in which bubblewrap looks its children up by pid, and
    without what no jail shows: bubblewrap reads the list of all mounts for each that it makes."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", "/proc", "proc", flags)
    for unseen in _UNSEEN:
        try:
            syscalls.umount2(unseen, syscalls.MNT_DETACH)
        except OSError:
            pass  # not mounted here, or locked by a user namespace (mount_namespaces(7))


def _prefer_for_oom() -> None:
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # not dumpable, e.g. after a change of user: then it is as everybody else
        return
    try:
        os.write(fd, _OOM_SCORE.encode())
    finally:
        os.close(fd)


def arrange(fds: Mapping[int, int], *kept: int) -> tuple[int, ...]:
    """Puts descriptors where `fds` wants them and closes all others but `kept`, which move."""
    above = max(fds) + 1
    aside = {
        target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above + len(fds))
        for target, fd in fds.items()
    }
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above + len(fds)) for fd in kept]
    for target, fd in aside.items():
        os.dup2(fd, target)
    for index, fd in enumerate(moved):
        os.dup2(fd, above + index, inheritable=False)
    stay = {*fds, *range(above, above + len(moved))}
    close_others(stay)
    return tuple(range(above, above + len(moved)))


def take_terminal(uid: int, gid: int) -> None:
    fd = next(fd for fd in (0, 1, 2) if os.isatty(fd))
    os.fchown(fd, uid, gid)
    try:
        os.tcgetpgrp(fd)
    except OSError:  # ENOTTY: not of this session
        os.setsid()
        fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
        return
    # A group of its own in the keeper's session: then it is not orphaned, and Ctrl-Z stops what is
    # in it. (The first processes of PID namespaces it does not stop.)
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(fd, os.getpgrp())


def set_limit(kind: int, limit: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(kind, (limit, limit))
