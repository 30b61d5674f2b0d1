"""The second look after a claim: an exclusive phase and another were claimed at the same moment."""

from __future__ import annotations

from supervisor import clock
from supervisor.board.attempt import Attempt
from supervisor.board.board import SprintDir
from supervisor.board.observe import observe
from supervisor.board.readiness import check_alone
from supervisor.errors import FencedError, HeldError
from supervisor.model.phase import Access, Phase
from supervisor.model.record import AttemptState, Outcome


def give_way(sprint: SprintDir, phase: Phase, attempt: Attempt) -> None:
    """Hands a claim back that was just made, if it may not run beside what runs.

    Raises:
        HeldError: it was handed back; says to what it gives way.
        BoardError: the board cannot be read or written.
    """
    if all(known.access is not Access.EXCLUSIVE for known in sprint.record.phases):
        return
    try:
        check_alone(observe(sprint), phase)
    except HeldError as error:
        outcome = Outcome(
            state=AttemptState.RELEASED, ended_at=clock.utc_now(), reason=error.message
        )
        try:
            sprint.slot(phase.name).finish(attempt, outcome)
        except FencedError:
            pass
        raise
