"""A process killed at any system call of a claim, an outcome, … leaves a board that works.

The work runs once undisturbed, to learn its calls; then once for each of them, and strace injects
SIGKILL as that call is entered.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from board_stage import ended, leftovers, me, sprint_record

from sandbox.syscalls import prctl
from supervisor.board import owner
from supervisor.board.board import Board, SprintDir
from supervisor.model.liveness import Liveness
from supervisor.model.record import AttemptState
from supervisor.upkeep.sweep import sweep

STRACE = shutil.which("strace")
PR_SET_PTRACER = 0x59616D61  # linux/prctl.h; Yama allows a parent's sibling only by this
PR_SET_PTRACER_ANY = -1

pytestmark = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


class Traced:
    """A child that runs `work` under strace. `trace` holds the names of the calls it made."""

    def __init__(self, work: Callable[[], object], log: Path, *options: str) -> None:
        assert STRACE is not None
        pid = os.fork()
        if not pid:
            status = 1
            try:
                try:
                    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY)
                except OSError:
                    pass  # a kernel without Yama
                os.kill(os.getpid(), signal.SIGSTOP)
                work()
                status = 0
            finally:
                os._exit(status)
        os.waitpid(pid, os.WUNTRACED)
        tracer = subprocess.Popen(
            [STRACE, "-p", str(pid), "-o", str(log), *options],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert tracer.stderr is not None
        line = tracer.stderr.readline().decode()
        if "attached" not in line:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            tracer.communicate()
            pytest.skip(f"strace cannot trace here: {line.strip()}")
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, 0)
        tracer.communicate()
        self.was_killed = os.WIFSIGNALED(status)
        assert self.was_killed or os.WEXITSTATUS(status) == 0
        calls = (line.partition("(")[0] for line in log.read_text().splitlines())
        self.trace = [call for call in calls if call.isidentifier() and call != "exit_group"]


def at_each_call(
    log: Path, prepare: Callable[[], Callable[[], object]], check: Callable[[], bool]
) -> list[str]:
    """Kills the work as it enters its first call, its second, …. Returns the calls it makes.

    `check` says whether the board shows the work as done, and clears the way for the next time.
    """
    calls = Traced(prepare(), log).trace
    assert check()
    done = []
    counts: Counter[str] = Counter()
    for call in calls:
        # strace counts each system call by itself.
        counts[call] += 1
        inject = f"inject={call}:signal=KILL:when={counts[call]}"
        traced = Traced(prepare(), log, "-e", inject)
        visible = check()
        # Once a directory is there, the call that found it missing is not made again.
        assert traced.was_killed or visible
        if traced.was_killed:
            done.append(visible)
    assert len(done) > len(calls) * 2 // 3
    assert not done[0]
    assert any(done), "no call after the work became visible was tried"
    return calls


def test_a_claimant_killed_at_any_system_call_wedges_nothing(tmp_path: Path) -> None:
    board = Board(tmp_path / "state")
    slot = board.create_sprint(sprint_record("build")).slot("build")
    expected = 0

    def prepare() -> Callable[[], object]:
        return lambda: slot.claim(expected + 1, me())

    def check() -> bool:
        nonlocal expected
        latest = slot.latest()
        number = latest.n if latest else 0
        assert number in (expected, expected + 1)
        if number == expected:
            return False
        expected = number
        assert latest is not None
        assert owner.liveness(latest) is Liveness.DEAD
        slot.finish(latest, ended(AttemptState.LOST))
        return True

    calls = at_each_call(tmp_path / "log", prepare, check)
    assert {"mkdir", "write", "fsync", "renameat2"} <= set(calls)
    assert slot.claim_next(me()).n == expected + 1
    assert [attempt.n for attempt in slot.attempts()] == list(range(1, expected + 2))
    assert leftovers(board.path)  # some died half-way…
    sweep(board)
    assert leftovers(board.path) == []  # … and are swept


def test_a_finisher_killed_at_any_system_call_wedges_nothing(tmp_path: Path) -> None:
    board = Board(tmp_path / "state")
    slot = board.create_sprint(sprint_record("build")).slot("build")

    def prepare() -> Callable[[], object]:
        latest = slot.latest()
        held = slot.claim_next(me()) if latest is None or latest.has_ended else latest
        return lambda: slot.finish(held, ended(AttemptState.COMPLETED, reason="x"))

    def check() -> bool:
        latest = slot.latest()
        assert latest is not None
        if latest.outcome is None:
            return False
        assert latest.outcome.state is AttemptState.COMPLETED
        return True

    assert {"write", "fsync", "link"} <= set(at_each_call(tmp_path / "log", prepare, check))
    sweep(board)
    assert leftovers(board.path) == []


def test_a_sprint_killed_while_it_is_made_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    board = Board(tmp_path / "state")
    wanted = ""
    count = 0

    def prepare() -> Callable[[], object]:
        nonlocal wanted, count
        count += 1
        wanted = f"s{count:04d}"
        record = sprint_record("build", "review", sprint_id=wanted)
        return lambda: Board(board.path).create_sprint(record)

    def check() -> bool:
        if wanted not in Board(board.path).sprints():
            return False
        sprint: SprintDir = Board(board.path).sprint(wanted)
        for phase in sprint.record.phases:
            assert sprint.slot(phase.name).latest() is None
            sprint.slot(phase.name).claim(1, me())
        return True

    assert {"fsync", "renameat2"} <= set(at_each_call(tmp_path / "log", prepare, check))
    sweep(board)
    assert leftovers(board.path) == []


def test_a_blob_killed_while_it_is_added_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    board = Board(tmp_path / "state")
    board.prepare()
    source = tmp_path / "source"
    source.touch()
    board.blobs.add(str(source), 0)
    names: list[str] = []
    count = 0

    def prepare() -> Callable[[], object]:
        nonlocal count
        count += 1
        source.write_bytes(b"%d" % count * 1000)
        return lambda: board.blobs.add(str(source), 1 << 20)

    def check() -> bool:
        found = [path.name for path in Path(board.path, "blobs").rglob("*") if path.is_file()]
        whole = [name for name in found if not name.startswith("tmp.")]
        assert all(board.blobs.verify(name) for name in whole)
        new = len(whole) > len(names)
        names[:] = whole
        return new

    assert {"fsync", "rename"} <= set(at_each_call(tmp_path / "log", prepare, check))
    sweep(board)
    assert leftovers(board.path) == []


def test_a_board_killed_while_it_is_made_is_made_by_the_next(tmp_path: Path) -> None:
    count = 0
    state = tmp_path / "0"
    record = sprint_record("build")

    def make() -> None:
        board = Board(state)
        board.create_sprint(record)
        board.turns.claim(1, me())

    def prepare() -> Callable[[], object]:
        nonlocal count, state
        count += 1
        state = tmp_path / str(count) / "state"
        return make

    def check() -> bool:
        turn = Board(state).turns.latest()
        sprints = Board(state).sprints()
        if turn is not None:
            return True
        board = Board(state)
        if not sprints:
            board.create_sprint(record)
        board.turns.claim(1, me())
        assert board.sprint(record.id).slot("build").claim(1, me()).n == 1
        sweep(board)
        assert leftovers(state) == []
        return False

    at_each_call(tmp_path / "log", prepare, check)
