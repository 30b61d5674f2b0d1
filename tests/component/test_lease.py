from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from board_stage import ended, leftovers, new_sprint, tree

from supervisor import beat, lease, owner
from supervisor.board import Board, SprintDir
from supervisor.errors import FencedError, HeldError, NotFoundError
from supervisor.liveness import Liveness


@pytest.fixture
def sprint(tmp_path: Path) -> SprintDir:
    return new_sprint(tmp_path / "state")


def board_of(sprint: SprintDir) -> Board:
    return Board(Path(sprint.path).parent.parent)


def test_a_token_stands_for_its_attempt_and_is_not_on_the_board(sprint: SprintDir) -> None:
    attempt, token = lease.claim(sprint, "build", 1, "claude")
    held = lease.redeem(board_of(sprint), f"{token}\n")
    assert held.attempt == attempt
    assert held.slot.label == "phase build"
    assert not any(token.secret.encode() in content for content in tree(sprint.path).values())


def test_each_call_with_the_token_is_a_beat(sprint: SprintDir) -> None:
    attempt, token = lease.claim(sprint, "build", 1, "claude", lease_s=60)
    here = owner.this_process().boot_id
    late = beat.now(here)
    beat.renew(attempt.path, msgspec.structs.replace(late, boottime_s=late.boottime_s - 61))
    assert owner.liveness(attempt) is Liveness.DEAD
    lease.redeem(board_of(sprint), str(token), renew=False)
    assert owner.liveness(attempt) is Liveness.DEAD
    lease.redeem(board_of(sprint), str(token))
    assert owner.liveness(attempt) is Liveness.ALIVE
    assert leftovers(sprint.path) == []


def test_the_token_of_an_ended_attempt_is_fenced_and_changes_nothing(sprint: SprintDir) -> None:
    attempt, token = lease.claim(sprint, "build", 1, "claude")
    sprint.slot("build").finish(attempt, ended(reason="stalled"))
    before = tree(sprint.path)
    with pytest.raises(FencedError, match="stalled"):
        lease.redeem(board_of(sprint), str(token))
    assert tree(sprint.path) == before


def test_no_other_token_will_do(sprint: SprintDir) -> None:
    _, token = lease.claim(sprint, "build", 1, "claude")
    _, other = lease.claim(sprint, "review", 1, "claude")
    board = board_of(sprint)
    wrong = [
        "nonsense",
        str(token).upper(),
        str(msgspec.structs.replace(token, secret=other.secret)),
        str(msgspec.structs.replace(token, phase="nowhere")),
        str(msgspec.structs.replace(token, attempt=2)),
        str(msgspec.structs.replace(token, sprint="nowhere")),
    ]
    for text in wrong:
        with pytest.raises(NotFoundError) as caught:
            lease.redeem(board, text)
        assert token.secret not in caught.value.message


def test_a_leased_attempt_is_held(sprint: SprintDir) -> None:
    lease.claim(sprint, "build", 1, "claude")
    with pytest.raises(HeldError, match="held by claude"):
        lease.claim(sprint, "build", 2, "codex")
