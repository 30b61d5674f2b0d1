"""A lane's network namespace and the process that is its only way out."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NoReturn, Self

from sandbox import syscalls
from sandbox.descriptor import close_others
from sandbox.jail import domain, landlock, seccomp
from sandbox.jail.feature import Features
from sandbox.jail.view import WayOut
from sandbox.net import netns
from sandbox.net.allowlist import Allowlist, Entry
from sandbox.net.proxy import Forward, Proxy, Record

_OPEN_FILES = 2048
_LOOPBACK = "127.0.0.1"
_PORTS = (443, 80)  # of a name that is listed without one
_STAND_INS = 200  # fewer than descriptors fit into a message (unix(7))


class Egress:
    """As a context manager it ends the process; the kernel does so when the keeper dies.

    The process has no secrets to lose: it is started before the lane's credentials are anywhere in
    its memory, keeps no descriptor but its listeners and the one that it records to, becomes the
    agent's uid where that is not one's own, has no capability, may write no file, and is under
    the filter of system calls that lanes are under.

    Attributes:
        way_out: for `view.Lane`.
        has_died: when all was over, the process had ended by itself: the lane had no network.
    """

    def __init__(
        self,
        allowlist: Allowlist,
        record: Record,
        *,
        uid: int,
        gid: int,
        features: Features,
        keep: Iterable[int] = (),
    ) -> None:
        """Raises HostError where this host refuses a network namespace.

        Attributes:
            keep: descriptors that `record` needs.
        """
        here = any(entry.is_here for entry in allowlist.entries)
        fixed, hosts = stand_ins(allowlist)
        made = netns.make([(_LOOPBACK, 0), *((at, port) for at, port, _ in fixed)])
        listener, *others = made.listeners
        self.way_out = WayOut(made.fd, listener.getsockname()[1], through_proxy=here, hosts=hosts)
        forwards = [
            Forward(other, host, port) for other, (_, port, host) in zip(others, fixed, strict=True)
        ]
        keeper = os.getpid()
        self.has_died = False
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                    signal.signal(number, signal.SIG_DFL)
                signal.set_wakeup_fd(-1)
                kept = {0, 1, 2, *keep, *(sock.fileno() for sock in made.listeners)}
                _confine(kept, uid, gid, features)
                if os.getppid() == keeper:
                    _serve(allowlist, record, listener, forwards)
            finally:
                os._exit(1)
        for sock in made.listeners:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.way_out.netns)
        self.has_died = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        if not self.has_died:
            os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the pid is still its
            os.waitpid(self.pid, 0)


def stand_ins(
    allowlist: Allowlist,
) -> tuple[tuple[tuple[str, int, str], ...], tuple[tuple[str, str], ...]]:
    """Listeners that lead to one place each, for programs that know no proxy: (address, port, what
    it leads to); and what names are to be looked up as: (address, name).

    A port of this host's loopback stands at its own place. Every other name that is listed as such
    gets an address of the lane's loopback, where its ports stand.
    """
    places: dict[tuple[str, int], str] = {}
    names: dict[str, str] = {}
    for entry in allowlist.entries:
        if entry.is_here:
            if entry.port:
                at, host = _loopback(entry)
                places[at, entry.port] = host
        elif entry.name and not entry.below and len(places) < _STAND_INS:
            at = names.setdefault(entry.name, f"127.0.1.{len(names) + 1}")
            for port in (entry.port,) if entry.port else _PORTS:
                places[at, port] = entry.name
    listed = tuple((at, port, host) for (at, port), host in places.items())
    return listed, tuple((at, name) for name, at in names.items())


def _loopback(entry: Entry) -> tuple[str, str]:
    """Where an entry of this host's loopback stands in the lane, and what it leads to."""
    host = entry.name or str(entry.network.network_address if entry.network else "")
    if ":" in host:
        return host, f"[{host}]"
    address = _LOOPBACK if entry.name or host == "127.0.0.0" else host
    return address, entry.name or address


def _confine(kept: set[int], uid: int, gid: int, features: Features) -> None:
    close_others(kept)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getuid() != uid:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    syscalls.drop_capabilities()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if abi := features.landlock_abi:
        nowhere = landlock.WRITES & landlock.known(abi)
        domain.enter(landlock.Domain(nowhere, landlock.scopes(abi)))
    if features.seccomp:
        syscalls.seccomp_filter(seccomp.assemble(features.machine))


def _serve(
    allowlist: Allowlist, record: Record, listener: socket.socket, forwards: Sequence[Forward]
) -> NoReturn:
    # Forked out of a process that may have been in a loop of its own.
    asyncio.events._set_running_loop(None)
    asyncio.run(Proxy(allowlist, record).serve(listener, forwards))
    os._exit(1)
