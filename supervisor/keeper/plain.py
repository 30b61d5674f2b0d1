"""A lane's view as a plain directory: what `mount.Server` is, for the tier without namespaces."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sandbox.tiers import replica
from sandbox.union.spec import MountSpec
from supervisor.keeper.lane import LaneDir
from supervisor.keeper.unserved import Unserved


class Plain(Unserved):
    """Makes a replica of what `spec` is of in the lane's room.

    Args:
        checkout: gives the checkout of the base tree.
        links: (path in the repository, what a symbolic link there leads to).
        scratch: paths of directories that the lane may write.

    Attributes:
        pid: our own: no other process is needed.
    """

    def __init__(
        self,
        spec: MountSpec,
        lane: LaneDir,
        checkout: Callable[[], str],
        *,
        links: tuple[tuple[str, str], ...],
        scratch: tuple[str, ...],
    ) -> None:
        self._spec = spec
        self._lane = lane
        self._checkout = checkout
        self._links = links
        self._scratch = scratch
        super().__init__()
        self.pid = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def await_ready(self) -> None:
        """Makes the replica. Raises MountError."""
        spec, lane = self._spec, self._lane
        replica.make(
            lane.tree,
            lane.manifest,
            checkout=self._checkout(),
            layers=spec.layers,
            private=spec.upper is not None,
            uid=spec.uid,
            gid=spec.gid,
            extra=(*self._links, *((path, None) for path in self._scratch)),
        )
        with open(os.path.join(lane.tree, ".git"), "w", encoding="utf-8") as file:
            file.write(f"gitdir: {lane.git}\n")
            if os.geteuid() != spec.uid:
                os.fchown(file.fileno(), spec.uid, spec.gid)

    def attend(self, jail: int) -> None:
        """The lane's warden holds its lock until all is over."""

    def stop(self) -> None:
        """Makes a writer's changes its layer; a reader's replica goes. Raises MountError."""
        if self._spec.upper is not None:
            replica.settle(self._lane.tree, self._lane.manifest, self._spec.upper)
        else:
            shutil.rmtree(self._lane.tree, ignore_errors=True)
