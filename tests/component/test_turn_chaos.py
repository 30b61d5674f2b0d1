"""Writers take turns while somebody kills them at random: never two at once, and it goes on."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
from pathlib import Path

import pytest
from board_stage import Child, ended, leftovers, me

from supervisor.board import owner
from supervisor.board.board import Board
from supervisor.errors import FencedError, HeldError
from supervisor.model.liveness import Liveness
from supervisor.model.record import AttemptState
from supervisor.upkeep.sweep import sweep

WRITERS = 6


def write_for_ever(state: str, lock: str) -> None:
    """Takes the turn again and again; whoever finds it held by the dead ends it for them.

    The kernel's own lock is the witness: it dies with its holder, so to find it taken while the
    board says that the turn is ours would mean two living holders.
    """
    turns = Board(state).turns
    witness = os.open(lock, os.O_RDWR)
    while True:
        latest = turns.latest()
        try:
            if latest is not None and not latest.has_ended:
                if owner.liveness(latest) is Liveness.DEAD:
                    turns.finish(latest, ended(AttemptState.LOST))
                continue
            mine = turns.claim_next(me())
        except (HeldError, FencedError):
            continue
        fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(witness, b"%d\n" % mine.n, 0)
        fcntl.flock(witness, fcntl.LOCK_UN)
        turns.finish(mine, ended(AttemptState.RELEASED))


def chaos(top: Path, kills: int) -> None:
    board = Board(top / "state")
    board.prepare()
    lock = top / "lock"
    lock.touch()
    luck = random.Random(kills)

    def start() -> Child:
        return Child(lambda: write_for_ever(board.path, str(lock)))

    writers = [start() for _ in range(WRITERS)]
    try:
        for _ in range(kills):
            # Not to wait for something: the moment of the kill is to be any.
            time.sleep(luck.uniform(0, 0.01))
            place = luck.randrange(WRITERS)
            end_one(writers[place])
            writers[place] = start()
    finally:
        for writer in writers:
            end_one(writer)

    attempts = board.turns.attempts()
    assert len(attempts) > kills // 4
    assert all(attempt.has_ended for attempt in attempts[:-1])
    states = {attempt.state for attempt in attempts}
    assert {AttemptState.LOST, AttemptState.RELEASED} <= states
    last = attempts[-1]
    if not last.has_ended:
        assert owner.liveness(last) is Liveness.DEAD
        board.turns.finish(last, ended(AttemptState.LOST))
    board.turns.claim_next(me())
    sweep(board)
    assert leftovers(board.path) == []


def end_one(writer: Child) -> None:
    os.kill(writer.pid, signal.SIGKILL)
    _, status = os.waitpid(writer.pid, 0)
    writer.forget()
    # One that found two holders would have ended by itself, before it was killed.
    assert os.WIFSIGNALED(status), "a writer found the turn taken twice, or failed"


def test_writers_killed_at_random_never_hold_the_turn_together(tmp_path: Path) -> None:
    chaos(tmp_path, 80)


@pytest.mark.long
def test_writers_killed_at_random_never_hold_the_turn_together_for_long(tmp_path: Path) -> None:
    chaos(tmp_path, 10_000)
