"""Process 1 of a container has to wait for orphans, or they stay as zombies (pid_namespaces(7)).

Only those that nobody else waits for: to wait for just any child (waitpid(-1)) would take their
statuses from whoever started them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

import anyio

from sandbox.jail import census


async def reap(spared: Callable[[], Iterable[int]]) -> None:
    """Waits for orphans until it is cancelled, where this process is process 1; else for nothing.

    Args:
        spared: the pids of the children that this process has started itself.
    """
    if os.getpid() != 1:
        return
    with anyio.open_signal_receiver(signal.SIGCHLD) as deaths:
        reap_now(spared())
        async for _ in deaths:
            reap_now(spared())


def reap_now(spared: Iterable[int]) -> list[int]:
    """Waits for the orphans that are dead already; their pids."""
    ours = set(spared)
    dead = []
    for pid in census.children(os.getpid()):
        process = census.look_at(pid)
        if pid in ours or process is None or process.state != "Z":
            continue
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        dead.append(pid)
    return dead
