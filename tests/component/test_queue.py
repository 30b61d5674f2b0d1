"""The line for the writer's turn: one order for all processes, and the dead hold nobody up."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from board_stage import Child, leftovers, me
from test_claim_killed import STRACE, at_each_call

from supervisor.board import turn
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board
from supervisor.board.queue import Queue
from supervisor.errors import HeldError
from supervisor.model.record import AttemptState
from supervisor.upkeep.sweep import sweep

CONTEXT = multiprocessing.get_context("fork")


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "state")


def dead_asker(board: Board) -> Attempt:
    """A ticket of a process that has died since."""
    number = Child(lambda: turn.ask(board, "gone").n).result()
    return board.queue.attempt(number)


def test_the_turn_goes_to_the_lowest_ticket_only(board: Board) -> None:
    first, second = turn.ask(board, "first"), turn.ask(board, "second")

    for early in (second.n, None):
        with pytest.raises(HeldError, match="goes first to first"):
            turn.take(board, me(), early)
    taken = turn.take(board, me(), first.n)
    with pytest.raises(HeldError, match="is held by"):
        turn.take(board, me(), second.n)
    turn.give_back(board, taken)
    with pytest.raises(HeldError, match="goes first to second"):
        turn.take(board, me())
    turn.give_back(board, turn.take(board, me(), second.n))
    assert turn.take(board, me()).n == 3


def test_who_gives_up_or_dies_is_skipped(board: Board) -> None:
    dead = dead_asker(board)
    gone = turn.ask(board, "gone")
    board.queue.leave(gone, AttemptState.RELEASED)
    mine = turn.ask(board, "mine")

    assert [t.n for t in turn.ahead(board, None)] == [mine.n]
    turn.take(board, me(), mine.n)
    assert (dead.n, gone.n, mine.n) == (1, 2, 3)


def test_a_ticket_that_was_used_gives_no_second_turn(board: Board) -> None:
    mine, other = turn.ask(board, "mine"), turn.ask(board, "other")
    turn.give_back(board, turn.take(board, me(), mine.n))

    with pytest.raises(HeldError, match="goes first to other"):
        turn.take(board, me(), mine.n)
    assert turn.take(board, me(), other.n).n == 2


def test_simultaneous_askers_get_one_number_each_and_their_turns_in_that_order(
    board: Board,
) -> None:
    count, rounds = 6, 12
    board.prepare()
    barrier = CONTEXT.Barrier(count)

    def run() -> list[tuple[int, int]]:
        got = []
        for _ in range(rounds):
            barrier.wait(60)
            ticket = turn.ask(board, "a").n
            barrier.wait(60)
            while True:
                try:
                    taken = turn.take(board, me(), ticket)
                except HeldError:
                    continue
                got.append((ticket, taken.n))
                turn.give_back(board, taken)
                break
        return got

    children = [Child(run) for _ in range(count)]
    pairs = sorted(pair for child in children for pair in child.result())

    assert [ticket for ticket, _ in pairs] == list(range(1, count * rounds + 1))
    assert [taken for _, taken in pairs] == list(range(1, count * rounds + 1))
    assert leftovers(board.path) == []


def test_tidying_keeps_the_numbers_counting_and_open_tickets_open(board: Board) -> None:
    queue: Queue = board.queue
    open_one = turn.ask(board, "patient")
    for _ in range(200):
        queue.leave(turn.ask(board, "a"), AttemptState.RELEASED)
    dead_asker(board)

    sweep(board)

    assert [t.n for t in queue.waiting()] == [open_one.n]
    kept = os.listdir(Path(queue.path) / "attempts")
    assert len(kept) < 100
    assert turn.ask(board, "next").n == 203
    with pytest.raises(HeldError):
        turn.take(board, me(), 2)  # which is not there any more
    turn.give_back(board, turn.take(board, me(), open_one.n))
    turn.give_back(board, turn.take(board, me(), 203))
    assert turn.take(board, me(), 2).n == 3
    assert leftovers(board.path) == []


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_an_asker_killed_at_any_system_call_holds_nobody_up(tmp_path: Path, board: Board) -> None:
    highest = 0

    def check() -> bool:
        nonlocal highest
        before, ticket = highest, turn.ask(board, "next")
        assert turn.ahead(board, ticket.n) == []
        turn.give_back(board, turn.take(board, me(), ticket.n))
        highest = ticket.n
        return ticket.n > before + 1

    def ask_and_leave() -> None:
        board.queue.leave(turn.ask(board, "victim"), AttemptState.RELEASED)

    board.prepare()
    calls = at_each_call(tmp_path / "log", lambda: ask_and_leave, check)
    assert {"mkdir", "write", "fsync", "renameat2", "link"} <= set(calls)


def test_a_stopped_asker_keeps_its_place(board: Board) -> None:
    ready, told = os.pipe()
    asker = Child(lambda: (turn.ask(board, "asleep"), os.write(told, b"\1"), signal.pause()))
    os.read(ready, 1)
    os.kill(asker.pid, signal.SIGSTOP)

    with pytest.raises(HeldError, match="goes first to asleep"):
        turn.take(board, me())

    os.kill(asker.pid, signal.SIGKILL)
    os.waitpid(asker.pid, 0)
    asker.forget()
    os.close(ready)
    os.close(told)
    assert turn.take(board, me()).n == 1
