"""The writer's turn and the line for it on a real directory, against a model of a few lines."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from board_stage import me
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor.board import owner, turn
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board
from supervisor.errors import HeldError
from supervisor.model import name
from supervisor.model.record import AttemptState


class TurnMachine(RuleBasedStateMachine):
    """The model: who waits, in order, and whether somebody has the turn."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp())
        self.board = Board(self.top / "state")
        self.waiting: list[int] = []
        self.held: Attempt | None = None
        self.asked = self.taken = 0

    def teardown(self) -> None:
        shutil.rmtree(self.top)

    @rule()
    def ask(self) -> None:
        self.asked += 1
        assert turn.ask(self.board, f"a{self.asked}").n == self.asked
        self.waiting.append(self.asked)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def take_with_a_ticket(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        if self.held is None and ticket == self.waiting[0]:
            self.held = turn.take(self.board, me(), ticket)
            self.taken += 1
            assert self.held.n == self.taken
            self.waiting.pop(0)
        else:
            with pytest.raises(HeldError):
                turn.take(self.board, me(), ticket)

    @rule(number=st.integers(1, 40))
    def take_without_one(self, number: int) -> None:
        ticket = number if number not in self.waiting else None  # none, or one that has ended
        if self.held is None and not self.waiting:
            self.held = turn.take(self.board, me(), ticket if number <= self.asked else None)
            self.taken += 1
        else:
            with pytest.raises(HeldError):
                turn.take(self.board, me(), ticket)

    @precondition(lambda self: self.held is not None)
    @rule()
    def give_back(self) -> None:
        assert self.held is not None
        turn.give_back(self.board, self.held)
        turn.give_back(self.board, self.held)  # a second time changes nothing
        self.held = None

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.board.queue.leave(self.board.queue.attempt(ticket), AttemptState.RELEASED)
        self.waiting.remove(ticket)

    @rule()
    def tidy(self) -> None:
        self.board.queue.tidy()

    @precondition(lambda self: self.asked)
    @rule(noise=st.binary(min_size=1, max_size=4))
    def die_while_asking(self, noise: bytes) -> None:
        made = Path(self.board.queue.path) / "attempts" / name.tmp_name(owner.maker(), noise)
        made.mkdir(exist_ok=True)

    @invariant()
    def the_directory_is_as_the_model(self) -> None:
        assert [t.n for t in self.board.queue.waiting()] == self.waiting
        seen = turn.holder(self.board)
        assert (seen.n if seen else None) == (self.held.n if self.held else None)
        assert (turn.hindrance(self.board) is None) == (not self.waiting and self.held is None)


TurnMachine.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=20,
    suppress_health_check=list(HealthCheck),
)
TestTurn = TurnMachine.TestCase
