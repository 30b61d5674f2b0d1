"""Where the layers of a sprint are: sealed ones, and those that failed attempts left behind."""

from __future__ import annotations

import os
from collections.abc import Iterable

from sandbox.tiers import replica
from supervisor.board.board import Board, SprintDir
from supervisor.errors import BoardError
from supervisor.keeper.lane import LaneDir
from supervisor.model import lineage


class Layers:
    """The layers of a sprint on the board."""

    def __init__(self, board: Board, sprint: SprintDir) -> None:
        self._board = board
        self._sprint = sprint

    def path(self, layer: str) -> str:
        """Where a layer is: among the sealed ones, or, of an attempt that failed, in its lane.

        Raises:
            BoardError: in neither.
        """
        published = self._board.layer_path(layer)
        if os.path.isdir(published):
            return published
        lane = self.lane_of(layer)
        if lane.is_confined and os.path.lexists(lane.manifest):
            replica.settle(lane.tree, lane.manifest, lane.upper)
        if not os.path.isdir(lane.upper):
            raise BoardError(
                f"layer {layer} is missing: neither {published} nor {lane.upper} is there",
                hint="put it back, or begin a new sprint",
            )
        return lane.upper

    def there(self, layers: Iterable[str]) -> dict[str, str]:
        """Where those layers of failed attempts are that are there. One whose attempt was killed
        before it had a lane, or that was made by hand, is not: nothing was written in it."""
        found = {}
        for layer in layers:
            try:
                found[layer] = self.path(layer)
            except BoardError:
                continue
        return found

    def lane_of(self, layer: str) -> LaneDir:
        """The lane of this sprint that made a layer."""
        phase, n = lineage.maker_of(layer, self._sprint.id)
        return LaneDir(self._sprint.slot(phase).attempt(int(n)).lane_path)

    @property
    def object_dirs(self) -> tuple[str, ...]:
        """Where git objects are besides the repository's own."""
        path = self._board.objects_path
        return (path,) if os.path.isdir(path) else ()
