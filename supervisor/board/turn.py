"""The writer's turn: one for the repository, whatever sprint or process the writer is of.

Who has to wait for it takes a ticket; the turn then goes to the lowest ticket whose asker lives, so
in the order of asking. Who does not wait (most claims by hand) has it only while nobody does.
"""

from __future__ import annotations

import msgspec

from supervisor import clock
from supervisor.board.attempt import Attempt, describe_holder
from supervisor.board.board import Board
from supervisor.board.owner import liveness, this_process
from supervisor.errors import FencedError, HeldError, NotFoundError
from supervisor.model.liveness import Liveness
from supervisor.model.record import AttemptState, Outcome, Owner

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
    bury(board)
    mine = next((t for t in board.queue.waiting() if t.n == ticket), None)
    if waiting := ahead(board, ticket):
        raise HeldError(
            f"the writer's turn goes first to {describe_holder(waiting[0])}, who waits for it",
            hint="one writer at a time, in the order of asking: `--wait` asks, too",
        )
    try:
        turn = board.turns.claim_next(
            msgspec.structs.replace(owner, snapshot=None, inputs=()),
            # A power cut that undoes it ends its holder, too, where that is a process.
            is_settled=owner.lease_s is not None,
        )
    except HeldError:
        latest = holder(board)
        raise HeldError(
            f"the writer's turn is held by {describe_holder(latest) if latest else 'another'}",
            hint="one writer at a time: `--wait` waits for it",
        ) from None
    if mine is not None:
        # After the claim: killed in between, we leave a ticket whose asker goes on waiting.
        board.queue.leave(mine, AttemptState.COMPLETED, f"got turn {turn.n}")
    return turn


def holder(board: Board) -> Attempt | None:
    """Who has the turn, if that is not known to be dead.

    Raises:
        BoardError: the turn, or the attempt that it serves, is damaged.
    """
    latest = board.turns.latest()
    if latest is None or latest.has_ended or _liveness(board, latest) is Liveness.DEAD:
        return None
    return latest


def hindrance(board: Board, ticket: int | None = None) -> str | None:
    """Why the turn cannot be had now, with this ticket or by who does not wait in line; None: it
    can.

    Raises:
        BoardError: as `holder`, or a ticket is damaged.
    """
    if (held := holder(board)) is not None:
        return f"waits for the writer's turn, held by {describe_holder(held)}"
    if waiting := ahead(board, ticket):
        return f"waits for the writer's turn, which goes first to {describe_holder(waiting[0])}"
    return None


def bury(board: Board) -> None:
    """Ends the turn of a holder that is known to be dead.

    Raises:
        BoardError: as `holder`; or it cannot be written.
    """
    latest = board.turns.latest()
    if latest is not None and not latest.has_ended and holder(board) is None:
        give_back(board, latest, AttemptState.LOST)


def _liveness(board: Board, turn: Attempt) -> Liveness:
    """Whether the holder of a turn lives.

    A turn of a claim by hand lasts as long as the claim that it serves, wherever whoever took it
    was killed. Before the claim is there, the process counts that is making it.
    """
    owner = turn.owner
    if owner.serves is None:
        return liveness(turn)
    served = _served(board, owner.serves)
    if served is None or served.owner.token_sha256 != owner.token_sha256:
        return liveness(turn)
    return Liveness.DEAD if served.has_ended else liveness(served)


def _served(board: Board, named: str) -> Attempt | None:
    sprint, phase, number = named.split("/")
    try:
        return board.sprint(sprint).slot(phase).attempt(int(number))
    except NotFoundError:
        return None


def give_back(board: Board, turn: Attempt, state: AttemptState = AttemptState.RELEASED) -> None:
    """Ends a turn, where nobody has ended it meanwhile.

    Raises:
        BoardError: that cannot be written.
    """
    try:
        outcome = Outcome(state=state, ended_at=clock.utc_now())
        # Whoever finds it open after a power cut finds that its holder is dead, or has ended.
        board.turns.finish(turn, outcome, is_settled=False)
    except FencedError:
        pass  # taken away by force, or we were taken for dead
