"""Which `nanosup up` runs a sprint: a claim like any other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from supervisor import clock
from supervisor.board import room
from supervisor.board.attempt import describe_holder
from supervisor.board.board import SprintDir
from supervisor.board.lost import bury_dead
from supervisor.board.observe import driver, holder
from supervisor.board.owner import this_process
from supervisor.errors import BusyError, FencedError, HeldError
from supervisor.model.record import AttemptState, Outcome


class Drive:
    """The claim, while it is held.

    Attributes:
        arrived: the sprint has ended under it; else whoever comes next goes on.
    """

    def __init__(self) -> None:
        self.arrived = False


@contextmanager
def driving(sprint: SprintDir) -> Iterator[Drive]:
    """Holds the claim that makes this process the one `nanosup up` of the sprint.

    Raises:
        BusyError: another one has it.
        BoardError: it cannot be written.
    """
    slot = driver(sprint)
    bury_dead(slot, "its process died")
    try:
        claim = slot.claim_next(this_process().owner("up", clock.utc_now()))
    except HeldError:
        held = holder(slot)
        raise BusyError(
            f"sprint {sprint.id} is run by {describe_holder(held) if held else 'another process'}",
            hint="watch it with `nanosup status --watch`, or end it with `nanosup down`",
        ) from None
    sprint.journal.note("up.started", pid=os.getpid())
    drive = Drive()
    try:
        yield drive
    finally:
        state = AttemptState.COMPLETED if drive.arrived else AttemptState.RELEASED
        try:
            with room.forgiving():  # who is dead has ended
                slot.finish(claim, Outcome(state=state, ended_at=clock.utc_now()))
        except FencedError:
            pass  # taken away by force
        sprint.journal.note("up.ended", pid=os.getpid())


def was_abandoned(sprint: SprintDir) -> bool:
    """Whether an `up` that ran the sprint ended before the sprint did, and none has come since:
    its lanes may have ended it meanwhile, but nobody has said so.

    Raises:
        BoardError: the claims are damaged.
    """
    latest = driver(sprint).latest()
    if latest is None:
        return False
    return latest.outcome is None or latest.outcome.state is not AttemptState.COMPLETED
