"""A claimed attempt, and how it ends on the board whatever becomes of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.repository import repository
from supervisor import clock
from supervisor.artifacts.provenance import attest
from supervisor.artifacts.publish import publish_all
from supervisor.board import room, turn
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import observe
from supervisor.board.owner import stamp
from supervisor.errors import FencedError, SupervisorError
from supervisor.keeper.conclusion import Conclusion
from supervisor.keeper.mount import UnservedError
from supervisor.keeper.session import Finding
from supervisor.keeper.withdrawal import WithdrawnError
from supervisor.model.judgement import UNSERVED
from supervisor.model.phase import Phase
from supervisor.model.record import AttemptState, Outcome, Trouble


class Engagement:
    """An attempt that this process, or the one that it acts for, has claimed.

    Attributes:
        turn: the writer's turn, if it has that.
    """

    def __init__(
        self,
        board: Board,
        sprint: SprintDir,
        phase: Phase,
        attempt: Attempt,
        top: str,
        turn: Attempt | None,
    ) -> None:
        self.board = board
        self.sprint = sprint
        self.phase = phase
        self.attempt = attempt
        self.turn = turn
        self._top = top

    def tell(self, event: str, **fields: object) -> None:
        """Notes an event of it in the journal."""
        self.sprint.journal.note(event, phase=self.phase.name, attempt=self.attempt.n, **fields)

    def carry_through(self, act: Callable[[], Finding]) -> Attempt:
        """Has `act` carry it out, and writes how it ended. Returns the ended attempt.

        Raises:
            FencedError: it was given to another while it ran.
            BoardError: the board cannot be written.
        """
        try:
            finding = act()
            conclusion = self._conclusion()
            outcome = room.patiently(
                lambda: conclusion.outcome(finding), lambda: self.tell("disk.full")
            )
        except WithdrawnError:
            outcome = _ended(AttemptState.REVOKED, "ended on request, before its command ran")
        except UnservedError:
            outcome = _ended(AttemptState.LOST, UNSERVED)
        except (SandboxError, SupervisorError) as error:
            outcome = _failed(error.message, error)
        except OSError as error:
            outcome = _failed(f"{error.filename or 'a system call'}: {error.strerror}", error)
        except Exception as error:
            traceback.print_exc()
            outcome = _failed(f"a fault in nanosup: {type(error).__name__}: {error}")
        return self._end(outcome)

    def _conclusion(self) -> Conclusion:
        return Conclusion(self.board, self.sprint, self.phase, self.attempt, self._top)

    def _end(self, outcome: Outcome) -> Attempt:
        slot = self.sprint.slot(self.phase.name)

        def finish() -> Attempt:
            done = outcome
            if outcome.state is AttemptState.COMPLETED:
                done = attest(self.board, self.sprint, self.phase, self.attempt, outcome)
            return slot.finish(self.attempt, done, is_settled=False)

        try:
            ended = room.patiently(finish, lambda: self.tell("disk.full"))
        except FencedError:
            self.tell("attempt.fenced")
            self._conclusion().withdraw()
            raise
        self.tell(
            "attempt.ended",
            state=outcome.state,
            reason=outcome.reason or None,
            commit=outcome.sealed.commit if outcome.sealed else None,
            verdict=outcome.verdict,
        )
        slot.settle(ended)  # whoever waits for it has been told, and need not wait for the disk
        if outcome.sealed is not None:
            publish_all(repository.find(Path(self._top)), observe(self.sprint))
        return ended


@contextmanager
def holding(board: Board, sprint: SprintDir, phase: str, n: int, held: Attempt) -> Iterator[None]:
    """Gives the writer's turn back at the end, that attempt `n` of a phase has."""
    try:
        yield
    finally:
        # Before: whoever reads the journals finds no moment with two turns.
        sprint.journal.note("turn.released", phase=phase, attempt=n, turn=held.n)
        with room.forgiving():  # who is dead has ended
            turn.give_back(board, held)


def _failed(reason: str, error: Exception | None = None) -> Outcome:
    return _ended(AttemptState.FAILED, reason, Trouble.NO_SPACE if room.is_wanting(error) else None)


def _ended(state: AttemptState, reason: str, trouble: Trouble | None = None) -> Outcome:
    return Outcome(
        state=state, ended_at=clock.utc_now(), ended=stamp(), reason=reason, trouble=trouble
    )
