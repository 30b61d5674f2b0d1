from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from board_stage import Child, ended, leftovers, me, new_sprint, tree

from supervisor.board import beat, owner, slot
from supervisor.board.attempt import SlotState, slot_state
from supervisor.board.slot import Slot
from supervisor.errors import BoardError, FencedError, HeldError, NotFoundError
from supervisor.model.liveness import Liveness
from supervisor.model.record import AttemptState, Output


@pytest.fixture
def build(tmp_path: Path) -> Slot:
    return new_sprint(tmp_path / "state").slot("build")


def test_a_claim_is_seen_with_its_owner(build: Slot) -> None:
    assert build.latest() is None
    mine = build.claim(1, me())
    assert build.attempts() == [mine]
    assert build.latest() == mine
    assert mine.state is AttemptState.RUNNING
    assert owner.liveness(mine) is Liveness.ALIVE
    assert slot_state(mine) is SlotState.HELD
    assert leftovers(build.path) == []


def test_a_second_claim_is_refused_and_names_the_holder(build: Slot) -> None:
    build.claim(1, me("claude"))
    for n in (1, 2):
        with pytest.raises(HeldError, match=rf"phase build is held by claude \(pid {os.getpid()}"):
            build.claim(n, me("codex"))


def test_who_comes_too_late_for_a_number_is_told_how_it_ended(build: Slot) -> None:
    build.finish(build.claim(1, me()), ended(reason="exit 1"))
    with pytest.raises(HeldError, match=r"was claude's, and ended failed at .* \(exit 1\)"):
        build.claim(1, me("codex"))


def test_numbers_only_count_up(build: Slot) -> None:
    with pytest.raises(NotFoundError):
        build.claim(2, me())
    for n in range(1, 4):
        build.finish(build.claim_next(me()), ended())
        assert [attempt.n for attempt in build.attempts()] == list(range(1, n + 1))
    with pytest.raises(NotFoundError):
        build.claim(5, me())
    with pytest.raises(ValueError):
        build.claim(0, me())


def test_what_ended_attempts_have_in_common_is_kept_once(build: Slot) -> None:
    for n, reason in enumerate(("exit 1", "exit 1", "exit 2"), 1):
        build.finish(build.claim(n, me("a" if n < 3 else "b")), ended(reason=reason))
    one, two, three = build.attempts()

    assert two.owner.host is one.owner.host
    assert two.outcome is not None and one.outcome is not None
    assert two.outcome.reason is one.outcome.reason
    assert (two.n, two.path) == (2, f"{one.path[:-4]}0002")
    assert three.owner.agent == "b"
    assert three.outcome is not None and three.outcome.reason == "exit 2"
    assert [one, two, three] == new_reader(build).attempts()


def new_reader(of: Slot) -> Slot:
    """Reads all anew."""
    return Slot(of.path, of.label)


def test_numbers_go_on_past_four_digits(build: Slot) -> None:
    build.finish(build.claim(1, me()), ended())
    attempts = Path(build.path, "attempts")
    (attempts / "0001").rename(attempts / "9999")
    build.finish(build.claim(10_000, me()), ended())
    assert build.claim_next(me()).n == 10_001


def test_the_first_outcome_stands_and_the_second_is_fenced(build: Slot) -> None:
    mine = build.claim(1, me())
    build.finish(mine, ended(AttemptState.STALLED, "silent for 600 s"))
    before = tree(build.path)
    with pytest.raises(FencedError, match=r"attempt 1 .* stalled at .*silent for 600 s"):
        build.finish(mine, ended(AttemptState.COMPLETED))
    assert tree(build.path) == before


def test_an_attempt_that_fails_to_be_claimed_leaves_nothing(build: Slot) -> None:
    build.claim(1, me())
    before = tree(build.path)
    with pytest.raises(HeldError):
        build.claim(1, me())
    assert tree(build.path) == before


def test_the_lost_race_after_the_look_is_told_too(
    build: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.claim(1, me("claude"))
    monkeypatch.setattr(slot.os.path, "lexists", lambda path: False)
    with pytest.raises(HeldError, match="held by claude"):
        build.claim(1, me("codex"))
    assert leftovers(build.path) == []


def test_the_lost_race_for_an_outcome_is_told_too(
    build: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = build.claim(1, me())
    build.finish(mine, ended())
    monkeypatch.setattr(slot.os.path, "lexists", lambda path: False)
    with pytest.raises(FencedError):
        build.finish(mine, ended(AttemptState.COMPLETED))
    assert leftovers(build.path) == []


def test_running_is_no_outcome_and_a_nobody_is_no_owner(build: Slot) -> None:
    mine = build.claim(1, me())
    with pytest.raises(ValueError):
        build.finish(mine, ended(AttemptState.RUNNING))
    build.finish(mine, ended())
    with pytest.raises(ValueError):
        build.claim(2, msgspec.structs.replace(me(), pid=None))


def test_a_slot_whose_sprint_was_removed_does_not_come_back(build: Slot) -> None:
    sprint = Path(build.path).parent.parent
    sprint.rename(sprint.with_name("tmp.gone"))
    with pytest.raises(NotFoundError):
        build.claim(1, me())
    assert not sprint.exists()


def test_the_directory_of_the_turns_is_made_by_the_first_claim(tmp_path: Path) -> None:
    turns = Slot(str(tmp_path / "turns"), "the writer's turn")
    assert turns.attempts() == []
    turns.claim(1, me())
    with pytest.raises(HeldError, match="the writer's turn is held"):
        turns.claim_next(me())


def test_an_owner_that_ended_is_dead_and_its_attempt_can_be_taken_over(build: Slot) -> None:
    Child(lambda: build.claim(1, me()).n).result()
    left = build.latest()
    assert left is not None
    assert owner.liveness(left) is Liveness.DEAD
    build.finish(left, ended(AttemptState.LOST))
    assert build.claim_next(me()).n == 2


def test_a_zombie_owner_is_dead_before_it_is_reaped(build: Slot) -> None:
    child = Child(lambda: build.claim(1, me()).n)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    left = build.latest()
    assert left is not None
    assert owner.liveness(left) is Liveness.DEAD
    child.result()


def test_a_forked_child_does_not_pass_for_its_parent() -> None:
    mine = owner.this_process()
    child = Child(owner.this_process)
    theirs = child.result()
    assert theirs.pid == child.pid != mine.pid
    assert theirs.boot_id == mine.boot_id


def test_a_lease_lives_by_its_beats(build: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    here = owner.this_process()
    held = build.claim(1, here.lease("claude", "2026-01-01T00:00:00.000Z", 60.0, "0" * 64))
    assert owner.liveness(held) is Liveness.ALIVE
    old = beat.now(here.boot_id)
    old = msgspec.structs.replace(old, boottime_s=old.boottime_s - 61)
    beat.renew(held.path, old)
    assert owner.liveness(held) is Liveness.DEAD
    beat.renew(held.path, beat.now(here.boot_id))
    assert owner.liveness(held) is Liveness.ALIVE
    # After a reboot, or on another host, only the wall clock is left.
    foreign = beat.now("another boot")
    beat.renew(held.path, msgspec.structs.replace(foreign, boottime_s=0.0))
    assert owner.liveness(held) is Liveness.ALIVE
    beat.renew(held.path, msgspec.structs.replace(foreign, wall_s=foreign.wall_s - 61))
    assert owner.liveness(held) is Liveness.DEAD
    assert leftovers(build.path) == []


def test_a_damaged_beat_counts_from_when_it_was_written(build: Slot) -> None:
    here = owner.this_process()
    held = build.claim(1, here.lease("claude", "2026-01-01T00:00:00.000Z", 60.0, "0" * 64))
    file = Path(held.path, beat.FILE)
    file.write_text("{")
    assert owner.liveness(held) is Liveness.ALIVE
    os.utime(file, (0, 0))
    assert owner.liveness(held) is Liveness.DEAD
    file.unlink()
    assert owner.liveness(held) is Liveness.ALIVE  # the claim itself is the first beat


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("owner.json", b"", "owner.json is empty; expected an owner document"),
        ("owner.json", b"{", "owner.json is damaged .*; expected an owner document"),
        ("owner.json", b"[]", "owner.json is damaged .*; expected an owner document"),
        ("owner.json", b'{"agent": "a"}', "missing required field `host`"),
        ("owner.json", b'"\xff"', "owner.json is damaged"),
        ("owner.json", None, "0001 holds no owner.json"),
        ("outcome.json", b"null", "outcome.json is damaged .*; expected an outcome document"),
        ("outcome.json", b'{"state": "fine", "ended_at": ""}', "Invalid enum value 'fine'"),
        ("outcome.json", b'{"state": "running", "ended_at": ""}', 'says "running"'),
    ],
)
def test_a_damaged_file_is_named_with_what_was_expected(
    build: Slot, file: str, content: bytes | None, expected: str
) -> None:
    mine = build.claim(1, me())
    path = Path(mine.path, file)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    before = tree(build.path)
    for look in (build.attempts, build.latest, lambda: build.claim(2, me())):
        with pytest.raises(BoardError, match=expected) as caught:
            look()
        assert "damaged" in caught.value.message
        assert caught.value.hint
    assert tree(build.path) == before


def test_a_file_that_is_a_link_or_a_directory_is_damage(build: Slot, tmp_path: Path) -> None:
    mine = build.claim(1, me())
    outcome = Path(mine.path, "outcome.json")
    outcome.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BoardError, match=r"outcome\.json"):
        build.latest()
    outcome.unlink()
    outcome.mkdir()
    with pytest.raises(BoardError, match=r"outcome\.json cannot be read"):
        build.latest()


def test_a_missing_number_and_a_second_spelling_are_damage(build: Slot) -> None:
    for _ in range(3):
        build.finish(build.claim_next(me()), ended())
    attempts = Path(build.path, "attempts")
    (attempts / "0002").rename(attempts / "tmp.away")
    with pytest.raises(BoardError, match=r"0002 is missing; .* from 1 to 3"):
        build.attempts()
    (attempts / "tmp.away").rename(attempts / "2")
    with pytest.raises(BoardError, match="'2' is not how an attempt's number is written"):
        build.latest()


def test_names_that_mean_nothing_are_left_alone(build: Slot) -> None:
    attempts = Path(build.path, "attempts")
    (attempts / "tmp.half-made").mkdir()
    (attempts / ".DS_Store").write_text("x")
    (attempts / "0007~").write_text("x")
    assert build.attempts() == []
    assert build.claim_next(me()).n == 1


def test_a_reason_that_is_not_utf_8_still_ends_the_attempt(build: Slot) -> None:
    """A file name of any bytes can get into a reason; an attempt that cannot end would wedge."""
    mine = build.claim(1, me("cla\udcffude"))
    build.finish(mine, ended(reason="cannot read a\udcffb"))
    latest = build.latest()
    assert latest is not None
    assert latest.owner.agent == "cla\\udcffude"
    assert latest.outcome is not None
    assert latest.outcome.reason == "cannot read a\\udcffb"


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", "A" * 64, "a" * 65])
def test_an_outcome_with_an_impossible_digest_is_damage(build: Slot, sha256: str) -> None:
    mine = build.claim(1, me())
    outcome = ended(AttemptState.COMPLETED)
    outputs = (Output(name="x", sha256=sha256, size=1),)
    build.finish(mine, msgspec.structs.replace(outcome, outputs=outputs))
    with pytest.raises(BoardError, match=r"outcome\.json is damaged .*sha256"):
        build.latest()
