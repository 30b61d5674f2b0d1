"""What the template remembers for its keepers."""

from __future__ import annotations

from pathlib import Path

import msgspec
from board_stage import ended, me, new_sprint

from supervisor.board import document
from supervisor.board.board import Board, SprintDir
from supervisor.fleet.memory import Memory
from supervisor.keeper.order import Order
from supervisor.model.record import AttemptState, Owner


def _order(sprint: SprintDir, state: Path, phase: str = "plan") -> bytes:
    order = Order(state=str(state), top="/", sprint=sprint.id, phase=phase, n=1, agent="a")
    return msgspec.json.encode(order) + b"\n"


def _tried(sprint: SprintDir, times: int) -> None:
    slot = sprint.slot("plan")
    for _ in range(times):
        slot.finish(slot.claim_next(me()), ended(AttemptState.FAILED))


def test_what_has_ended_is_read_once_for_all_that_inherit_it(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    sprint = new_sprint(tmp_path, "plan")
    _tried(sprint, 5)
    memory = Memory()
    memory.refresh()
    assert memory.sprint is None, "nothing was asked for yet"
    memory.note(_order(sprint, tmp_path))
    memory.refresh()
    _tried(sprint, 1)

    keepers = Board(tmp_path).sprint(sprint.id)
    assert memory.sprint is not None
    keepers.learn(memory.sprint)
    read: list[str] = []
    real = document.read

    def noted(path, kind):  # type: ignore[no-untyped-def]
        if kind is Owner:
            read.append(path)
        return real(path, kind)

    monkeypatch.setattr(document, "read", noted)
    attempts = keepers.slot("plan").attempts()
    assert [attempt.n for attempt in attempts] == [1, 2, 3, 4, 5, 6]
    assert len(read) == 1, "the sixth alone"


def test_another_sprints_memory_is_of_no_use(tmp_path: Path) -> None:
    one, other = new_sprint(tmp_path / "a", "plan"), new_sprint(tmp_path / "b", "plan")
    _tried(one, 2)
    one.slot("plan").attempts()
    other.learn(one)
    assert other.slot("plan").attempts() == []


def test_what_is_damaged_is_left_to_who_needs_it(tmp_path: Path) -> None:
    sprint = new_sprint(tmp_path, "plan")
    _tried(sprint, 1)
    Path(sprint.path, "phases/plan/attempts/0001/outcome.json").write_text("{")
    memory = Memory()
    memory.note(_order(sprint, tmp_path))
    memory.refresh()
    assert memory.sprint is None
