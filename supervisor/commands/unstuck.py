"""`nanosup unstuck`: frees a phase whose holder is gone."""

from __future__ import annotations

import json

from supervisor import conductor
from supervisor.board import place


def run(*, phase: str, sprint_id: str | None, force: bool, as_json: bool) -> int:
    board = place.find().board
    sprint = place.choose(board, sprint_id)
    freed, said = conductor.unstuck(board, sprint, phase, force=force)
    if not as_json:
        print(said)
        return 0
    document = {
        "sprint": sprint.id,
        "phase": phase,
        "attempt": freed.n if freed else None,
        "state": freed.state.value if freed else None,
    }
    print(json.dumps(document))
    return 0
