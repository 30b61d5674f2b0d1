"""Which sprints a `nanosup up` is to run, and when those that are stacked on others begin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from sandbox.repository.repository import Repository
from supervisor.board.board import Board, SprintDir
from supervisor.board.driving import was_abandoned
from supervisor.board.observe import driver, holder, observe
from supervisor.board.owner import this_process
from supervisor.board.watch import Watch
from supervisor.config.config import Config
from supervisor.errors import BusyError
from supervisor.fleet import sprint
from supervisor.fleet.stack import foundation, sealed
from supervisor.model.decide import SprintState
from supervisor.model.liveness import can_see
from supervisor.model.record import Snapshot

_LOOK_AGAIN_S = 30.0


@dataclass(eq=False, slots=True)
class Planned:
    """A sprint to be run.

    Attributes:
        sprint: None until it is begun.
        on: what it is stacked on.
        is_ours: this process runs it, or is to.
        is_new: it was not there before.
        driving: set once this process runs it.
    """

    goal: str
    sprint: SprintDir | None = None
    on: Planned | None = None
    is_ours: bool = True
    is_new: bool = True
    driving: anyio.Event | None = None


def plan(
    board: Board, repo: Repository, wanted: Config, goals: Sequence[str], *, stack: bool
) -> list[Planned]:
    """For each goal the sprint that was interrupted, or a new one; without goals the last that was
    interrupted, whatever its goal. New ones are begun, unless they have to wait for their base.

    Raises:
        BusyError: another `nanosup up` runs one of them.
        BoardError: a sprint is damaged, or a new one cannot be written.
        GitError: the base cannot be recorded.
    """
    is_open = {}
    for known in board.sprints():
        seen = observe(board.sprint(known))
        running = seen.state in (SprintState.RUNNING, SprintState.STOPPED)
        # Its last lanes may have ended while nobody was there: that is still to be told, and a
        # new sprint is not what was asked for.
        if running or was_abandoned(board.sprint(known)):
            is_open[known] = seen
    found: list[Planned] = []
    below = foundation(board, repo) if stack else None
    last = Planned("", below, is_ours=False) if below else None
    for goal in dict.fromkeys(goals) or (None,):
        matching = [
            known
            for known, seen in is_open.items()
            if seen.record.goal == (goal or "") or (goal is None and not seen.driven)
        ]
        for known in matching:
            if is_open[known].driven:
                raise BusyError(
                    f"another `nanosup up` runs sprint {known}",
                    hint="watch it with `nanosup status --watch`, or end it with `nanosup down`; "
                    "another --goal begins a sprint beside it",
                )
        one = Planned(goal or "", on=last)
        if matching:
            print(f"nanosup: going on with sprint {matching[-1]}", file=sys.stderr)
            one.sprint, one.is_new = board.sprint(matching[-1]), False
        found.append(one)
        last = one if stack else None
    for one in found:
        if one.sprint is None and one.on is None:
            one.sprint = sprint.begin(board, repo, wanted, goal=one.goal)
        elif one.sprint is None and one.on is not None and not one.on.is_ours:
            assert one.on.sprint is not None
            if (base := sealed(observe(one.on.sprint))) is not None:
                one.sprint = begin_on(board, repo, wanted, one, base)
    return found


def begin_on(
    board: Board, repo: Repository, wanted: Config, planned: Planned, base: Snapshot
) -> SprintDir:
    """Begins a sprint on what another has sealed. Raises as `sprint.begin`."""
    assert planned.on is not None and planned.on.sprint is not None
    on = (planned.on.sprint.id, base)
    return sprint.begin(board, repo, wanted, goal=planned.goal, on=on)


async def ripened(planned: Planned) -> Snapshot:
    """Waits for what a sprint is stacked on to be sealed, or to come to its end before.

    Raises:
        BoardError: that sprint is damaged.
    """
    assert planned.on is not None
    if planned.on.driving is not None:
        # Until then it looks like one that was stopped, from which nothing is to come.
        await planned.on.driving.wait()
    assert planned.on.sprint is not None
    below = planned.on.sprint
    watch = Watch()
    try:
        while True:
            watch.file(below.journal.path)
            up = holder(driver(below))
            if up is not None and can_see(up.owner, this_process()):
                watch.processes([pid for pid in [up.owner.pid] if pid is not None])
            if (base := sealed(observe(below))) is not None:
                return base
            await watch.changed(_LOOK_AGAIN_S)
    finally:
        watch.close()
