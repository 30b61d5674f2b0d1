"""Sprints that build on one another: which tree a new one is based on.

A sprint's base never changes. So one that is to be based on what another makes is begun only once
the other has sealed it, and then runs beside the other's reviews. What became of it then, `footing`
says.
"""

from __future__ import annotations

from sandbox.repository.repository import Repository, is_ancestor
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import SprintView, observe
from supervisor.model import lineage
from supervisor.model.decide import PhaseState, SprintState
from supervisor.model.phase import Access
from supervisor.model.record import Snapshot

_NOTHING_TO_COME = frozenset(
    {
        SprintState.COMPLETED,
        SprintState.FAILED,
        SprintState.REJECTED,
        SprintState.BLOCKED,
        SprintState.STOPPED,
    }
)


def foundation(board: Board, repo: Repository) -> SprintDir | None:
    """The sprint that one begun now would be based on: the last that has neither failed nor
    stopped, if it has, or will have, all that HEAD has and more.

    Raises:
        BoardError: a sprint is damaged.
    """
    for known in reversed(board.sprints()):
        found = board.sprint(known)
        seen = observe(found)
        if seen.state not in (SprintState.RUNNING, SprintState.COMPLETED):
            continue
        top = lineage.head(seen.record, seen.phases).commit
        is_new = seen.state is SprintState.RUNNING or not is_ancestor(repo, top, repo.commit)
        if is_new and is_ancestor(repo, repo.commit, seen.record.base.commit, board.objects_path):
            return found
        return None
    return None


def sealed(seen: SprintView) -> Snapshot | None:
    """What a sprint may be based on: the tree that all writers of `seen` have made, before any
    exclusive phase; None while some of it is still to come."""
    writers = [v for v in seen.phases.values() if v.phase.access is Access.WRITE]
    writers = writers or [v for v in seen.phases.values() if v.phase.access.writes]
    if seen.state in _NOTHING_TO_COME or all(v.state is PhaseState.COMPLETED for v in writers):
        return lineage.head(seen.record, {v.phase.name: v for v in writers})
    return None


def mark_stacked(board: Board, ended: SprintDir, state: SprintState) -> None:
    """Says in the journals of the sprints that are stacked on one that has ended badly."""
    if state not in (SprintState.FAILED, SprintState.REJECTED, SprintState.BLOCKED):
        return
    for known in board.sprints():
        other = board.sprint(known)
        if other.record.stacked_on == ended.id:
            other.journal.append("base.doubted", sprint=ended.id, state=state)
