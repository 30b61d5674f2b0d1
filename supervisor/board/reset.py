"""Resets: a person's word that what happened at a phase so far counts no more.

    phases/<phase>/resets/0001.json     made once by link(2), never changed; they count up

A reset only changes what comes next: it ends no attempt, and is no attempt. `policy.after` says
what follows from it.
"""

from __future__ import annotations

import os

import msgspec

from supervisor import clock
from supervisor.board.board import SprintDir
from supervisor.board.register import Register
from supervisor.board.slot import Slot
from supervisor.errors import ConfigError
from supervisor.model.policy import Reset


class ResetRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reset as it is on the board.

    Attributes:
        after: the number of the last attempt at that time; 0 = none. Attempts up to it count no
            more.
        agent: takes the first turn.
        at: shown only.
    """

    after: int
    at: str
    agent: str | None = None


def reset(sprint: SprintDir, phase: str, *, agent: str | None = None) -> Reset:
    """Puts a reset of `phase` on the board, and a `phase.reset` into the journal, which wakes `up`.

    Raises:
        NotFoundError: no such phase.
        ConfigError: the sprint knows no such agent.
        BoardError: it cannot be written. The board is unchanged.
    """
    if agent is not None and agent not in sprint.record.agents:
        raise ConfigError(
            f"sprint {sprint.id} has no agent {agent!r}",
            hint=f"it has {', '.join(sprint.record.agents)}; `nanosup reload` takes up new ones",
        )
    slot = sprint.slot(phase)
    latest = slot.latest()
    record = ResetRecord(after=latest.n if latest else 0, at=clock.utc_now(), agent=agent)
    _register(slot).append(record)
    sprint.journal.append("phase.reset", phase=phase, after=record.after, agent=agent)
    return Reset(record.after, agent)


def resets(slot: Slot) -> tuple[Reset, ...]:
    """All resets of a phase, in the order in which they were asked for.

    Raises:
        BoardError: one is damaged.
    """
    return tuple(Reset(record.after, record.agent) for record in _register(slot).entries())


def _register(slot: Slot) -> Register[ResetRecord]:
    return Register(os.path.join(slot.path, "resets"), ResetRecord)
