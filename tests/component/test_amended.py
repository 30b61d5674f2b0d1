"""Revisions of a graph are signed: nobody takes a gate away by writing a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from board_stage import sprint_record

from supervisor.artifacts import amended, provenance
from supervisor.artifacts.key import Keyring
from supervisor.board.board import Board, SprintDir
from supervisor.model.record import Revision


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "state")


def revise(board: Board, sprint: SprintDir, *, sign: bool = True) -> Path:
    """Adds a revision; says where it is."""
    made = Revision(at="", phases=sprint.record.phases, agents={}, max_lanes=3)
    number = sprint.revisions.append(amended.signed(board, sprint, made) if sign else made)
    return Path(sprint.revisions.file(number))


def wrong(board: Board, sprint: SprintDir) -> list[str]:
    again = Board(board.path).sprint(sprint.id)
    for_a_lane = provenance.check_phases(board, again, (), contents=False)
    assert list(provenance.verify_sprint(board, again).bad) == for_a_lane
    return [row.reason for row in for_a_lane]


def test_revision_that_reload_made_holds(board: Board) -> None:
    sprint = board.create_sprint(sprint_record("build"))
    revise(board, sprint)
    revise(board, sprint)

    assert wrong(board, sprint) == []
    assert amended.fault(Keyring(board.key_path), sprint, 2) == ""


def test_revision_that_was_edited_is_found(board: Board) -> None:
    sprint = board.create_sprint(sprint_record("build"))
    path = revise(board, sprint)
    path.write_text(path.read_text().replace('"gate": false', '"gate": true'))

    assert wrong(board, sprint) == ["revision 1 of the graph is not signed by a key of this board"]


@pytest.mark.parametrize("signature", ["", "x", "0" * 64 + ":", "0" * 64 + ":====", "é:"])
def test_revision_without_a_sound_signature_is_found(board: Board, signature: str) -> None:
    sprint = board.create_sprint(sprint_record("build"))
    path = revise(board, sprint, sign=False)
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "signature": signature}))

    assert len(wrong(board, sprint)) == 1


def test_revision_of_another_sprint_is_found(board: Board) -> None:
    one, other = (board.create_sprint(sprint_record("build")) for _ in range(2))
    shutil.copy(revise(board, one), revise(board, other))

    assert wrong(board, one) == []
    assert wrong(board, other) == ["revision 1 of the graph is not signed by a key of this board"]
