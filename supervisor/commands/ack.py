"""`nanosup ack`: somebody has seen what a sprint, or a phase of it, left."""

from __future__ import annotations

import json

from supervisor.board import place
from supervisor.board.board import SprintDir
from supervisor.errors import HeldError, NotFoundError
from supervisor.upkeep import ack, inventory


def run(*, phase: str | None, everything: bool, sprint_id: str | None, as_json: bool) -> int:
    """Raises HeldError where somebody still works on what is to be acknowledged."""
    board = place.find().board
    if everything:
        done = [item for item in inventory.take(board) if not item.damage and not item.running]
        named = [item.id for item in done if ack.acknowledge(item.path, ack.Reason.SEEN)]
    elif phase is None:
        sprint = place.choose(board, sprint_id)
        named = [sprint.id] if _sprint(sprint) else []
    else:
        named = _phase(place.choose(board, sprint_id), phase)
    if as_json:
        print(json.dumps({"acknowledged": named}))
    else:
        for name in named:
            print(f"{name} acknowledged")
        if not named:
            print("nothing is left to acknowledge")
    return 0


def _sprint(sprint: SprintDir) -> bool:
    item = inventory.look(sprint)
    if item.damage is not None:
        raise item.damage
    if item.running:
        raise HeldError(
            f"sprint {sprint.id} is not over: {item.running}",
            hint="wait for it, or end it with `nanosup down`",
        )
    return ack.acknowledge(sprint.path, ack.Reason.SEEN)


def _phase(sprint: SprintDir, phase: str) -> list[str]:
    """Acknowledges what every attempt at a phase that has ended left."""
    attempts = sprint.slot(phase).attempts()
    ended = [attempt for attempt in attempts if attempt.outcome is not None]
    if attempts and not ended:
        raise HeldError(f"phase {phase!r} has no attempt that has ended", hint="wait for it")
    if not attempts:
        raise NotFoundError(f"phase {phase!r} has had no attempt", hint="see `nanosup status`")
    return [
        f"{sprint.id}/{phase}.{attempt.n}"
        for attempt in ended
        if ack.acknowledge(attempt.path, ack.Reason.SEEN)
    ]
