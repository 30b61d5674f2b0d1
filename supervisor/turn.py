"""The writer's turn: one for the repository, whatever sprint or process the writer is of.

Who has to wait for it takes a ticket; the turn then goes to the lowest ticket whose asker lives, so
in the order of asking. Who does not wait (a claim by hand) has it only while nobody does.
"""

from __future__ import annotations

import msgspec

from supervisor import clock
from supervisor.attempt import Attempt, describe_holder
from supervisor.board import Board
from supervisor.errors import FencedError, HeldError
from supervisor.lost import bury_dead
from supervisor.observe import holder
from supervisor.owner import this_process
from supervisor.record import AttemptState, Outcome, Owner

# Other hosts cannot see whether the process that asks lives, and go by its beats (`line`).
LEASE_S = 300.0


def ask(board: Board, who: str) -> Attempt:
    """Takes a ticket for this process. `who` is for people.

    Raises:
        BoardError: it cannot be written.
    """
    board.prepare()
    owner = this_process().owner(who, clock.utc_now())
    return board.queue.ask(msgspec.structs.replace(owner, lease_s=LEASE_S))


def ahead(board: Board, ticket: int | None) -> list[Attempt]:
    """Who waits before `ticket`, the first first. Before one without a ticket, or whose ticket has
    ended, everybody does."""
    waiting = board.queue.waiting()
    numbers = [t.n for t in waiting]
    return waiting[: numbers.index(ticket)] if ticket in numbers else waiting


def take(board: Board, owner: Owner, ticket: int | None = None) -> Attempt:
    """Claims the turn, and with it uses the ticket up.

    Raises:
        HeldError: somebody has it, or waits for it and comes first; says who.
        BoardError: it cannot be written.
    """
    board.prepare()
    bury_dead(board.turns, "its holder died without giving the turn back, or its lease ran out")
    if waiting := ahead(board, ticket):
        raise HeldError(
            f"the writer's turn goes first to {describe_holder(waiting[0])}, who waits for it",
            hint="one writer at a time, in the order of asking: try again later",
        )
    try:
        turn = board.turns.claim_next(msgspec.structs.replace(owner, snapshot=None, inputs=()))
    except HeldError:
        latest = holder(board.turns)
        raise HeldError(
            f"the writer's turn is held by {describe_holder(latest) if latest else 'another'}",
            hint="one writer at a time: wait for it to end",
        ) from None
    if ticket is not None:
        # After the claim: killed in between, we leave a ticket whose asker goes on waiting.
        used = board.queue.attempt(ticket)
        board.queue.leave(used, AttemptState.COMPLETED, f"got turn {turn.n}")
    return turn


def give_back(board: Board, turn: Attempt, state: AttemptState = AttemptState.RELEASED) -> None:
    """Ends a turn, where nobody has ended it meanwhile.

    Raises:
        BoardError: that cannot be written.
    """
    try:
        board.turns.finish(turn, Outcome(state=state, ended_at=clock.utc_now()))
    except FencedError:
        pass  # taken away by force, or we were taken for dead
