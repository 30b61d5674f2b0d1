"""Real processes race for one number, and for one outcome: each has exactly one winner."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from threading import BrokenBarrierError

import pytest
from board_stage import Child, ended, leftovers, me, new_sprint

import sandbox.syscalls
from supervisor.board.board import Board
from supervisor.errors import FencedError, HeldError
from supervisor.model.record import AttemptState

CONTEXT = multiprocessing.get_context("fork")


def race(state: Path, processes: int, rounds: int, *, plain_rename: bool = False) -> None:
    """Rounds of simultaneous claims of one number, each followed by simultaneous outcomes."""
    sprint = new_sprint(state, "build")
    barrier = CONTEXT.Barrier(processes)

    def run(name: str) -> tuple[list[int], list[int]]:
        if plain_rename:
            sandbox.syscalls.renameat2 = refuse  # type: ignore[assignment]
        slot = Board(state).sprint(sprint.id).slot("build")
        won, finished = [], []
        try:
            for n in range(1, rounds + 1):
                barrier.wait(60)
                try:
                    slot.claim(n, me(name))
                    won.append(n)
                except HeldError as held:
                    assert f"attempt {n}" in held.message
                barrier.wait(60)
                attempt = slot.attempt(n)
                barrier.wait(60)
                try:
                    slot.finish(attempt, ended(AttemptState.FAILED, reason=name))
                    finished.append(n)
                except FencedError:
                    pass
        except BrokenBarrierError:
            raise
        except BaseException:
            barrier.abort()
            raise
        return won, finished

    children = [Child(lambda name=f"a{i}": run(name)) for i in range(processes)]
    results = [child.result() for child in children]

    attempts = sprint.slot("build").attempts()
    assert [attempt.n for attempt in attempts] == list(range(1, rounds + 1))
    assert sorted(n for won, _ in results for n in won) == list(range(1, rounds + 1))
    assert sorted(n for _, ends in results for n in ends) == list(range(1, rounds + 1))
    for attempt in attempts:
        assert attempt.n in results[int(attempt.owner.agent[1:])][0]
        assert attempt.outcome is not None
        assert attempt.n in results[int(attempt.outcome.reason[1:])][1]
    assert leftovers(state) == []


def refuse(*_args: object, **_options: object) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.parametrize(("processes", "rounds"), [(2, 300), (20, 40), (50, 10)])
def test_of_simultaneous_claimants_exactly_one_wins(
    tmp_path: Path, processes: int, rounds: int
) -> None:
    race(tmp_path / "state", processes, rounds)


def test_one_wins_too_where_the_file_system_cannot_rename_without_replacing(tmp_path: Path) -> None:
    race(tmp_path / "state", 8, 60, plain_rename=True)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("processes", "rounds"), [(2, 5000), (7, 3000), (20, 1500), (50, 500)])
def test_of_simultaneous_claimants_exactly_one_wins_ten_thousand_times(
    tmp_path: Path, processes: int, rounds: int
) -> None:
    race(tmp_path / "state", processes, rounds)


def test_many_processes_may_make_the_board_at_once(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state"
    barrier = CONTEXT.Barrier(12)

    def run() -> str:
        barrier.wait(60)
        return new_sprint(state, "build").id

    children = [Child(run) for _ in range(12)]
    made = sorted(child.result() for child in children)
    assert Board(state).sprints() == made
    assert (state / "format").read_text() == "1\n"
    assert leftovers(state) == []


def test_many_processes_may_write_the_journal_at_once(tmp_path: Path) -> None:
    journal = new_sprint(tmp_path / "state", "build").journal
    barrier = CONTEXT.Barrier(8)

    def run(who: int) -> None:
        barrier.wait(60)
        for i in range(200):
            journal.append("test", who=who, i=i, pad="x" * (i * 37 % 9000))

    children = [Child(lambda who=who: run(who)) for who in range(8)]
    for child in children:
        child.result()
    events = list(journal.read())
    assert len(events) == 8 * 200
    for who in range(8):
        mine = [event.fields["i"] for event in events if event.fields["who"] == who]
        assert mine == list(range(200))
