"""Claims for agents that people start themselves: no process to watch, but a token and beats.

The one who claims gets a token; the board holds the digest of its secret. Every call that carries
the token is a beat. A lease that is not renewed for `lease_s` seconds is dead, and may be fenced.
"""

from __future__ import annotations

import os

import msgspec

from supervisor import beat, clock, token
from supervisor.attempt import Attempt, describe_outcome
from supervisor.board import Board, SprintDir
from supervisor.errors import FencedError, NotFoundError
from supervisor.owner import this_process
from supervisor.record import Input, Snapshot
from supervisor.slot import Slot
from supervisor.token import Token

LEASE_S = 3600.0


class Held(msgspec.Struct, frozen=True):
    """What a token stands for."""

    sprint: SprintDir
    slot: Slot
    attempt: Attempt


def claim(
    sprint: SprintDir,
    phase: str,
    n: int,
    agent: str,
    *,
    lease_s: float = LEASE_S,
    snapshot: Snapshot | None = None,
    inputs: tuple[Input, ...] = (),
) -> tuple[Attempt, Token]:
    """Claims attempt n at a phase. Raises as `Slot.claim`. The token is kept nowhere."""
    minted = token.mint(sprint.id, phase, n, os.urandom(token.SECRET_BYTES))
    owner = this_process().lease(agent, clock.utc_now(), lease_s, minted.digest)
    owner = msgspec.structs.replace(owner, snapshot=snapshot, inputs=inputs)
    return sprint.slot(phase).claim(n, owner), minted


def redeem(board: Board, text: str, *, renew: bool = True) -> Held:
    """What a token stands for, if its attempt still runs; and, unless `renew` is false, a beat.

    Raises:
        NotFoundError: it is no token, or of no attempt of this board, or its secret is wrong.
        FencedError: the attempt has an outcome; says which.
        BoardError: the board is damaged, or the beat cannot be written.
    """
    parsed = token.parse(text)
    if parsed is None:
        raise NotFoundError(
            "that is no token",
            hint="A token is what `nanosup claim` printed: SPRINT.PHASE.N.SECRET",
        )
    sprint = board.sprint(parsed.sprint)
    slot = sprint.slot(parsed.phase)
    attempt = slot.attempt(parsed.attempt)
    if not parsed.opens(attempt.owner.token_sha256):
        raise NotFoundError(
            f"attempt {attempt.n} of phase {parsed.phase} was not claimed with this token"
        )
    if attempt.has_ended:
        raise FencedError(
            f"attempt {attempt.n} of {slot.label} has ended already: {describe_outcome(attempt)}",
            hint="Nothing was changed. Claim the phase again to go on.",
        )
    if renew and attempt.owner.lease_s is not None:
        beat.renew(attempt.path, beat.now(this_process().boot_id))
    return Held(sprint, slot, attempt)
