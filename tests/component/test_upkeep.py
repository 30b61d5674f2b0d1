"""`clean` removes what is acknowledged, old and needed by nothing else, and never anything else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from board_stage import SNAPSHOT, Child, ended, leftovers, me, sprint_record, tree
from msgspec.structs import replace
from test_claim_killed import Traced
from test_disk_full import fill, on_small_disk, refused

from supervisor.artifacts.artifact import collect
from supervisor.board.board import Board, SprintDir
from supervisor.errors import HeldError
from supervisor.model.record import AttemptState, Snapshot
from supervisor.upkeep import ack, quarantine, removal
from supervisor.upkeep.sweep import sweep
from supervisor.upkeep.upkeep import Report, Upkeep


class Stage:
    """A board with sprints that have layers, artifacts and lanes."""

    def __init__(self, top: Path) -> None:
        self.board = Board(top / "state")
        self._outputs = top / "outputs"

    def sprint(self, *, on: Snapshot = SNAPSHOT, text: str = "", acked: bool = True) -> SprintDir:
        """A sprint with a completed attempt, which has a layer, an artifact and a lane."""
        record = replace(sprint_record("build"), base=on)
        sprint = self.board.create_sprint(record)
        slot = sprint.slot("build")
        attempt = slot.claim(1, replace(me(), snapshot=on))
        layer = f"{sprint.id}-build-0001"
        (Path(self.board.layer_path(layer)) / "src").mkdir(parents=True)
        (Path(attempt.lane_path) / "home/.cache").mkdir(parents=True)
        outputs = self._outputs / sprint.id
        outputs.mkdir(parents=True)
        (outputs / "build.md").write_text(text or sprint.id)
        done = replace(
            ended(AttemptState.COMPLETED),
            outputs=collect(self.board.blobs, str(outputs), []),
            sealed=replace(on, layers=(*on.layers, layer), height=on.height + 1),
        )
        slot.finish(attempt, done)
        if acked:
            assert ack.acknowledge(sprint.path, ack.Reason.SEEN)
        return sprint

    def clean(self, *, older_than_s: float = 0, dry: bool = False) -> Report:
        return Upkeep(Board(self.board.path), older_than_s=older_than_s, dry=dry).run()

    def ids(self) -> list[str]:
        return self.board.sprints()

    def layers(self) -> list[str]:
        return sorted(os.listdir(os.path.join(self.board.path, "layers")))

    def blobs(self) -> list[str]:
        return [path.name for path in Path(self.board.blobs.path).rglob("?" * 64)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_nothing_goes_that_nobody_acknowledged(stage: Stage) -> None:
    stage.sprint(acked=False)
    before = tree(stage.board.path)

    assert stage.clean().removed == []
    assert tree(stage.board.path) == before


def test_what_is_acknowledged_and_old_goes_with_all_that_it_alone_needs(stage: Stage) -> None:
    stage.sprint()
    kept = stage.sprint(acked=False)

    report = stage.clean()

    assert stage.ids() == [kept.id]
    assert stage.layers() == [f"{kept.id}-build-0001"]
    assert len(stage.blobs()) == 1
    assert sorted(one.kind for one in report.removed) == ["blob", "layer", "sprint"]
    assert report.freed > 0
    assert leftovers(stage.board.path) == []


def test_what_was_acknowledged_lately_stays(stage: Stage) -> None:
    sprint = stage.sprint()

    assert stage.clean(older_than_s=60).removed == []
    assert stage.ids() == [sprint.id]


def test_dry_run_tells_the_same_and_removes_nothing(stage: Stage) -> None:
    stage.sprint()
    before = tree(stage.board.path)

    told = stage.clean(dry=True).removed

    assert tree(stage.board.path) == before
    assert {(one.kind, one.name) for one in told} == {
        (one.kind, one.name) for one in stage.clean().removed
    }


def test_layers_and_blobs_that_another_sprint_needs_stay(stage: Stage) -> None:
    below = stage.sprint(text="the same")
    outcome = below.slot("build").attempt(1).outcome
    assert outcome is not None
    assert outcome.sealed is not None
    above = stage.sprint(on=outcome.sealed, text="the same", acked=False)

    stage.clean()

    assert stage.ids() == [above.id]
    assert stage.layers() == sorted([f"{below.id}-build-0001", f"{above.id}-build-0001"])
    assert len(stage.blobs()) == 1
    ack.acknowledge(above.path, ack.Reason.SEEN)
    stage.clean()
    assert (stage.ids(), stage.layers(), stage.blobs()) == ([], [], [])


def test_sprint_that_somebody_works_on_stays_and_so_do_all_blobs(stage: Stage) -> None:
    gone = stage.sprint()
    busy = stage.sprint()
    busy.slot("build").claim_next(me())

    report = stage.clean()

    assert stage.ids() == [busy.id]
    assert gone.id not in stage.ids()
    assert {one.name for one in report.kept} == {busy.id, "blobs"}
    assert len(stage.blobs()) == 2


def test_lane_of_an_acknowledged_attempt_goes_and_what_it_says_stays(stage: Stage) -> None:
    sprint = stage.sprint(acked=False)
    attempt = sprint.slot("build").attempt(1)
    ack.acknowledge(attempt.path, ack.Reason.SEEN)

    (removed,) = stage.clean().removed

    assert (removed.kind, removed.name) == ("lane", f"{sprint.id}/build.1")
    assert not os.path.exists(attempt.lane_path)
    assert sprint.slot("build").attempt(1).outcome is not None
    assert stage.layers() == [f"{sprint.id}-build-0001"]


def test_upper_that_the_next_attempt_goes_on_with_stays(stage: Stage) -> None:
    sprint = stage.board.create_sprint(sprint_record("build"))
    slot = sprint.slot("build")
    attempt = slot.claim(1, me())
    for name in ("upper", "home"):
        (Path(attempt.lane_path) / name).mkdir(parents=True)
    slot.finish(attempt, ended(AttemptState.FAILED))
    ack.acknowledge(attempt.path, ack.Reason.SEEN)

    stage.clean()

    assert os.listdir(attempt.lane_path) == ["upper"]


def test_damaged_sprint_is_named_and_holds_on_to_what_it_may_need(stage: Stage) -> None:
    hurt = stage.sprint()
    gone = stage.sprint()
    Path(hurt.path, "phases/build/attempts/0001/outcome.json").write_text('{"state": "comp')

    report = stage.clean()

    (damage,) = report.damaged
    assert "outcome.json is damaged" in damage.message
    assert stage.ids() == [hurt.id]
    assert gone.id not in stage.ids()
    assert len(stage.blobs()) == 2
    assert len(stage.layers()) == 2


def test_quarantine_keeps_all_of_a_damaged_sprint(stage: Stage) -> None:
    hurt = stage.sprint()
    content = tree(hurt.path)
    Path(hurt.path, "sprint.json").write_text("")

    (path,) = quarantine.put_aside(stage.board, quarantine.damaged(stage.board))
    report = stage.clean()

    assert stage.ids() == []
    assert report.damaged == []
    assert {**tree(path), "sprint.json": b""} == {**content, "sprint.json": b""}
    # Its outcome can still be read, and so what that names is needed.
    assert len(stage.blobs()) == 1
    assert stage.layers() == [f"{hurt.id}-build-0001"]


def test_a_fifo_in_a_documents_place_holds_up_nobody(stage: Stage) -> None:
    hurt = stage.sprint()
    path = Path(hurt.path, "phases/build/attempts/0001/owner.json")
    path.unlink()
    os.mkfifo(path)

    quarantine.put_aside(stage.board, quarantine.damaged(stage.board))
    stage.clean()
    assert stage.ids() == []


def test_sprint_of_a_newer_format_is_left_alone(stage: Stage) -> None:
    sprint = stage.sprint()
    path = Path(sprint.path, "sprint.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    before = tree(stage.board.path)

    assert quarantine.damaged(stage.board) == []
    (damage,) = stage.clean().damaged
    assert "format 2" in damage.message
    assert tree(stage.board.path) == before


def test_damaged_turn_is_put_aside_only_while_nobody_works(stage: Stage) -> None:
    stage.board.prepare()
    turn = stage.board.turns.claim(1, me())
    Path(turn.path, "owner.json").write_text("{")
    busy = stage.board.create_sprint(sprint_record("build"))
    held = busy.slot("build").claim(1, me())

    with pytest.raises(HeldError, match=r"build\.1 is held"):
        quarantine.damaged(stage.board)
    busy.slot("build").finish(held, ended())
    quarantine.put_aside(stage.board, quarantine.damaged(stage.board))
    assert stage.board.turns.claim(1, me()).n == 1


def test_trees_of_any_depth_and_mode_are_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for n in range(1100):  # far past PATH_MAX, and past Python's recursion limit
        os.mkdir("d" * 20, dir_fd=here)
        if n % 100 == 0:
            os.symlink(outside, "link", dir_fd=here)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (top / ("d" * 20)).chmod(0o500)
    os.mkfifo(top / "fifo")
    (top / "file").write_text("takes room, as directories of a tmpfs do not")

    assert removal.remove(str(top)) > 0

    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside"]
    assert (outside / "file").read_text() == "stays"


def test_on_a_full_disk_nothing_is_acknowledged_and_cleaning_makes_room(tmp_path: Path) -> None:
    def test(disk: Path) -> None:
        stage = Stage(disk)
        stage.sprint()
        other = stage.sprint(acked=False)
        fill(disk)
        full = "there is no space left for "
        refused(lambda: ack.acknowledge(other.path, ack.Reason.SEEN), stage.board.path, full)
        assert len(stage.clean().removed) == 3
        assert ack.acknowledge(other.path, ack.Reason.SEEN)

    on_small_disk(tmp_path / "disk", "size=512k", test)


def test_clean_killed_at_any_call_leaves_a_board_that_can_be_cleaned(tmp_path: Path) -> None:
    count = 0

    def fresh() -> Stage:
        nonlocal count
        count += 1
        stage = Stage(tmp_path / str(count))
        stage.sprint(text="shared")
        stage.sprint(text="shared", acked=False)
        return stage

    def work(stage: Stage) -> Callable[[], object]:
        return lambda: stage.clean()

    log = tmp_path / "log"
    calls = Traced(work(fresh()), log).trace
    counts: dict[str, int] = {}
    for number, call in enumerate(calls):
        counts[call] = counts.get(call, 0) + 1
        changes = call in ("rename", "renameat", "renameat2", "rmdir", "unlink", "unlinkat")
        if not changes and number % 20:
            continue
        stage = fresh()
        Traced(work(stage), log, "-e", f"inject={call}:signal=KILL:when={counts[call]}")
        (kept,) = [one for one in stage.ids() if ack.age_s(stage.board.sprint(one).path) is None]
        assert stage.board.sprint(kept).slot("build").attempt(1).outcome is not None
        stage.clean()
        sweep(stage.board)
        assert stage.ids() == [kept]
        assert stage.layers() == [f"{kept}-build-0001"]
        assert len(stage.blobs()) == 1
        assert leftovers(stage.board.path) == []


def test_clean_ups_at_once_remove_each_thing_once(stage: Stage) -> None:
    for number in range(12):
        stage.sprint(text=f"shared {number % 3}")
    kept = stage.sprint(text="shared 1", acked=False)

    crowd = [Child(lambda: [one.name for one in stage.clean().removed]) for _ in range(4)]
    removed = [name for child in crowd for name in child.result()]

    assert sorted(removed) == sorted(set(removed))
    assert len(removed) == 12 + 12 + 2
    assert stage.ids() == [kept.id]
    assert stage.layers() == [f"{kept.id}-build-0001"]
    assert len(stage.blobs()) == 1


def test_sprint_set_aside_by_a_clean_up_that_died_comes_back_if_somebody_works_on_it(
    stage: Stage,
) -> None:
    sprint = stage.sprint()
    held = sprint.slot("build").claim_next(me())

    def die() -> None:
        removal.set_aside(sprint.path)

    Child(die).result()
    assert stage.ids() == []
    stage.clean()

    assert stage.ids() == [sprint.id]
    assert stage.layers() == [f"{sprint.id}-build-0001"]
    assert sprint.slot("build").finish(held, ended()).n == 2
