"""Phases that may not start, since something that they depend on is not what was signed.

Checking it costs a hash of every artifact, so who only shows how a sprint stands does so where
the journal tells of a refusal. That is only a hint: what it says now is found out anew.
"""

from __future__ import annotations

from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import SprintView, observe
from supervisor.errors import ArtifactError
from supervisor.model import lineage
from supervisor.model.decide import PhaseState
from supervisor.model.phase import Phase

_EVENT = "phase.refused"
_TAIL_BYTES = 1 << 20
_REASON_LIMIT = 8000  # a line of the journal has a limit, and this may name a thousand files


def require(
    board: Board, sprint: SprintDir, seen: SprintView, phase: Phase, *, contents: bool = True
) -> None:
    """Returns if all that an attempt at `phase` would start from is what was signed.

    Args:
        contents: hash the artifacts too, for who does not do so on handing them out.

    Raises:
        ArtifactError: it is not; a sentence for each thing. The journal tells of it.
        BoardError: the board is damaged.
    """
    reason = fault(board, sprint, seen, phase, contents=contents)
    if reason:
        sprint.journal.note(_EVENT, phase=phase.name, reason=reason[:_REASON_LIMIT])
        raise ArtifactError(reason, hint="run the phases again that made it, in a new sprint")


def fault(
    board: Board, sprint: SprintDir, seen: SprintView, phase: Phase, *, contents: bool = True
) -> str:
    """What is wrong with what an attempt at `phase` would start from; empty if nothing is.

    Raises:
        BoardError: the board is damaged.
    """
    from supervisor.artifacts.provenance import check_phases

    needed = lineage.needed_by(seen.graph, phase, seen.phases)
    if not needed and not seen.record.revision:
        return ""
    rows = check_phases(board, sprint, needed, contents=contents)
    return "; ".join(row.reason for row in rows)


def observe_checked(board: Board, sprint: SprintDir) -> SprintView:
    """As `observe`, with the phases blocked that were refused and still would be.

    Raises:
        BoardError: a document is damaged; it is named.
    """
    seen = observe(sprint)
    ready = [v.phase for v in seen.phases.values() if v.state is PhaseState.READY]
    if not ready or not _tells_of_one(sprint):
        return seen
    faults = {phase.name: fault(board, sprint, seen, phase) for phase in ready}
    refused = {name: reason for name, reason in faults.items() if reason}
    return observe(sprint, refused=refused) if refused else seen


def _tells_of_one(sprint: SprintDir) -> bool:
    try:
        with open(sprint.journal.path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            return f'"{_EVENT}"'.encode() in file.read()
    except OSError:
        return False
