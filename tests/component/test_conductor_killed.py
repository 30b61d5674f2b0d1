"""A claim by hand that is killed at any system call: neither the phase nor the turn is wedged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from board_stage import Child, ended, sprint_record
from test_claim_killed import STRACE, at_each_call

from supervisor import conductor
from supervisor.board import turn
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import observe
from supervisor.errors import HeldError
from supervisor.model.decide import PhaseState
from supervisor.model.phase import Access, Phase
from supervisor.model.record import AttemptState
from supervisor.model.token import Token, mint

pytestmark = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "state")


@pytest.fixture
def sprint(board: Board) -> SprintDir:
    phases = (
        Phase(name="build", access=Access.WRITE, agents=("a",), restarts=10_000),
        Phase(name="other", access=Access.WRITE, agents=("a",)),
    )
    return board.create_sprint(msgspec.structs.replace(sprint_record("x"), phases=phases))


def is_free(board: Board, sprint: SprintDir) -> bool:
    """Whether another can claim: the phase and the turn agree about it."""
    seen = observe(sprint).phases["build"]
    held = seen.state is PhaseState.RUNNING
    assert (turn.holder(board) is not None) == held
    return not held


def test_a_claim_by_hand_killed_at_any_call_holds_both_or_neither(
    tmp_path: Path, board: Board, sprint: SprintDir
) -> None:
    def check() -> bool:
        if is_free(board, sprint):
            # Whoever comes next gets both, whatever was left of the dead.
            made = conductor.claim(board, sprint, "other", agent="next")
            conductor.abort(board, made, "")
            return False
        with pytest.raises(HeldError):
            conductor.claim(board, sprint, "other", agent="next")
        with pytest.raises(HeldError, match="held by victim"):
            conductor.unstuck(board, sprint, "build", force=False)
        freed, _ = conductor.unstuck(board, sprint, "build", force=True)
        assert freed is not None
        assert freed.state is AttemptState.REVOKED
        assert is_free(board, sprint)
        return True

    def hand_over() -> object:
        return conductor.renew(board, conductor.claim(board, sprint, "build", agent="victim"))

    # What is imported late is imported: else the first run has calls that no later one makes.
    conductor.abort(board, conductor.claim(board, sprint, "build", agent="first"), "")
    at_each_call(tmp_path / "log", lambda: hand_over, check)


def test_a_claim_whose_token_nobody_got_dies_with_its_process(
    board: Board, sprint: SprintDir
) -> None:
    Child(lambda: conductor.claim(board, sprint, "build", agent="victim") and None).result()
    latest = sprint.slot("build").latest()
    assert latest is not None
    assert latest.outcome is None

    assert is_free(board, sprint)
    assert conductor.claim(board, sprint, "build", agent="next").attempt == 2


def test_the_end_of_a_claim_killed_at_any_call_leaves_both_or_neither(
    tmp_path: Path, board: Board, sprint: SprintDir
) -> None:
    held: list[Token] = []

    def prepare() -> Callable[[], object]:
        if is_free(board, sprint):
            held[:] = [conductor.claim(board, sprint, "build", agent="a")]
        return lambda: conductor.abort(board, held[0], "")

    at_each_call(tmp_path / "log", prepare, lambda: is_free(board, sprint))
    assert conductor.claim(board, sprint, "build", agent="a")


def test_a_turn_for_a_claim_that_another_made_is_nobodys(board: Board, sprint: SprintDir) -> None:
    token = mint(sprint.id, "build", 1, os.urandom(20))

    def take_and_die() -> None:
        from supervisor.board.owner import this_process

        lease = this_process().lease("victim", "", 3600, token.digest)
        turn.take(board, conductor._for_turn(lease, token))

    Child(take_and_die).result()
    latest = board.turns.latest()
    assert latest is not None
    assert not latest.has_ended

    assert turn.holder(board) is None
    assert conductor.claim(board, sprint, "build", agent="next").attempt == 1
    latest = board.turns.latest()
    assert latest is not None
    assert latest.n == 2
    board.turns.finish(latest, ended())
