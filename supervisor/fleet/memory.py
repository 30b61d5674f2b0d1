"""What the template remembers of a sprint, for the keepers that are forked from it.

Each keeper reads how the attempts before its own have ended, and a phase may have had thousands of
them. None of it changes any more, so one process reads it, each attempt once, and forks inherit it.
"""

from __future__ import annotations

import msgspec

from supervisor.board.board import Board, SprintDir
from supervisor.errors import SupervisorError
from supervisor.keeper.order import Order


class Memory:
    """Remembers one sprint: the one that the last order was for.

    Attributes:
        sprint: that; None before the first order, and where it cannot be read.
    """

    def __init__(self) -> None:
        self.sprint: SprintDir | None = None
        self._order: Order | None = None

    def note(self, line: bytes) -> None:
        """An order was given."""
        self._order = msgspec.json.decode(line, type=Order)

    def refresh(self) -> None:
        """Reads what has ended since, of the phase that the last order was for."""
        order, self._order = self._order, None
        if order is None:
            return
        try:
            if self.sprint is None or self.sprint.id != order.sprint:
                self.sprint = Board(order.state).sprint(order.sprint)
            self.sprint.slot(order.phase).attempts()
        except SupervisorError:
            self.sprint = None  # who needs it will say what is wrong
