"""Asking a keeper to end its lane, by a signal that can hit nobody else."""

from __future__ import annotations

import os
import signal

from supervisor.attempt import Attempt
from supervisor.liveness import Liveness
from supervisor.owner import liveness


def request_end(attempt: Attempt, how: signal.Signals) -> bool:
    """Asks the keeper of `attempt` to end its lane; False if there is no living keeper.

    SIGTERM ends it with the phase's grace, SIGINT at once. The signal goes through a pidfd whose
    process was checked to be the owner, so a pid that was used again is never hit.
    """
    pid = attempt.owner.pid
    if pid is None:
        return False
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if liveness(attempt) is not Liveness.ALIVE:
            return False
        signal.pidfd_send_signal(fd, how)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True
