"""What became of the sprint that another is stacked on.

Should its reviews reject it, what was built on it is not stopped, but marked: it is a person's to
say what it is still worth.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from supervisor.board.board import Board
from supervisor.board.observe import SprintView, observe
from supervisor.errors import NotFoundError
from supervisor.model.decide import SprintState

_UNSOUND = frozenset({SprintState.FAILED, SprintState.REJECTED, SprintState.BLOCKED})


class Footing(msgspec.Struct, frozen=True):
    """What a sprint is based on, as it stands now.

    Attributes:
        sprint: the id of the sprint whose sealed tree it is.
        state: that sprint's state; None where it was removed from the board.
        sound: neither it nor anything that it is based on in its turn has failed or been rejected,
            and what was taken from it is still what it has sealed: rework makes another tree.
    """

    sprint: str
    state: SprintState | None
    sound: bool


def footings(board: Board, sprints: Iterable[SprintView]) -> dict[str, Footing]:
    """The footing of each sprint that has one, by its id.

    Raises:
        BoardError: a sprint that one is based on is damaged.
    """
    known: dict[str, SprintView | None] = {seen.record.id: seen for seen in sprints}
    asked = [seen for seen in known.values() if seen is not None]
    found: dict[str, Footing] = {}

    def look(sprint_id: str) -> SprintView | None:
        if sprint_id not in known:
            try:
                known[sprint_id] = observe(board.sprint(sprint_id))
            except NotFoundError:
                known[sprint_id] = None
        return known[sprint_id]

    for first in asked:
        # Down to what has no footing, or is judged already; then up again.
        chain = [first]
        while (below := chain[-1].record.stacked_on) is not None:
            under = look(below)
            if under is None or chain[-1].record.id in found:
                break
            chain.append(under)
        for seen in reversed(chain):
            below = seen.record.stacked_on
            if below is not None and seen.record.id not in found:
                found[seen.record.id] = _footing(seen, below, look(below), found)
    wanted = {seen.record.id for seen in asked}
    return {sprint_id: footing for sprint_id, footing in found.items() if sprint_id in wanted}


def _footing(
    seen: SprintView, below: str, under: SprintView | None, found: dict[str, Footing]
) -> Footing:
    if under is None:
        return Footing(below, None, sound=True)
    trees = {under.record.base.commit}
    for view in under.phases.values():
        done = view.completed
        if done and done.outcome and done.outcome.sealed:
            trees.add(done.outcome.sealed.commit)
    sound = under.state not in _UNSOUND and seen.record.base.commit in trees
    return Footing(below, under.state, sound and (below not in found or found[below].sound))
