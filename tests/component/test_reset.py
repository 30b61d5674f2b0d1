"""Resets on the board: who asks last is heard, and nothing is ever overwritten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from board_stage import sprint_record

from supervisor.board.board import Board, SprintDir
from supervisor.board.reset import reset, resets
from supervisor.errors import BoardError, ConfigError, NotFoundError
from supervisor.model.phase import Agent
from supervisor.model.policy import Reset


def make_sprint(state: Path) -> SprintDir:
    agents = {"a": Agent(name="a", command=("true",))}
    return Board(state).create_sprint(msgspec.structs.replace(sprint_record("plan"), agents=agents))


def test_last_reset_holds_and_the_journal_tells(tmp_path: Path) -> None:
    sprint = make_sprint(tmp_path)
    slot = sprint.slot("plan")

    assert resets(slot) == ()
    reset(sprint, "plan")
    reset(sprint, "plan", agent="a")

    assert resets(slot) == (Reset(0), Reset(0, "a"))
    assert [e.event for e in sprint.journal.read()][-2:] == ["phase.reset"] * 2


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    sprint = make_sprint(tmp_path)

    with pytest.raises(ConfigError, match="no agent 'nobody'"):
        reset(sprint, "plan", agent="nobody")
    with pytest.raises(NotFoundError):
        reset(sprint, "nope")
    assert resets(sprint.slot("plan")) == ()


def test_resets_of_many_at_once_all_stand(tmp_path: Path) -> None:
    sprint = make_sprint(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: reset(sprint, "plan"), range(16)))

    assert len(resets(sprint.slot("plan"))) == 16


def test_damaged_reset_is_named(tmp_path: Path) -> None:
    sprint = make_sprint(tmp_path)
    reset(sprint, "plan")
    path = Path(sprint.slot("plan").path) / "resets/0001.json"
    path.write_text("{")

    with pytest.raises(BoardError, match=r"resets/0001.json"):
        resets(sprint.slot("plan"))
