"""Asking something of a keeper, by a signal that can hit nobody else."""

from __future__ import annotations

import os
import select
import signal

from supervisor.board.attempt import Attempt
from supervisor.board.owner import liveness
from supervisor.model.liveness import Liveness


def request_end(attempt: Attempt, how: signal.Signals) -> bool:
    """Asks the keeper of `attempt` to end its lane; False if there is no living keeper.

    SIGTERM ends it with the phase's grace, SIGINT at once.
    """
    return send(attempt, how)


def send(attempt: Attempt, *numbers: signal.Signals) -> bool:
    """Sends signals to the process that owns `attempt`; False if it does not live, or is none.

    They go through a pidfd whose process was checked to be the owner, so a pid that was used again
    is never hit.
    """
    fd = _open(attempt)
    if fd is None:
        return False
    try:
        for number in numbers:
            signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def end(attempt: Attempt, *, grace_s: float) -> bool:
    """Ends the lane of `attempt` and returns when its keeper is gone. False if there was none.

    SIGTERM, which gives the agent its grace; after `grace_s` seconds SIGINT, which does not; and
    to a keeper that does nothing about either, SIGKILL: its lane dies with it, and the attempt is
    lost. One that was stopped (SIGSTOP) is made to go on, so that it can.
    """
    fd = _open(attempt)
    if fd is None:
        return False
    steps = ((signal.SIGTERM, grace_s), (signal.SIGINT, 10.0), (signal.SIGKILL, None))
    try:
        for number, wait_s in steps:
            signal.pidfd_send_signal(fd, number)
            signal.pidfd_send_signal(fd, signal.SIGCONT)
            if await_end(fd, wait_s):
                return True
    except ProcessLookupError:
        pass  # between two signals: what was wanted
    finally:
        os.close(fd)
    return True


def await_end(pidfd: int, timeout_s: float | None) -> bool:
    """Whether the process of a pidfd ends within a time; None = wait for it."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def _open(attempt: Attempt) -> int | None:
    """A pidfd of the living process that owns an attempt."""
    pid = attempt.owner.pid
    if pid is None:
        return None
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if liveness(attempt) is Liveness.ALIVE:
        return fd
    os.close(fd)
    return None
