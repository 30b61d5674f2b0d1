from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from board_stage import ended, leftovers, me, new_sprint, sprint_record, tree

from supervisor.board import disk
from supervisor.board.board import Board
from supervisor.board.owner import maker
from supervisor.errors import BoardError, HeldError, NotFoundError
from supervisor.model.name import Maker, tmp_name
from supervisor.model.phase import Phase
from supervisor.upkeep.sweep import sweep


def test_looking_at_a_board_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    board = Board(tmp_path / "state")
    assert board.sprints() == []
    assert board.turns.latest() is None
    assert sweep(board) == 0
    with pytest.raises(NotFoundError, match="no sprint x"):
        board.sprint("x")
    assert list(tmp_path.iterdir()) == []


def test_a_sprint_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    board = Board(tmp_path / "state")
    record = sprint_record("plan", "build")
    board.create_sprint(record)
    again = Board(tmp_path / "state").sprint(record.id)
    assert again.record == record
    assert again.slot("plan").latest() is None
    assert os.stat(board.path).st_mode & 0o777 == 0o700
    assert leftovers(board.path) == []


def test_a_state_directory_that_was_there_is_closed_to_others(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    new_sprint(state)
    assert state.stat().st_mode & 0o777 == 0o700


def test_sprints_are_listed_oldest_first(tmp_path: Path) -> None:
    board = Board(tmp_path / "state")
    for sprint_id in ("20260102-000000-000aaaa", "20251231-235959-999ffff", "20260101-b"):
        board.create_sprint(sprint_record(sprint_id=sprint_id))
    assert board.sprints() == [
        "20251231-235959-999ffff",
        "20260101-b",
        "20260102-000000-000aaaa",
    ]


def test_an_id_is_used_once(tmp_path: Path) -> None:
    board = Board(tmp_path / "state")
    record = sprint_record()
    board.create_sprint(record).slot("build").claim(1, me())
    before = tree(board.path)
    with pytest.raises(HeldError):
        board.create_sprint(record)
    assert tree(board.path) == before


@pytest.mark.parametrize("bad", ["..", "a/b", "", "tmp.x"])
def test_names_cannot_leave_the_board(tmp_path: Path, bad: str) -> None:
    board = Board(tmp_path / "state")
    with pytest.raises(ValueError):
        board.create_sprint(sprint_record(sprint_id=bad or "."))
    with pytest.raises(ValueError):
        board.create_sprint(sprint_record(bad))
    with pytest.raises(BoardError):
        board.layer_path(bad)
    with pytest.raises(NotFoundError):
        board.sprint(bad)
    with pytest.raises(NotFoundError):
        new_sprint(tmp_path / "other").slot(bad)


def test_an_unknown_phase_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no phase 'buidl'") as caught:
        new_sprint(tmp_path / "state", "plan", "build").slot("buidl")
    assert caught.value.hint == "It has plan, build."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"2\n", "is of format 2 .* knows 1"),
        (b"", "is not a number; expected 1"),
        (b"one", "is not a number; expected 1"),
        (None, "is missing; expected 1"),
    ],
)
def test_another_format_is_refused_untouched(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    state = tmp_path / "state"
    new_sprint(state)
    (state / "format").unlink() if content is None else (state / "format").write_bytes(content)
    before = tree(state)
    with pytest.raises(BoardError, match=sentence) as caught:
        Board(state)
    assert caught.value.hint
    assert tree(state) == before


def test_a_sprint_of_another_name_or_format_is_refused(tmp_path: Path) -> None:
    sprint = new_sprint(tmp_path / "state")
    path = Path(sprint.path, "sprint.json")
    for changes, sentence in (
        ({"id": "other"}, "is about sprint 'other'"),
        ({"format": 2}, "is of format 2"),
        ({"phases": (Phase(name="../../x"),)}, r"names a phase '\.\./\.\./x'"),
    ):
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(sprint.record, **changes)))
        with pytest.raises(BoardError, match=sentence):
            _ = Board(tmp_path / "state").sprint(sprint.id).record
    path.unlink()
    with pytest.raises(BoardError, match=r"sprint\.json is missing"):
        _ = Board(tmp_path / "state").sprint(sprint.id).record


def test_keys_of_a_later_version_are_no_damage(tmp_path: Path) -> None:
    sprint = new_sprint(tmp_path / "state")
    mine = sprint.slot("build").claim(1, me())
    path = Path(mine.path, "owner.json")
    path.write_bytes(path.read_bytes().replace(b"{", b'{"later": [1],', 1))
    assert sprint.slot("build").latest() == mine


def test_sweeping_takes_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    state = tmp_path / "state"
    sprint = new_sprint(state)
    board = Board(state)
    slot = sprint.slot("build")
    slot.finish(slot.claim(1, me()), ended())
    me_as_maker = maker()
    dead = me_as_maker._replace(start_ticks=me_as_maker.start_ticks + 1)
    foreign = Maker("00000000", 1, 1, 1)
    attempts = os.path.join(slot.path, "attempts")
    places = [state, board.blobs.path, sprint.path, attempts, os.path.join(attempts, "0001")]
    os.makedirs(board.blobs.path)
    for place in places:
        for who in (me_as_maker, dead, foreign):
            half = os.path.join(place, tmp_name(who, b"x"))
            os.mkdir(half)
            Path(half, "owner.json").write_text("half")
        Path(place, "tmp.unknown").write_text("x")
    whole = {path for path in tree(state) if "tmp." not in path}

    assert sweep(board) == len(places)
    assert not any(str(dead.start_ticks) in path for path in leftovers(state))
    assert sweep(board, unjudged_s=-1.0) == 2 * len(places)
    assert {path for path in tree(state) if "tmp." not in path} == whole
    assert all(str(me_as_maker.pid) in path for path in leftovers(state))


def test_what_is_in_the_way_of_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(BoardError, match="state"):
        Board(tmp_path / "state").create_sprint(sprint_record())


def test_a_parent_that_another_process_makes_meanwhile_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.mkdir

    def late(path: str, mode: int = 0o777) -> None:
        try:
            real(path, mode)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path))  # what another process does just then
            raise

    monkeypatch.setattr(disk.os, "mkdir", late)
    disk.make_directories(str(tmp_path / "a" / "b" / "c"))
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_where_nobody_makes_directories_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="no permission to write /proc/nanosup/state"):
        Board("/proc/nanosup/state").prepare()


def test_a_rename_that_nfs_repeats_is_not_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sandbox.syscalls

    real = sandbox.syscalls.renameat2

    def repeated(*args: object, **options: object) -> None:
        real(*args, **options)  # type: ignore[arg-type]
        real(*args, **options)  # type: ignore[arg-type]

    def linked(source: str, target: str) -> None:
        link(source, target)
        link(source, target)

    link = os.link
    slot = new_sprint(tmp_path / "state").slot("build")
    monkeypatch.setattr(sandbox.syscalls, "renameat2", repeated)
    monkeypatch.setattr(disk.os, "link", linked)
    mine = slot.claim(1, me())
    slot.finish(mine, ended())
    assert leftovers(tmp_path) == []


def test_without_hard_links_an_outcome_is_still_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(source: str, target: str) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(disk.os, "link", unable)
    slot = new_sprint(tmp_path / "state").slot("build")
    mine = slot.claim(1, me())
    slot.finish(mine, ended(reason="first"))
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    with pytest.raises(Exception, match="first"):
        slot.finish(mine, ended(reason="second"))
    assert leftovers(tmp_path) == []
