"""Stopping all of a jail for a while, and letting it go on.

By cgroup v2 where a cgroup can be made (cgroup.freeze, in Documentation/admin-guide/cgroup-v2.rst):
its processes do not notice. Elsewhere by SIGSTOP and SIGCONT, which a parent in the jail can see
(waitpid(2), WUNTRACED). Frozen either way, a process still dies of SIGKILL.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from enum import StrEnum

from sandbox.jail.census import Process

_PREFIX = "nanosup-frozen-"
_ROUNDS = 100
_SETTLE_S = 2.0


class Means(StrEnum):
    """How a jail is kept from running."""

    CGROUP = "cgroup.freeze"
    SIGNAL = "SIGSTOP"


class Freezer:
    """Stops and continues what `census` lists: the processes of one jail, as they are then."""

    def __init__(self, census: Callable[[], Iterable[Process]]) -> None:
        self._census = census
        self._cgroup: str | None = None
        self._stopped: set[int] = set()

    def freeze(self) -> Means:
        """Stops everything, and returns when nothing runs. Again, it catches what came to be since.

        What is in state D stops when it comes back.
        """
        if self._cgroup is None:
            self._cgroup = _make_cgroup(next((p.pid for p in self._census()), None))
        if self._cgroup is not None:
            try:
                self._gather(self._cgroup)
                _write(self._cgroup, "cgroup.freeze", "1")
                _await_frozen(self._cgroup)
                return Means.CGROUP
            except OSError:
                self.close()
        self._stop()
        return Means.SIGNAL

    def thaw(self) -> None:
        """Lets everything go on that was stopped here."""
        if self._cgroup is not None:
            _write(self._cgroup, "cgroup.freeze", "0")
        self._signal(self._stopped, signal.SIGCONT)
        self._stopped.clear()

    def close(self) -> None:
        """Removes the cgroup, if it is empty by now."""
        if self._cgroup is not None:
            _remove(self._cgroup)
            self._cgroup = None

    def _gather(self, cgroup: str) -> None:
        """Moves all into the cgroup. What they fork from then on is born in it."""
        for _ in range(_ROUNDS):
            inside = set(_read(cgroup, "cgroup.procs").split())
            outside = [p.pid for p in self._census() if str(p.pid) not in inside]
            if not outside:
                return
            for pid in outside:
                try:
                    _write(cgroup, "cgroup.procs", str(pid))
                except ProcessLookupError:
                    pass

    def _stop(self) -> None:
        # A process that is being stopped may fork once more, so look until nobody is new.
        for _ in range(_ROUNDS):
            fresh = {p.pid for p in self._census()} - self._stopped
            if not fresh:
                return
            self._stopped |= self._signal(fresh, signal.SIGSTOP)

    def _signal(self, pids: Iterable[int], number: signal.Signals) -> set[int]:
        """Signals those of `pids` that are the jail's. Returns all that were tried."""
        opened = {}
        for pid in pids:
            try:
                opened[pid] = os.pidfd_open(pid)
            except OSError:
                continue
        # Whoever is still the jail's is the process that was just opened, not a pid used again.
        ours = {process.pid for process in self._census()}
        for pid, fd in opened.items():
            try:
                if pid in ours:
                    signal.pidfd_send_signal(fd, number)
            except (ProcessLookupError, PermissionError):
                pass
            finally:
                os.close(fd)
        return set(pids)


def _make_cgroup(pid: int | None) -> str | None:
    """A new cgroup v2 below the one that `pid` is in; None where none can be made."""
    if pid is None:
        return None
    try:
        place = _cgroup_of(pid)
        if place is None:
            return None
        _sweep(place)
        path = os.path.join(place, f"{_PREFIX}{os.getpid()}-{pid}")
        os.mkdir(path)
    except OSError:
        return None
    if os.access(os.path.join(path, "cgroup.freeze"), os.W_OK):
        return path
    _remove(path)
    return None


def _cgroup_of(pid: int) -> str | None:
    """The directory of the cgroup v2 that a process is in (cgroups(7))."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        paths = [line.rstrip("\n")[3:] for line in file if line.startswith("0::")]
    if not paths:
        return None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            mount, _, rest = line.partition(" - ")
            if rest.startswith("cgroup2 ") and (fields := mount.split())[3] == "/":
                return os.path.join(fields[4], paths[0].lstrip("/"))
    return None


def _sweep(place: str) -> None:
    """Removes what keepers that were killed have left. Only an empty one can be removed."""
    for name in os.listdir(place):
        if name.startswith(_PREFIX):
            _remove(os.path.join(place, name))


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        pass


def _await_frozen(cgroup: str) -> None:
    """Returns when cgroup.events says so; it is there to be polled (kernfs: POLLPRI)."""
    deadline = time.monotonic() + _SETTLE_S
    with open(os.path.join(cgroup, "cgroup.events"), encoding="ascii") as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while True:
            events.seek(0)
            left_s = deadline - time.monotonic()
            if "frozen 1" in events.read() or left_s <= 0:
                return
            poll.poll(left_s * 1000)


def _read(cgroup: str, name: str) -> str:
    with open(os.path.join(cgroup, name), encoding="ascii") as file:
        return file.read()


def _write(cgroup: str, name: str, text: str) -> None:
    fd = os.open(os.path.join(cgroup, name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
