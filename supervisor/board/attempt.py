"""An attempt as the board shows it, and the rules of a slot. No I/O.

A slot is a row of attempts numbered from 1. The number is the fencing token: it only ever counts
up. Attempt n may be claimed once n-1 has an outcome, and an outcome, once written, stays. So "n-1
has ended" never becomes false again, and to look first and claim then is not a race.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from supervisor.model.record import AttemptState, Outcome, Owner


class Attempt(msgspec.Struct, frozen=True):
    """One try, as it was when it was read.

    Attributes:
        label: what is tried, for people: "phase review", "the writer's turn".
        path: its directory. The holder keeps its logs and its lane there.
    """

    label: str
    n: int
    path: str
    owner: Owner
    outcome: Outcome | None = None

    @property
    def state(self) -> AttemptState:
        return AttemptState.RUNNING if self.outcome is None else self.outcome.state

    @property
    def has_ended(self) -> bool:
        return self.outcome is not None

    @property
    def lane_path(self) -> str:
        return f"{self.path}/lane"


class SlotState(StrEnum):
    """Whether the next attempt may be claimed."""

    FREE = "free"
    HELD = "held"


def slot_state(latest: Attempt | None) -> SlotState:
    return SlotState.FREE if latest is None or latest.has_ended else SlotState.HELD


def next_number(latest: Attempt | None) -> int:
    """The number of the attempt after `latest`."""
    return 1 if latest is None else latest.n + 1


def describe_holder(attempt: Attempt) -> str:
    """Who holds an attempt, for a sentence: "claude (pid 4711 on mill, attempt 2, since …)"."""
    owner = attempt.owner
    where = f"pid {owner.pid} on {owner.host}" if owner.pid is not None else f"on {owner.host}"
    return f"{owner.agent} ({where}, attempt {attempt.n}, since {owner.claimed_at})"


def describe_outcome(attempt: Attempt) -> str:
    """How an attempt ended, for a sentence: "timed_out at … (reason)"."""
    if attempt.outcome is None:
        return "running"
    reason = f" ({attempt.outcome.reason})" if attempt.outcome.reason else ""
    return f"{attempt.outcome.state.value} at {attempt.outcome.ended_at}{reason}"
