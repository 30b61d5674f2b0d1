"""Who keeps a lane: the process that is the parent of its processes, and hears its signals."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from sandbox.jail import launch
from sandbox.jail.feature import Features
from sandbox.jail.held import Held
from sandbox.jail.launch import Arrangement, Begun
from sandbox.jail.view import WayOut
from supervisor.board.board import SprintDir
from supervisor.board.journal import Journal
from supervisor.keeper import egress
from supervisor.keeper.charge import Charge
from supervisor.keeper.mount import Mount
from supervisor.keeper.session import Finding
from supervisor.keeper.wakeup import Wakeup
from supervisor.keeper.watch import watch
from supervisor.model.phase import Phase


class Post(Protocol):
    """What the preparation of a lane leaves to the process that keeps it: this one (`Here`), or
    one that this one prepares it for (`preparer.There`)."""

    def entered(self) -> None:
        """This process is in the lane's namespaces now."""

    def way_out(
        self, phase: Phase, n: int, record: Journal, ids: tuple[int, int], features: Features
    ) -> AbstractContextManager[WayOut | None]:
        """As `egress.opened`."""

    def listening(self) -> AbstractContextManager[object]:
        """Signals are heard by who keeps it from now on, and end no preparation any more."""

    def begin(self, arranged: Arrangement) -> Begun:
        """As `launch.begin`. What it returns is closed by `close`, unless it ends before."""

    def hold(self, held: Held) -> None:
        """Is given the command of a lane that no jail holds."""

    def close(self) -> None:
        """Ends what has begun, if it still runs, and waits for that."""

    def keep(self, charge: Charge, sprint: SprintDir, mount: Mount) -> Finding:
        """Returns what became of the lane once nothing of it is left; where another process keeps
        it, that returns so, and this one ends."""


class Here:
    """This process keeps it.

    Args:
        wakeup: has the signals already; None: from `listening` on.
    """

    def __init__(self, *, foreground: bool = False, wakeup: Wakeup | None = None) -> None:
        self._wakeup = wakeup or Wakeup(foreground=foreground)
        self._held: Held | None = None
        self._begun: Begun | None = None

    def entered(self) -> None:
        pass

    def way_out(
        self, phase: Phase, n: int, record: Journal, ids: tuple[int, int], features: Features
    ) -> AbstractContextManager[WayOut | None]:
        return egress.opened(phase, n, record, *ids, features)

    def listening(self) -> AbstractContextManager[object]:
        return self._wakeup

    def begin(self, arranged: Arrangement) -> Begun:
        self._held = self._begun = child = launch.begin(arranged)
        return child

    def await_built(self, timeout_s: float) -> None:
        """As `Begun.await_built`, of what has begun."""
        assert self._begun is not None
        self._begun.await_built(timeout_s)

    def hold(self, held: Held) -> None:
        self._held = held

    def close(self) -> None:
        if self._held is not None:
            self._held.close()

    def keep(self, charge: Charge, sprint: SprintDir, mount: Mount) -> Finding:
        assert self._held is not None
        return watch(charge, sprint, self._held, mount, self._wakeup)
