"""Writing down that an attempt is lost: its owner is dead and left no outcome."""

from __future__ import annotations

from supervisor import clock
from supervisor.board.owner import liveness, stamp
from supervisor.board.slot import Slot
from supervisor.errors import FencedError
from supervisor.model.liveness import Liveness
from supervisor.model.record import AttemptState, Outcome


def bury(slot: Slot, n: int, reason: str) -> bool:
    """Ends attempt `n` as lost. False if it has an outcome already.

    Raises:
        BoardError: the outcome cannot be written.
    """
    outcome = Outcome(
        state=AttemptState.LOST, ended_at=clock.utc_now(), ended=stamp(), reason=reason
    )
    try:
        slot.finish(slot.attempt(n), outcome)
    except FencedError:
        return False  # somebody else wrote it down, or the owner did with its last breath
    return True


def bury_dead(slot: Slot, reason: str) -> None:
    """Ends the latest attempt as lost if its owner is known to be dead. Raises as `bury`."""
    latest = slot.latest()
    if latest is not None and latest.outcome is None and liveness(latest) is Liveness.DEAD:
        bury(slot, latest.n, reason)
