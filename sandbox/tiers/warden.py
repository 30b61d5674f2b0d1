"""The process between a keeper and the command of a lane without namespaces.

It does what a PID namespace does elsewhere: it adopts every orphan of the lane, and kills all of
them when the command has ended, when it is told to, and when the keeper dies. And it answers what
the lane's filter sends it (`mediator.py`), for which it runs under the lane's uid, outside of its
landlock domain: nothing in the lane can trace or signal it.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import termios
from collections.abc import Mapping
from dataclasses import asdict
from typing import NoReturn

from sandbox import syscalls
from sandbox.descriptor import close_others
from sandbox.jail import census, domain, reaper, seccomp, spawn
from sandbox.tiers import fence
from sandbox.tiers.confinement import Confinement, domain_of
from sandbox.tiers.mediator import Mediator

SWEEP_S = 20.0

_PR_SET_DUMPABLE = 4
_STDIO = (0, 1, 2)


def serve(
    confinement: Confinement,
    abi: int,
    *,
    fds: Mapping[int, int],
    report: int,
    control: int,
    keeper: int,
    lock: int,
    limits: Mapping[int, int],
) -> NoReturn:
    """Runs the command of `confinement`, to its end and that of everything it started. For a
    process that was just forked.

    Args:
        abi: landlock's.
        fds: 0, 1 and 2 of the command.
        report: takes JSON lines: how it began, and how it ended.
        control: the lane is ended once this can be read.
        keeper: pidfd.
        lock: a descriptor that is held until all is over.
        limits: resource.RLIMIT_* → limit.
    """
    # Descriptors get other numbers here: what the keeper has not collected yet must not close them.
    gc.disable()
    try:
        if confinement.tty:
            os.setpgid(0, 0)  # the terminal is the keeper's session's: what is typed is not for us
        else:
            os.setsid()
        report, control, keeper, lock = _arrange(fds, report, control, keeper, lock)
        _become(confinement)
        if select.select([keeper], [], [], 0)[0]:
            os._exit(1)
        _run(confinement, abi, report, control, keeper, limits)
    except BaseException as error:
        _say(report, {"failed": str(error) or type(error).__name__})
    finally:
        os._exit(0)


def _become(confinement: Confinement) -> None:
    if confinement.tty:
        for fd in filter(os.isatty, _STDIO):
            os.fchown(fd, confinement.uid, confinement.gid)
    if os.getuid() != confinement.uid:
        os.setgroups([])
        os.setresgid(confinement.gid, confinement.gid, confinement.gid)
        os.setresuid(confinement.uid, confinement.uid, confinement.uid)
        syscalls.prctl(_PR_SET_DUMPABLE, 1)  # or its own /proc/self would be root's
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)


def _run(
    confinement: Confinement,
    abi: int,
    report: int,
    control: int,
    keeper: int,
    limits: Mapping[int, int],
) -> None:
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ours, theirs = socket.socketpair()
    executed, not_executed = os.pipe()
    agent = os.fork()
    if agent == 0:
        os.close(executed)
        ours.close()
        _exec(confinement, abi, theirs, not_executed, limits)
    theirs.close()
    os.close(not_executed)
    for fd in _STDIO:
        os.close(fd)  # a reader of the lane's output is to see its end
        os.open(os.devnull, os.O_RDWR)
    with ours:
        _message, received, _flags, _address = socket.recv_fds(ours, 1, 1)
    with open(executed, "rb") as complaint:
        words = complaint.read()
    if words:
        os.waitpid(agent, 0)
        code, _, text = words.decode(errors="replace").partition(" ")
        _say(report, {"unstarted": int(code), "message": text})
        return
    _say(report, {"agent": agent})
    statuses: dict[int, int] = {}
    if received:
        mediator = Mediator(received[0], confinement.writes, os.getpid())
        _attend(mediator, received[0], agent, (wake, control, keeper), statuses)
    left = [
        asdict(process)
        for process in census.descend(os.getpid())
        if process.pid not in (os.getpid(), agent) and process.state != "Z"
    ]
    clean = reaper.sweep(os.getpid(), timeout_s=SWEEP_S, statuses=statuses)
    _say(report, {"status": statuses.get(agent), "clean": clean, "left": left[:50]})


def _attend(
    mediator: Mediator,
    listener: int,
    agent: int,
    others: tuple[int, int, int],
    statuses: dict[int, int],
) -> None:
    """Answers the lane until its command has ended, or it is to be ended."""
    wake, control, keeper = others
    poll = select.poll()
    for fd in (listener, *others):
        poll.register(fd, select.POLLIN)
    while agent not in statuses:
        for fd, event in poll.poll():
            if fd == listener:
                if event & select.POLLIN:
                    mediator.answer()
                else:
                    poll.unregister(listener)  # nobody is left under the filter
            elif fd == wake:
                if signal.SIGTERM in os.read(wake, 4096):
                    return
                statuses |= dict(reaper.reap())
            elif fd in (control, keeper):
                return


def _exec(
    confinement: Confinement,
    abi: int,
    warden: socket.socket,
    complaint: int,
    limits: Mapping[int, int],
) -> NoReturn:
    """Becomes the command."""
    try:
        signal.set_wakeup_fd(-1)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if confinement.tty:
            _take_terminal(confinement.uid, confinement.gid)
        else:
            os.setsid()
        syscalls.join_session_keyring()
        for kind, limit in spawn.settable(limits).items():
            resource.setrlimit(kind, (limit, limit))
        os.umask(0o022)
        os.chdir(confinement.cwd)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        machine = os.uname().machine
        second = fence.assemble(machine, network=confinement.network)
        domain.enter(domain_of(confinement, abi))
        listener = syscalls.seccomp_filter(second, syscalls.SECCOMP_FILTER_FLAG_NEW_LISTENER)
        socket.send_fds(warden, [b"\0"], [listener])
        os.close(listener)
        warden.close()
        syscalls.seccomp_filter(seccomp.assemble(machine))
    except BaseException as error:
        os.write(complaint, f"0 {error}".encode(errors="replace")[:4096])
        os._exit(1)
    try:
        os.execvpe(confinement.argv[0], confinement.argv, dict(confinement.env))
    except OSError as error:
        os.write(complaint, f"{error.errno or errno.EIO} {error.strerror}".encode())
    finally:
        os._exit(1)


def _say(report: int, document: dict[str, object]) -> None:
    try:
        os.write(report, json.dumps(document).encode() + b"\n")
    except OSError:
        pass  # the keeper is dead


def _arrange(fds: Mapping[int, int], *kept: int) -> tuple[int, ...]:
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


def _take_terminal(uid: int, gid: int) -> None:
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
