"""Whether the kernel's OOM killer was at work in a lane, as far as this host lets one read it.

Two sources, each of which may be closed to us: the kernel's log names the process (kmsg, needs
CAP_SYSLOG where kernel.dmesg_restrict is set), and the memory cgroup of the lane counts its kills
(cgroups(7): memory.events in version 2, memory.oom_control in version 1).
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

from sandbox.jail.cgroup import PREFIX

_KILLED = re.compile(rb"Killed process (\d+) \((.*?)\)")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Victim:
    """A process that the OOM killer took. `pid` as the host's first PID namespace numbers it."""

    pid: int
    name: str


class OomWatch:
    """Looks from now on. `pid` is a process of the lane."""

    def __init__(self, pid: int) -> None:
        self._log = _open_log()
        self._counters = _counters_of(pid)
        self._before = [_count(path) for path in self._counters]

    def close(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def victims(self) -> tuple[Victim, ...]:
        """Who was killed since, anywhere on the host, by the kernel's log."""
        found = []
        while self._log is not None:
            try:
                record = os.read(self._log, 8192)
            except OSError as error:
                if error.errno == errno.EPIPE:  # records were overwritten before we came
                    continue
                break  # EAGAIN: that is all
            if match := _KILLED.search(record):
                found.append(Victim(int(match[1]), match[2].decode(errors="replace")))
        return tuple(found)

    @property
    def is_own(self) -> bool:
        """Whether nothing but the lane is counted (`cgroup.made`)."""
        return any(f"/{PREFIX}" in path for path in self._counters)

    def has_counted(self) -> bool:
        """Whether a process of the lane's memory cgroup was killed since."""
        return any(
            after is not None and before is not None and after > before
            for before, after in zip(self._before, map(_count, self._counters), strict=True)
        )


def _open_log() -> int | None:
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        os.close(fd)
        return None
    return fd


def _counters_of(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    paths = []
    for number, controllers, path in lines:
        if number == "0" and not controllers and path != "/":
            paths.append(f"/sys/fs/cgroup{path}/memory.events")
        elif "memory" in controllers.split(","):
            paths.append(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
    return paths


def _count(path: str) -> int | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            match = _COUNT.search(file.read())
    except OSError:
        return None
    return int(match[1]) if match else None
