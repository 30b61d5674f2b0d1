"""The processes of a jail as the host sees them, from /proc (proc(5)).

All of them descend from the first process of the jail's PID namespace: an orphan is adopted by the
init of its own namespace and never leaves it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as it was when it was looked at.

    Attributes:
        parent: host pid.
        state: as in /proc/PID/stat; "D" cannot be killed for now, "Z" is dead.
        cpu_ticks: clock ticks (sysconf(SC_CLK_TCK) a second) used by it and its reaped children.
    """

    pid: int
    parent: int
    name: str
    state: str
    cpu_ticks: int


def look_at(pid: int) -> Process | None:
    """The process `pid`, or None where there is none."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The name may contain spaces and parentheses.
    opening, closing = text.index("("), text.rindex(")")
    fields = text[closing + 2 :].split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        name=text[opening + 1 : closing],
        state=fields[0],
        cpu_ticks=sum(map(int, fields[11:15])),
    )


def inner_pid(pid: int) -> int | None:
    """What `pid` is called in its own PID namespace; None where there is no such process."""
    try:
        lines = _read(f"/proc/{pid}/status").splitlines()
    except OSError:
        return None
    return next((int(line.split()[-1]) for line in lines if line.startswith("NSpid:")), None)


def count_tasks(uid: int) -> int:
    """How many processes and threads a user has: what RLIMIT_NPROC counts (getrlimit(2))."""
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue
    return count


def descend(pid: int) -> Iterator[Process]:
    """`pid` and all its descendants, parents first.

    A process that forks while it is looked at may hide its youngest child. Empty where `pid` is
    gone.
    """
    waiting = [pid]
    while waiting:
        process = look_at(waiting.pop())
        if process is not None:
            yield process
            waiting += children(process.pid)


def children(pid: int) -> list[int]:
    """Host pids of the children of all threads of `pid`, oldest first."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        found: list[int] = []
        for thread in threads:
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except FileNotFoundError:
        # Gone; or a kernel without CONFIG_PROC_CHILDREN, which only a look at everything makes up.
        return _adopted(pid) if os.path.exists(f"/proc/{pid}") else []
    except OSError:
        return []
    return found


def _adopted(pid: int) -> list[int]:
    processes = (look_at(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process.pid for process in processes if process is not None and process.parent == pid]


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while part := os.read(fd, 65536):  # a page at a time, of what is long (seq_file.c)
            text += part
        return text.decode(errors="replace")
    finally:
        os.close(fd)
