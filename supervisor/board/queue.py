"""A queue on the board: whoever asks takes the next number, and the lowest open number is next.

    attempts/0007/owner.json      who asks; there from the moment that the directory is
    attempts/0007/outcome.json    no longer asks: got it, gave up, or died

The numbers are given out by the same call as claims are (`slot`), so the order is one for all
processes. Unlike there the number before need not have ended.
"""

from __future__ import annotations

import os

from supervisor import clock
from supervisor.board import disk, vital
from supervisor.board.attempt import Attempt
from supervisor.board.owner import liveness
from supervisor.board.slot import OUTCOME, OWNER, Slot
from supervisor.errors import BoardError, FencedError, NotFoundError
from supervisor.model.liveness import Liveness
from supervisor.model.record import AttemptState, Outcome, Owner

_KEPT = 64


class Queue(Slot):
    """Tickets in a directory, which need not exist yet."""

    __slots__ = ()

    def ask(self, by: Owner) -> Attempt:
        """Takes the next number.

        Raises:
            BoardError: it cannot be written. The board is unchanged.
        """
        with disk.explained(self._attempts):
            n = max(self._numbers(), default=0) + 1
            with self._written(by) as (tmp, by, lock):
                while not self._publish(tmp, n):
                    n += 1  # somebody came first, and stands before us
                vital.keep(self._path(n), lock)
        # A power cut that undoes it ends who asks, too.
        return Attempt(self.label, n, self._path(n), by)

    def waiting(self) -> list[Attempt]:
        """The tickets of those who still ask and are not known to be dead, the first first.

        Raises:
            BoardError: one is damaged.
        """
        return [t for t in self._open() if liveness(t) is not Liveness.DEAD]

    def leave(self, ticket: Attempt, state: AttemptState, reason: str = "") -> None:
        """Ends a ticket, where it has not ended already.

        Raises:
            BoardError: that cannot be written.
        """
        try:
            outcome = Outcome(state=state, ended_at=clock.utc_now(), reason=reason)
            self.finish(ticket, outcome, is_settled=False)
        except (FencedError, NotFoundError):
            pass

    def tidy(self) -> None:
        """Ends the tickets of the dead, and removes those that ended long ago.

        Nobody refers to a ticket that has ended. The highest stay, so that no number is given out
        twice.
        """
        for ticket in self._open():
            if liveness(ticket) is Liveness.DEAD:
                self.leave(ticket, AttemptState.LOST, "who asked has died")
        for n in self._numbers()[:-_KEPT]:
            path = self._path(n)
            if os.path.lexists(os.path.join(path, OUTCOME)):
                tmp = disk.tmp_path(self._attempts)
                try:
                    os.rename(path, tmp)
                except OSError:
                    continue  # another is at it, or the disk is read-only: it does no harm
                disk.remove(tmp)

    def _publish(self, tmp: str, n: int) -> bool:
        try:
            disk.publish_directory(tmp, self._path(n))
        except FileExistsError:
            return False
        return True

    def _open(self) -> list[Attempt]:
        found = []
        for n in self._numbers():
            path = self._path(n)
            if os.path.lexists(os.path.join(path, OUTCOME)):
                continue
            try:
                found.append(self._read(n))
            except BoardError:
                if os.path.lexists(os.path.join(path, OWNER)):
                    raise
                # Tidied away while we looked.
        return [ticket for ticket in found if not ticket.has_ended]
