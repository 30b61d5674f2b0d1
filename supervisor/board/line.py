"""Waiting in line for the writer's turn, as a fleet does: without polling."""

from __future__ import annotations

import time

from supervisor.board import beat, turn, vital
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board
from supervisor.board.owner import this_process, visible_pids
from supervisor.board.watch import Watch
from supervisor.model.record import AttemptState


class Place:
    """A fleet's place in the line for the turn, if it has one.

    Args:
        who: for people.
    """

    def __init__(self, board: Board, who: str) -> None:
        self._board = board
        self._who = who
        self._ticket: Attempt | None = None
        self._beaten = 0.0

    @property
    def ticket(self) -> int | None:
        return self._ticket.n if self._ticket is not None else None

    def look(self, watch: Watch) -> tuple[set[int], bool]:
        """What this place waits for, and whether the wait is over. Sets watches first, so that no
        change is missed: a turn is taken before its ticket ends, and so is looked at after.

        Returns the pids of this host whose end is a change, and whether the turn can be had now.

        Raises:
            BoardError: a ticket or a turn is damaged, or the beat cannot be written.
        """
        before: list[Attempt] = []
        if self._ticket is not None:
            for known in self._board.queue.waiting():
                if known.n < self._ticket.n:
                    try:
                        watch.directory(known.path)
                    except FileNotFoundError:
                        pass  # it ended long ago, and was tidied away just now
            waiting = self._board.queue.waiting()
            before = [t for t in waiting if t.n < self._ticket.n]
            if all(t.n != self._ticket.n for t in waiting):
                vital.release(self._ticket.path)
                self._ticket = None  # used by the keeper that took the turn with it
            else:
                self._beat(self._ticket)
        latest = self._board.turns.latest()
        if latest is not None and latest.outcome is None:
            watch.directory(latest.path)
        held = turn.holder(self._board)
        in_the_way = [*before, *([held] if held else [])]
        pids = visible_pids(a.owner for a in in_the_way)
        return pids, self._ticket is not None and not in_the_way

    def join(self) -> None:
        """Takes a ticket. Raises BoardError: it cannot be written."""
        self._ticket = turn.ask(self._board, self._who)
        self._beaten = time.monotonic()

    def leave(self) -> None:
        """Gives the place up. Raises BoardError: that cannot be written."""
        if self._ticket is not None:
            self._board.queue.leave(self._ticket, AttemptState.RELEASED)
            self._ticket = None

    def _beat(self, ticket: Attempt) -> None:
        if time.monotonic() - self._beaten > turn.LEASE_S / 5:
            self._beaten = time.monotonic()
            beat.renew(ticket.path, beat.now(this_process().boot_id))
