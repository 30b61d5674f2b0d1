"""Pauses on the board, and telling the keepers of them.

    sprints/<id>/pauses/0001.json     a register

The board says what is to stand still; a signal only says *look*. So a pause outlives whoever asked
for it, the keeper and `up`, and whoever starts later finds it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from supervisor import clock
from supervisor.board.board import SprintDir
from supervisor.board.register import Register
from supervisor.board.request import send
from supervisor.model.standstill import PauseRecord, Standstill, standstill

LOOK = signal.SIGUSR1
"""Asks a keeper to look at what is paused. It is ignored until the keeper has a lane to stop."""


def pause(sprint: SprintDir, phase: str | None, *, paused: bool) -> None:
    """Puts a pause, or the end of one, on the board. `tell` carries it to a keeper.

    Raises:
        NotFoundError: no such phase.
        BoardError: it cannot be written. The board is unchanged.
    """
    if phase is not None:
        sprint.slot(phase)
    _register(sprint).append(PauseRecord(paused=paused, at=clock.utc_now(), phase=phase))
    sprint.journal.append("phase.paused" if paused else "phase.resumed", phase=phase)


def paused(sprint: SprintDir) -> Standstill:
    """What is paused now.

    Raises:
        BoardError: a record is damaged.
    """
    return standstill(_register(sprint).entries())


def paused_question(sprint: SprintDir, phase: str) -> Callable[[], bool]:
    """Asks the board, each time it is called, whether `phase` is paused."""
    return lambda: paused(sprint).covers(phase)


def count(sprint: SprintDir) -> int:
    """How often something was paused or resumed: tells whether anything is new."""
    return _register(sprint).highest()


def tell(sprint: SprintDir, phase: str) -> bool:
    """Has the keeper of a running attempt look. False where none runs."""
    latest = sprint.slot(phase).latest()
    return latest is not None and latest.outcome is None and send(latest, LOOK)


def _register(sprint: SprintDir) -> Register[PauseRecord]:
    return Register(os.path.join(sprint.path, "pauses"), PauseRecord)
