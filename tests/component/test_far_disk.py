"""A network file system: calls are repeated whose answers were lost, and what is read is old."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board_stage import ended, leftovers, me, new_sprint

import sandbox.syscalls
from supervisor.board import turn
from supervisor.board.board import Board, SprintDir
from supervisor.board.slot import Slot
from supervisor.errors import FencedError, HeldError
from supervisor.model.record import AttemptState


@pytest.fixture
def sprint(tmp_path: Path) -> SprintDir:
    return new_sprint(tmp_path / "state", "build")


@pytest.fixture
def slot(sprint: SprintDir) -> Slot:
    return sprint.slot("build")


def answer_lost(call: Callable[..., None], code: int) -> Callable[..., None]:
    """The call, done once by the server, and done again by a client that never heard of it."""

    def twice(*args: Any, **options: Any) -> None:
        call(*args, **options)
        raise OSError(code, os.strerror(code))

    return twice


@pytest.mark.parametrize("code", [errno.EEXIST, errno.ENOENT, errno.ENOTEMPTY])
def test_claim_whose_answer_was_lost_is_still_ones_own(
    slot: Slot, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    lossy = answer_lost(sandbox.syscalls.renameat2, code)
    monkeypatch.setattr(sandbox.syscalls, "renameat2", lossy)

    assert slot.claim(1, me("mine")).owner.agent == "mine"
    with pytest.raises(HeldError, match="held by mine"):
        slot.claim(1, me("other"))


@pytest.mark.parametrize("code", [errno.EEXIST, errno.ENOENT])
def test_outcome_whose_answer_was_lost_still_counts(
    slot: Slot, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    held = slot.claim(1, me())
    monkeypatch.setattr(os, "link", answer_lost(os.link, code))

    assert slot.finish(held, ended(reason="mine")).state is AttemptState.FAILED
    with pytest.raises(FencedError, match="mine"):
        slot.finish(held, ended(AttemptState.COMPLETED))


def test_ticket_whose_answer_was_lost_is_taken_once(
    sprint: SprintDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(Path(sprint.path).parents[1])
    lossy = answer_lost(sandbox.syscalls.renameat2, errno.EEXIST)
    monkeypatch.setattr(sandbox.syscalls, "renameat2", lossy)

    assert [turn.ask(board, "a").n for _ in range(3)] == [1, 2, 3]
    assert len(board.queue.waiting()) == 3


def test_directory_that_is_listed_as_it_was_before_gives_nobody_a_number_twice(
    sprint: SprintDir, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(Path(sprint.path).parents[1])
    held = slot.claim(1, me("first"))
    slot.finish(held, ended())
    slot.claim(2, me("second"))
    tickets = [turn.ask(board, "a").n for _ in range(2)]
    listdir = os.listdir

    def stale(path: str) -> list[str]:
        return [name for name in listdir(path) if name != "0002"]

    monkeypatch.setattr(os, "listdir", stale)

    with pytest.raises(HeldError, match="held by second"):
        slot.claim_next(me("third"))
    assert turn.ask(board, "b").n == 3 == len(tickets) + 1
    monkeypatch.undo()
    assert leftovers(board.path) == []
