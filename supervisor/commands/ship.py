"""`nanosup ship`: a branch of the user's at what the gates have passed."""

from __future__ import annotations

import json
import sys

from sandbox.repository.repository import Repository
from supervisor.artifacts.provenance import check_phases
from supervisor.board import place
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import SprintView, observe
from supervisor.board.tail import sanitize
from supervisor.errors import BoardError, GateError
from supervisor.model import clearance, lineage
from supervisor.model.clearance import Clearance
from supervisor.model.graph import Graph
from supervisor.model.record import Snapshot
from supervisor.upkeep import ack


def run(*, branch: str | None, sprint_id: str | None, as_json: bool) -> int:
    """Raises GateError unless every gate has passed exactly the tree that would be shipped."""
    from sandbox.repository import repository
    from sandbox.repository.branch import advance
    from sandbox.repository.diff import diff

    here = place.find()
    board = here.board
    chosen = place.choose(board, sprint_id)
    seen = observe(chosen)
    repo = repository.find(here.top)
    _, revision = clearance.writer_of(lineage.head(seen.record, seen.phases), seen.phases)
    then = Graph(chosen.record_at(revision).phases)
    cleared = clearance.clear(seen.record, seen.graph, seen.phases, sealed_by=then)
    head = _check(board, chosen, seen, cleared, repo)
    name = branch or f"nanosup/{seen.record.id}"
    change = diff(repo, seen.record.base.commit, head.commit)
    moved = advance(repo, name, head.commit, message=f"nanosup ship: sprint {seen.record.id}")
    chosen.journal.note("sprint.shipped", branch=name, commit=head.commit)
    try:
        ack.acknowledge(chosen.path, ack.Reason.SHIPPED)
    except BoardError as error:
        # The branch is where it should be; that is what was asked for.
        print(f"nanosup: shipped, but not acknowledged: {error.message}", file=sys.stderr)
    for file in change.flagged:
        print(f"nanosup: {sanitize(file.path)}: {file.flag}", file=sys.stderr)
    if as_json:
        document = {
            "sprint": seen.record.id,
            "branch": name,
            "ref": moved.ref,
            "commit": head.commit,
            "tree": head.tree,
            "old": moved.old,
            "moved": moved.old != moved.new,
            "gates": [
                {"phase": g.phase, "attempt": g.attempt, "verdict": g.verdict, "tree": g.tree}
                for g in cleared.gates
            ],
            "flagged": [{"path": file.path, "reason": file.flag} for file in change.flagged],
        }
        print(json.dumps(document, ensure_ascii=False))
        return 0
    said = ", ".join(gate.phase for gate in cleared.gates)
    print(f"{name} is at {head.commit[:10]}" + (f", passed by {said}" if said else ""))
    return 0


def _check(
    board: Board, sprint: SprintDir, seen: SprintView, cleared: Clearance, repo: Repository
) -> Snapshot:
    """What may be shipped. Raises GateError."""
    where = f"sprint {seen.record.id} cannot be shipped"
    if cleared.head is None or cleared.refusals:
        raise GateError(
            f"{where}: {'; '.join(cleared.refusals)}",
            hint="`nanosup artifacts show PHASE` shows what a gate has found",
        )
    # What counts is not what the board says, but what was signed.
    names = {gate.phase for gate in cleared.gates}
    names |= {cleared.writer} if cleared.writer else set()
    names |= {upstream for name in names for upstream in seen.graph.ancestors(name)}
    if bad := check_phases(board, sprint, tuple(names)):
        raise GateError(
            f"{where}: {'; '.join(row.reason for row in bad)}",
            hint="`nanosup artifacts verify` lists all that is not what it was",
        )
    _check_commit(repo, cleared.head, where)
    return cleared.head


def _check_commit(repo: Repository, head: Snapshot, where: str) -> None:
    import pygit2

    try:
        commit = repo.open()[head.commit].peel(pygit2.Commit)
    except (KeyError, ValueError, pygit2.GitError):
        raise GateError(
            f"{where}: its commit {head.commit} is not in the repository",
            hint="`git fsck` shows what is missing",
        ) from None
    if str(commit.tree_id) != head.tree:
        raise GateError(
            f"{where}: commit {head.commit} has tree {commit.tree_id}, not {head.tree}",
            hint="`nanosup artifacts verify` lists all that is not what it was",
        )
