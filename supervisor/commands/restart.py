"""`nanosup restart`: a phase begins anew, whatever became of it so far."""

from __future__ import annotations

import json

from supervisor.board import place, request
from supervisor.board.attempt import Attempt, describe_holder
from supervisor.board.board import SprintDir
from supervisor.board.observe import observe
from supervisor.board.reset import reset
from supervisor.errors import BlockedError, HeldError
from supervisor.model.decide import PhaseState
from supervisor.model.policy import Reset

_SPARE_S = 2.0


def run(*, phase: str, agent: str | None, sprint_id: str | None, as_json: bool) -> int:
    """Returns when nothing of the phase runs any more. `up` starts the next attempt."""
    sprint = place.choose(place.find().board, sprint_id)
    made, ended = begin_anew(sprint, phase, agent=agent)
    driven = observe(sprint).driven
    if as_json:
        document = {
            "sprint": sprint.id, "phase": phase, "after": made.after, "agent": agent,
            "ended": ended, "driven": driven,
        }  # fmt: skip
        print(json.dumps(document))
        return 0
    done = f"ended {phase}.{ended}; " if ended is not None else ""
    by = f" by {agent}" if agent else ""
    then = "" if driven else ": `nanosup up` starts it"
    print(f"{done}{phase}.{made.after + 1}{by} is next{then}")
    return 0


def begin_anew(
    sprint: SprintDir, phase: str, *, agent: str | None = None
) -> tuple[Reset, int | None]:
    """Returns the reset, and the number of the attempt that it has ended, if one ran.

    Raises:
        NotFoundError, HeldError, BlockedError, ConfigError: it cannot be; says why.
        BoardError: the board cannot be written.
    """
    _check(sprint, phase)
    # On the board first: where we are killed after that, the phase still begins anew.
    made = reset(sprint, phase, agent=agent)
    return made, _end(sprint, phase, made)


def _check(sprint: SprintDir, phase: str) -> None:
    slot = sprint.slot(phase)
    view = observe(sprint).phases[phase]
    latest = slot.latest()
    if view.state is PhaseState.RUNNING and latest is not None and latest.owner.pid is None:
        raise HeldError(
            f"phase {phase!r} is held by hand, by {describe_holder(latest)}",
            hint=f"`nanosup unstuck {phase} --force` takes it away",
        )
    if view.state is PhaseState.BLOCKED and latest is None:
        raise BlockedError(
            f"phase {phase!r} has not begun: {view.why}",
            hint="restart what it waits for, or wait",
        )


def _end(sprint: SprintDir, phase: str, made: Reset) -> int | None:
    """Ends the attempt that ran when the reset was made; its number."""
    if made.after == 0:
        return None
    latest: Attempt = sprint.slot(phase).attempt(made.after)
    if latest.outcome is not None:
        return None
    grace_s = observe(sprint).graph[phase].grace_s
    return latest.n if request.end(latest, grace_s=grace_s + _SPARE_S) else None
