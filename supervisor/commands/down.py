"""`nanosup down`: ends the lanes of a sprint, and the `up` that runs it."""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from supervisor.board import place
from supervisor.board.attempt import Attempt, describe_holder
from supervisor.board.board import SprintDir
from supervisor.board.observe import driver, holder, observe
from supervisor.board.owner import this_process
from supervisor.board.request import send
from supervisor.model.liveness import can_see
from supervisor.model.record import AttemptState

_KILL_AFTER_S = 10.0


def run(*, sprint_id: str | None, now: bool) -> int:
    """Returns when nothing runs any more."""
    sprint = place.choose(place.find().board, sprint_id)
    how = signal.SIGINT if now else signal.SIGTERM
    deadline = time.monotonic() + _KILL_AFTER_S
    asked: set[tuple[str, int]] = set()
    ended: set[str] = set()
    while True:
        # `up` first, or it would start in a lane's place what we have just ended.
        up = holder(driver(sprint))
        lanes = _lanes(sprint)
        ours = [a for a in ([up] if up else []) + lanes if can_see(a.owner, this_process())]
        if not ours:
            break
        late = now and time.monotonic() > deadline
        for attempt in ours:
            if late:
                send(attempt, signal.SIGKILL)
            elif (attempt.label, attempt.n) not in asked:
                asked.add((attempt.label, attempt.n))
                # One that was stopped would hear nothing.
                send(attempt, signal.SIGTERM if attempt is up else how, signal.SIGCONT)
        ended |= {f"{attempt.label}.{attempt.n}" for attempt in ours if attempt is not up}
        _await_any(ours, deadline - time.monotonic() if now and not late else None)
    print(f"ended {', '.join(sorted(ended))}" if ended else "nothing was running")
    elsewhere = [a for a in ([up] if up else []) + lanes if a.owner.pid is not None]
    for attempt in elsewhere:
        print(
            f"nanosup: {attempt.label} runs elsewhere: {describe_holder(attempt)}", file=sys.stderr
        )
    return 12 if elsewhere else 0


def _lanes(sprint: SprintDir) -> list[Attempt]:
    """What runs of the sprint."""
    return [
        sprint.slot(name).attempt(a.n)
        for name, view in observe(sprint).phases.items()
        for a in view.attempts[-1:]
        if a.state is AttemptState.RUNNING
    ]


def _await_any(attempts: list[Attempt], timeout_s: float | None) -> None:
    """Returns when a process of one of them has ended, or after a time."""
    poll = select.poll()
    fds = []
    try:
        for attempt in attempts:
            try:
                fds.append(os.pidfd_open(attempt.owner.pid or 0))
            except ProcessLookupError:
                return
            poll.register(fds[-1], select.POLLIN)
        poll.poll(None if timeout_s is None else max(0.0, timeout_s * 1000 + 1))
    finally:
        for fd in fds:
            os.close(fd)
