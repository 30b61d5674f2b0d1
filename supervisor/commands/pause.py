"""`nanosup pause` and `nanosup resume`: phases stand still, and go on."""

from __future__ import annotations

import json
import os
import time

from supervisor import pause, place
from supervisor.board import SprintDir
from supervisor.decide import PhaseState
from supervisor.observe import observe
from supervisor.watch import Watch

# A keeper that was stopped, or is still making its lane, answers when it can.
_PATIENCE_S = 5.0


def run(*, phase: str | None, sprint_id: str | None, as_json: bool, paused: bool) -> int:
    """Returns when the board says so and the keepers were told."""
    sprint = place.choose(place.find().board, sprint_id)
    pause.pause(sprint, phase, paused=paused)
    views = observe(sprint).phases
    told = [
        name
        for name, view in views.items()
        if phase in (None, name) and view.state is PhaseState.RUNNING and pause.tell(sprint, name)
    ]
    if as_json:
        still = [name for name, view in views.items() if view.paused]
        print(json.dumps({"sprint": sprint.id, "paused": still, "told": told}))
        return 0
    what = f"phase {phase}" if phase is not None else f"sprint {sprint.id}"
    print(f"{what} is {'paused' if paused else 'resumed'}")
    return 0


def _await(sprint: SprintDir, phases: set[str], offset: int, event: str) -> set[str]:
    """Waits for an event of the running attempt at each phase. Returns those that gave none."""
    waiting = set(phases)
    watch = Watch()
    never = os.eventfd(0, os.EFD_CLOEXEC)
    deadline = time.monotonic() + _PATIENCE_S
    try:
        watch.file(sprint.journal.path)
        while True:
            for happened in sprint.journal.read(offset):
                offset = happened.end
                if happened.event in (event, "attempt.ended"):
                    waiting.discard(str(happened.fields.get("phase")))
            left_s = deadline - time.monotonic()
            if not waiting or left_s <= 0:
                return waiting
            watch.wait(never, left_s)
    finally:
        os.close(never)
        watch.close()
