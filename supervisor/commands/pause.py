"""`nanosup pause` and `nanosup resume`: phases stand still, and go on."""

from __future__ import annotations

import json

from supervisor import pause, place
from supervisor.decide import PhaseState
from supervisor.observe import observe


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
