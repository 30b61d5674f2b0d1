"""For who works by hand, and would rather wait than be told that there is nothing to be had yet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

from supervisor.board import turn
from supervisor.board.board import Board, SprintDir
from supervisor.board.line import Place
from supervisor.board.observe import ENDED, SprintView, observe
from supervisor.board.owner import visible_pids
from supervisor.board.readiness import check_ready
from supervisor.board.watch import Watch
from supervisor.errors import BlockedError, HeldError
from supervisor.model.decide import PhaseState, SprintState
from supervisor.model.phase import Phase
from supervisor.model.record import Verdict

# Leases run out without a sign, as processes of other hosts die.
_LOOK_AGAIN_S = 30.0

Claimed = TypeVar("Claimed")


def claim_when_ready(
    board: Board,
    sprint: SprintDir,
    phase: str,
    claim: Callable[[int | None], Claimed],
    *,
    who: str,
) -> Claimed:
    """What `claim` returns: called as soon as the phase is to be had; again if another was quicker.

    Says on stderr what it waits for. For the writer's turn it waits in line with everybody else;
    however it ends, the line is left.

    Args:
        claim: takes the number of its ticket in that line, if it needed one.
        who: for people.

    Raises:
        NotFoundError: there is no such phase.
        BlockedError: what it would wait for has failed.
        SupervisorError: whatever else `claim` raises.
        BoardError: the board cannot be read, or the line not be joined.
    """
    sprint.slot(phase)
    place = Place(board, who)
    told = ""
    try:
        while True:
            with closing(Watch()) as watch:
                while (why := _hindrance(board, sprint, phase, place, watch)) is not None:
                    if why != told:
                        told = why
                        print(f"nanosup: waiting: {why}", file=sys.stderr, flush=True)
                    watch.wait(_LOOK_AGAIN_S)
            try:
                return claim(place.ticket)
            except (HeldError, BlockedError):
                continue  # somebody was quicker, and will be seen to be
    finally:
        place.leave()


def await_change(board: Board, sprint: SprintDir, is_enough: Callable[[SprintView], bool]) -> None:
    """Returns once a sprint is such that `is_enough`, or nothing more is to come in it.

    Raises:
        BoardError: the board cannot be read.
    """
    with closing(Watch()) as watch:
        while True:
            seen = _observe(board, sprint, Place(board, ""), watch)
            if is_enough(seen) or seen.state in ENDED or seen.state is SprintState.BLOCKED:
                return
            watch.wait(_LOOK_AGAIN_S)


def _hindrance(
    board: Board, sprint: SprintDir, name: str, place: Place, watch: Watch
) -> str | None:
    """Why a phase cannot be claimed now; None: it can. Raises BlockedError where it never will."""
    seen = _observe(board, sprint, place, watch)
    phase = seen.graph[name]
    try:
        check_ready(seen, phase, seen.phases[name].next_n)
    except (HeldError, BlockedError) as error:
        if isinstance(error, BlockedError) and _is_in_vain(seen, phase):
            raise
        place.leave()
        return error.message
    why = turn.hindrance(board, place.ticket) if phase.access.writes else None
    if why is None:
        return None
    if place.ticket is None:
        place.join()
        watch.nudge()  # who stands before us is not watched yet
    return f"phase {name!r} {why}"


def _observe(board: Board, sprint: SprintDir, place: Place, watch: Watch) -> SprintView:
    """Looks, with watches set before on all that may change."""
    watch.file(sprint.journal.path)
    in_the_way, _ = place.look(watch)
    seen = observe(sprint)
    running = [v.latest for v in seen.phases.values() if v.state is PhaseState.RUNNING]
    watch.processes(in_the_way | visible_pids(a.owner for a in running if a is not None))
    return seen


def _is_in_vain(seen: SprintView, phase: Phase) -> bool:
    """Whether something that a phase depends on has failed; a rework would have opened it again."""
    before = [seen.phases[name] for name in seen.graph.ancestors(phase.name)]
    return any(v.state is PhaseState.FAILED or v.verdict is Verdict.FAIL for v in before)
