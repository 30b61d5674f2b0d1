"""`nanosup pause` and `nanosup resume`: phases stand still, and go on."""

from __future__ import annotations

import json
import os
import sys
import time

from supervisor.board import pause, place
from supervisor.board.board import SprintDir
from supervisor.board.observe import observe
from supervisor.board.watch import Watch
from supervisor.model.decide import PhaseState

# A keeper that was stopped, or is still making its lane, answers when it can.
_PATIENCE_S = 5.0


def run(*, phase: str | None, sprint_id: str | None, as_json: bool, paused: bool) -> int:
    """Returns when the board says so, and what runs stands still, or goes on."""
    sprint = place.choose(place.find().board, sprint_id)
    already = {name for name, view in observe(sprint).phases.items() if view.paused is paused}
    offset = _size(sprint.journal.path)
    pause.pause(sprint, phase, paused=paused)
    views = observe(sprint).phases
    told = [
        name
        for name, view in views.items()
        if phase in (None, name) and view.state is PhaseState.RUNNING and pause.tell(sprint, name)
    ]
    event = "attempt.paused" if paused else "attempt.resumed"
    # One that was paused already, or not, has nothing new to say.
    for name in sorted(_await(sprint, set(told) - already, offset, event)):
        print(f"nanosup: {name} has not answered yet: it does when its keeper can", file=sys.stderr)
    if as_json:
        still = [name for name, view in views.items() if view.paused]
        print(json.dumps({"sprint": sprint.id, "paused": still, "told": told}))
        return 0
    what = f"phase {phase}" if phase is not None else f"sprint {sprint.id}"
    print(f"{what} is {'paused' if paused else 'resumed'}")
    return 0


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def _await(sprint: SprintDir, phases: set[str], offset: int, event: str) -> set[str]:
    """Waits for an event of the running attempt at each phase. Returns those that gave none."""
    waiting = set(phases)
    watch = Watch()
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
            watch.wait(left_s)
    finally:
        watch.close()
