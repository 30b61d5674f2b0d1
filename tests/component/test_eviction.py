"""What `clean` removes of the lower tiers: rooms whose sprint is gone, trees that none needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from sandbox.repository.repository import find
from sandbox.tiers.checkout import Checkouts
from supervisor.board.board import Board
from supervisor.keeper.lodging import rooms, rooms_path
from supervisor.upkeep import eviction
from tests.component.board_stage import sprint_record
from tests.gitbox import make_repository, write


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setenv("NANOSUP_ROOMS", str(tmp_path))
    made = Board(tmp_path / "board")
    made.prepare()
    return made


def test_rooms_of_sprints_that_are_there_stay(board: Board) -> None:
    record = sprint_record("build")
    board.create_sprint(record)
    top = Path(rooms(board.path, public=False))
    for name in (f"{record.id}-build-0001", "20200101-000000-aaaaaaa-build-0001"):
        (top / name).mkdir()

    left = eviction.rooms_left(board)

    assert [os.path.basename(path) for path in left] == ["20200101-000000-aaaaaaa-build-0001"]


def test_a_tree_that_a_sprint_starts_from_stays_and_so_do_its_files(
    board: Board, tmp_path: Path
) -> None:
    top = make_repository(tmp_path / "repo", {"kept": "kept\n"})
    store = Checkouts(str(Path(board.path, "checkouts")), os.getuid(), os.getgid())
    needed = find(top)
    store.checkout(needed, needed.tree)
    write(top / "more", "more\n")
    other = find(make_repository(tmp_path / "other", {"kept": "kept\n", "more": "more\n"}))
    store.checkout(other, other.tree)
    record = sprint_record("build")
    board.create_sprint(replace(record, base=replace(record.base, base_tree=needed.tree)))

    left = eviction.trees_left(board)

    assert sorted(map(os.path.basename, left)) == [other.tree, f"{other.tree}.manifest"]
    for path in left:
        os.rename(path, tmp_path / os.path.basename(path))
    with eviction.files_left(board) as files:
        assert files == []  # the other tree still has them, wherever it is now
    for parent, _, names in os.walk(tmp_path / other.tree):
        for name in names:
            os.unlink(os.path.join(parent, name))
    with eviction.files_left(board) as files:
        assert [Path(path).read_text() for path in files] == ["more\n"]


def test_where_there_are_none_nothing_is_made(board: Board) -> None:
    assert eviction.rooms_left(board) == eviction.trees_left(board) == []
    with eviction.files_left(board) as files:
        assert files == []
    assert not os.path.exists(rooms_path(board.path))
