"""`nanosup down`: ends the lanes of a sprint, and the `up` that runs it."""

from __future__ import annotations

import signal
import time

from supervisor import place
from supervisor.observe import driver, holder, observe
from supervisor.record import AttemptState
from supervisor.request import request_end

_LOOK_AGAIN_S = 0.05


def run(*, sprint_id: str | None, now: bool) -> int:
    """Returns when nothing runs any more."""
    sprint = place.choose(place.find().board, sprint_id)
    how = signal.SIGINT if now else signal.SIGTERM
    asked: set[tuple[str, int]] = set()
    while True:
        # `up` first, or it would start in a lane's place what we have just ended.
        up = holder(driver(sprint))
        if up is not None and ("up", up.n) not in asked:
            asked.add(("up", up.n))
            request_end(up, signal.SIGTERM)
        running = [
            sprint.slot(name).attempt(a.n)
            for name, view in observe(sprint).phases.items()
            for a in view.attempts
            if a.state is AttemptState.RUNNING
        ]
        for attempt in running:
            if (attempt.label, attempt.n) not in asked:
                asked.add((attempt.label, attempt.n))
                request_end(attempt, how)
        living = [a for a in running if a.owner.pid is not None]
        if up is None and not living:
            break
        time.sleep(_LOOK_AGAIN_S)
    ended = sorted(f"{label}.{n}" for label, n in asked if label != "up")
    print(f"ended {', '.join(ended)}" if ended else "nothing was running")
    return 0
