"""Claims by hand: a token, a lease and its beats, and nothing for who comes late."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from board_stage import ended, leftovers, sprint_record, tree

from supervisor import conductor
from supervisor.board import beat, owner
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board, SprintDir
from supervisor.errors import FencedError, HeldError, NotFoundError, TokenError
from supervisor.model.liveness import Liveness
from supervisor.model.phase import Phase
from supervisor.model.token import Token


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "state")


@pytest.fixture
def sprint(board: Board) -> SprintDir:
    phases = tuple(Phase(name=name, agents=("claude",)) for name in ("build", "review"))
    return board.create_sprint(msgspec.structs.replace(sprint_record(), phases=phases))


def claim(
    board: Board, sprint: SprintDir, phase: str = "build", *, lease_s: float = 60
) -> tuple[Attempt, Token]:
    token = conductor.claim(board, sprint, phase, agent="claude", lease_s=lease_s)
    return sprint.slot(phase).attempt(token.attempt), token


def test_a_token_stands_for_its_attempt_and_is_not_on_the_board(
    board: Board, sprint: SprintDir
) -> None:
    attempt, token = claim(board, sprint)

    assert conductor.renew(board, token) == attempt
    assert not any(token.secret.encode() in content for content in tree(sprint.path).values())


def test_each_call_with_the_token_is_a_beat(board: Board, sprint: SprintDir) -> None:
    attempt, token = claim(board, sprint)
    late = beat.now(owner.this_process().boot_id)
    beat.renew(attempt.path, msgspec.structs.replace(late, boottime_s=late.boottime_s - 61))
    assert owner.liveness(attempt) is Liveness.DEAD

    conductor.renew(board, token)

    assert owner.liveness(attempt) is Liveness.ALIVE
    assert leftovers(sprint.path) == []


def test_the_token_of_an_ended_attempt_is_fenced_and_changes_nothing(
    board: Board, sprint: SprintDir, tmp_path: Path
) -> None:
    attempt, token = claim(board, sprint)
    sprint.slot("build").finish(attempt, ended(reason="stalled"))
    late = tmp_path / "late.json"
    late.write_text("{}")
    before = tree(board.path)

    for call in (
        lambda: conductor.renew(board, token),
        lambda: conductor.complete(board, token, [str(late)], None),
        lambda: conductor.abort(board, token, ""),
    ):
        with pytest.raises(FencedError, match="stalled"):
            call()
    assert tree(board.path) == before


def test_no_other_token_will_do(board: Board, sprint: SprintDir) -> None:
    _, token = claim(board, sprint)
    _, other = claim(board, sprint, "review")

    for wrong in (
        msgspec.structs.replace(token, secret=other.secret),
        msgspec.structs.replace(token, phase="nowhere"),
        msgspec.structs.replace(token, attempt=2),
        msgspec.structs.replace(token, sprint="nowhere"),
    ):
        with pytest.raises((NotFoundError, TokenError)) as caught:
            conductor.renew(board, wrong)
        assert token.secret not in caught.value.message


def test_a_leased_attempt_is_held_until_its_lease_has_run_out(
    board: Board, sprint: SprintDir
) -> None:
    attempt, token = claim(board, sprint)
    with pytest.raises(HeldError, match="held by claude"):
        claim(board, sprint)

    late = beat.now(owner.this_process().boot_id)
    beat.renew(attempt.path, msgspec.structs.replace(late, boottime_s=late.boottime_s - 61))

    assert claim(board, sprint)[1].attempt == 2
    with pytest.raises(FencedError, match="lost"):
        conductor.renew(board, token)
