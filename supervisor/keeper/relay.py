"""Handing over from the last attempt at a phase to a new one, whatever the last one left."""

from __future__ import annotations

from pathlib import Path

from sandbox.errors import MountError
from sandbox.repository.repository import Repository
from supervisor.board.attempt import Attempt
from supervisor.board.board import SprintDir
from supervisor.keeper import handoff
from supervisor.keeper.lane import LaneDir, await_unlocked
from supervisor.keeper.layer import Layers
from supervisor.model import lineage
from supervisor.model.phase import Phase

_PREDECESSOR_S = 10.0


def hand_over(
    repo: Repository, sprint: SprintDir, phase: Phase, attempt: Attempt, layers: Layers
) -> str:
    """Tells a new attempt what there is to tell of the ones before. Returns it in words, too.

    Returns only when nothing writes any more to what the new attempt builds upon: a keeper that was
    killed leaves a server that still writes out what it has.

    Raises:
        MountError: something still writes to it.
        OSError: the lane cannot be written.
    """
    before = [one for one in sprint.slot(phase.name).attempts() if one.n < attempt.n]
    seen = before[-1].owner.snapshot if before else None
    carried = attempt.owner.snapshot.carried if attempt.owner.snapshot is not None else ()
    patch = None
    if phase.access.writes and seen is not None:
        made = (*seen.carried, lineage.layer_id(sprint.id, phase.name, before[-1].n))
        try:
            for layer in made:
                await_unlocked(layers.lane_of(layer), _PREDECESSOR_S)
            there = layers.there(made)
        except MountError:
            if carried:
                raise
            there = {}
        if there:
            patch = handoff.patch_of(
                repo,
                parent=seen.commit,
                layers=[Path(path) for path in there.values()],
                below=[Path(layers.path(layer)) for layer in seen.layers],
                object_dirs=[Path(path) for path in layers.object_dirs],
                scratch=Path(attempt.lane_path) / "patch",
            )
    told = handoff.handoff(phase.name, before, carried=bool(layers.there(carried)), patch=patch)
    if told is None:
        return ""
    handoff.write(told, LaneDir(attempt.lane_path).inputs)
    return handoff.in_words(told)
