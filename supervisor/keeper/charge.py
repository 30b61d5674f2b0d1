"""What the keeper of a running lane has to know of it, whoever has prepared it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from supervisor.board.attempt import Attempt
from supervisor.board.pulse import Pulse
from supervisor.keeper.bounds import Bounds
from supervisor.keeper.order import Order
from supervisor.keeper.refresh import Refresh
from supervisor.model.phase import Agent, Phase


class Charge(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A lane whose command runs.

    Attributes:
        turn: the writer's turn, which it has; None where it does not write.
        pulse: as it was written.
        logs: descriptors of its logs, in the order of `log.NAMES`; none in the foreground.
        lock: a descriptor that holds the lane's lock.
        vital: descriptors that hold the locks of what was claimed (`vital.held`).
    """

    order: Order
    phase: Phase
    agent: Agent
    attempt: Attempt
    turn: Attempt | None
    bounds: Bounds
    refresh: Refresh
    pulse: Pulse
    logs: tuple[int, ...]
    lock: int
    vital: Mapping[str, int]

    @property
    def fds(self) -> tuple[int, ...]:
        """All its descriptors."""
        group = self.bounds.group
        own = (*group.fds, *group.locks) if group is not None else ()
        return (*self.logs, self.lock, *self.vital.values(), *own)

    def moved(self, place: Mapping[int, int]) -> Charge:
        """The same, with each descriptor at its `place`."""
        group = self.bounds.group
        if group is not None:
            fds = tuple(place[fd] for fd in group.fds)
            locks = tuple(place[fd] for fd in group.locks)
            group = replace(group, fds=fds, locks=locks)
        return msgspec.structs.replace(
            self,
            bounds=replace(self.bounds, group=group),
            logs=tuple(place[fd] for fd in self.logs),
            lock=place[self.lock],
            vital={path: place[fd] for path, fd in self.vital.items()},
        )
