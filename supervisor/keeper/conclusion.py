"""What is made of a lane when its command has ended: artifacts, a sealed layer, an outcome."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import msgspec

from sandbox import syscalls
from sandbox.repository import gitdir, repository, seal
from supervisor import clock
from supervisor.artifacts import artifact
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board, SprintDir
from supervisor.board.owner import stamp
from supervisor.errors import ArtifactError
from supervisor.keeper.lane import LaneDir
from supervisor.keeper.layer import Layers
from supervisor.keeper.session import Finding
from supervisor.model import lineage
from supervisor.model.contract import Inspector
from supervisor.model.phase import Phase
from supervisor.model.record import AttemptState, Outcome, Output, Snapshot


class Conclusion:
    """Concludes one attempt of the repository at `top`."""

    def __init__(
        self, board: Board, sprint: SprintDir, phase: Phase, attempt: Attempt, top: str
    ) -> None:
        self._board = board
        self._sprint = sprint
        self._phase = phase
        self._attempt = attempt
        self._top = top
        self._lane = LaneDir(attempt.lane_path)
        self._layers = Layers(board, sprint)
        self._layer = board.layer_path(lineage.layer_id(sprint.id, phase.name, attempt.n))

    def outcome(self, finding: Finding) -> Outcome:
        """What the outcome names exists when this returns.

        Raises:
            SandboxError: what was written cannot be sealed.
            BoardError, OSError: the board cannot be written.
        """
        state, reason = finding.state, finding.reason
        outputs: tuple[Output, ...] = ()
        sealed: Snapshot | None = None
        inspector = Inspector(self._phase)
        if state is AttemptState.COMPLETED:
            try:
                outputs = artifact.collect(
                    self._board.blobs,
                    self._lane.outputs,
                    self._phase.outputs,
                    inspector=inspector,
                )
            except ArtifactError as error:
                finding = finding.failed(f"{reason or 'exit 0'}, but {error.message}")
                state, reason = finding.state, finding.reason
        if state is AttemptState.COMPLETED and self._phase.access.writes:
            sealed, notes = self._seal()
            reason = "; ".join([*filter(None, [reason]), *notes])
        return Outcome(
            state=state,
            ended_at=clock.utc_now(),
            ended=stamp(),
            exit=finding.exit,
            reason=reason,
            trouble=finding.trouble if state is not AttemptState.COMPLETED else None,
            retry_s=finding.retry_s if state is not AttemptState.COMPLETED else None,
            outputs=outputs,
            sealed=sealed,
            verdict=inspector.verdict if state is AttemptState.COMPLETED else None,
        )

    def withdraw(self) -> None:
        """Undoes the sealing of a fenced attempt: its layer is nobody's, and goes back."""
        if os.path.isdir(self._layer):
            os.rename(self._layer, self._lane.upper)

    def _seal(self) -> tuple[Snapshot, tuple[str, ...]]:
        """Makes a commit of what was written, and moves the upper to where layers are."""
        repo = repository.find(Path(self._top))
        goal, owner = self._sprint.record.goal, self._attempt.owner
        assert owner.snapshot is not None
        carried = self._layers.there(owner.snapshot.carried)
        seen = msgspec.structs.replace(owner.snapshot, carried=tuple(carried))
        done = seal.seal(
            repo,
            parent=seen.commit,
            layers=[*map(Path, carried.values()), Path(self._lane.upper)],
            below=[Path(self._layers.path(layer)) for layer in seen.layers],
            lane_git=Path(self._lane.git),
            object_dirs=[Path(path) for path in self._layers.object_dirs],
            message=f"{self._phase.name}: {goal or 'no goal given'}\n\n"
            f"Sprint: {self._sprint.id}\nAgent: {owner.agent}\n",
            author="{} <{}>".format(*gitdir.identity(repo)),
            when_s=int(time.time()),
        )
        upper = os.open(self._lane.upper, os.O_RDONLY | os.O_DIRECTORY)
        try:
            syscalls.syncfs(upper)
        finally:
            os.close(upper)
        os.makedirs(os.path.dirname(self._layer), mode=0o700, exist_ok=True)
        os.rename(self._lane.upper, self._layer)
        if self._lane.is_confined:
            shutil.rmtree(self._lane.tree, ignore_errors=True)  # the layer has what it had
        layer = os.path.basename(self._layer)
        return lineage.sealed(seen, layer, commit=done.commit, tree=done.tree), done.notes
