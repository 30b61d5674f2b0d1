"""The slot on a real directory against a model of it in ten lines."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from board_stage import ended, me
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from supervisor.board import owner
from supervisor.board.attempt import Attempt
from supervisor.board.slot import Slot
from supervisor.errors import FencedError, HeldError, NotFoundError
from supervisor.model import name
from supervisor.model.record import AttemptState

ENDS = st.sampled_from([state for state in AttemptState if state is not AttemptState.RUNNING])


class SlotMachine(RuleBasedStateMachine):
    """The model: a list of (owner's name, how it ended or None)."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp())
        self.slot = Slot(str(self.top / "slot"), "phase test")
        self.model: list[tuple[str, AttemptState | None]] = []
        self.held: list[Attempt] = []
        self.claims = 0

    def teardown(self) -> None:
        shutil.rmtree(self.top)

    @rule(n=st.integers(1, 8))
    def claim(self, n: int) -> None:
        self.claims += 1
        who = f"a{self.claims}"
        if n == len(self.model) + 1 and (n == 1 or self.model[-1][1] is not None):
            self.held.append(self.slot.claim(n, me(who)))
            self.model.append((who, None))
        elif n > len(self.model) + 1:
            with pytest.raises(NotFoundError):
                self.slot.claim(n, me(who))
        else:
            with pytest.raises(HeldError) as caught:
                self.slot.claim(n, me(who))
            blamed = self.model[min(n, len(self.model)) - 1][0]
            assert blamed in caught.value.message or self.model[n - 2][0] in caught.value.message

    @rule(which=st.integers(0, 7), state=ENDS)
    def finish(self, which: int, state: AttemptState) -> None:
        if which >= len(self.held):
            return
        who, before = self.model[which]
        if before is None:
            self.slot.finish(self.held[which], ended(state))
            self.model[which] = (who, state)
        else:
            with pytest.raises(FencedError, match=before.value):
                self.slot.finish(self.held[which], ended(state))

    @rule(noise=st.binary(min_size=1, max_size=4), with_owner=st.booleans())
    def die_half_way(self, noise: bytes, with_owner: bool) -> None:
        tmp = self.top / "slot" / "attempts" / name.tmp_name(owner.maker(), noise)
        if tmp.parent.is_dir() and not tmp.exists():
            tmp.mkdir()
            if with_owner:
                (tmp / "owner.json").write_text("{")

    @rule(noise=st.binary(min_size=1, max_size=4))
    def die_before_the_link(self, noise: bytes) -> None:
        if self.held:
            path = os.path.join(self.held[-1].path, name.tmp_name(owner.maker(), noise))
            Path(path).write_text('{"state": "completed"')

    @invariant()
    def the_directory_is_as_the_model(self) -> None:
        shown = [
            (attempt.owner.agent, attempt.outcome.state if attempt.outcome else None)
            for attempt in self.slot.attempts()
        ]
        assert shown == self.model
        latest = self.slot.latest()
        assert (latest.n if latest else 0) == len(self.model)


SlotMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)
TestSlot = SlotMachine.TestCase
