"""Ends everything that a process has started, without a PID namespace to do it.

Orphans come to the nearest living ancestor that asked for them (PR_SET_CHILD_SUBREAPER), so all of
a lane's processes are descendants of its warden, daemons that forked twice included.
"""

from __future__ import annotations

import os
import resource
import signal
import time

from sandbox.jail import census

_PAUSE_S = 0.005


def sweep(
    root: int,
    *,
    timeout_s: float,
    spared: frozenset[int] = frozenset(),
    statuses: dict[int, int] | None = None,
) -> bool:
    """Kills all descendants of `root`, which is this process, and reaps them.

    False: something is left after `timeout_s`: it hangs in the kernel, or forks faster than it can
    be killed. `spared` are children that stay, with all of theirs; `statuses` takes the wait
    statuses of those that were reaped.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = [pid for pid in _descendants(root, spared) if _is_running(pid)]
        for pid in found:
            _forbid_forks(pid)
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        for pid, status in reap(spared):
            if statuses is not None:
                statuses[pid] = status
        if not found and not any(_descendants(root, spared)):
            return True
        if time.monotonic() > deadline:
            return False
        if not found:
            continue
        # Woken by the death of a child; those of others are seen a little later.
        signal.sigtimedwait({signal.SIGCHLD}, _PAUSE_S)


def reap(spared: frozenset[int] = frozenset()) -> list[tuple[int, int]]:
    """Takes the statuses of children that are dead: (pid, wait status) of each."""
    found = []
    for pid in census.children(os.getpid()):
        if pid in spared:
            continue
        try:
            done, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        if done:
            found.append((done, status))
    return found


def _descendants(root: int, spared: frozenset[int]) -> list[int]:
    found, waiting = [], [pid for pid in census.children(root) if pid not in spared]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += census.children(pid)
    return found


def _is_running(pid: int) -> bool:
    process = census.look_at(pid)
    return process is not None and process.state not in "ZX"


def _forbid_forks(pid: int) -> None:
    """So that what is about to be killed leaves no younger one behind (RLIMIT_NPROC is inherited,
    and counts for everybody but root)."""
    try:
        resource.prlimit(pid, resource.RLIMIT_NPROC, (0, 0))
    except (ProcessLookupError, PermissionError, ValueError, OSError):
        pass
