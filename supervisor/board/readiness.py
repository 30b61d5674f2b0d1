"""Whether an attempt may be claimed now, and if not, why not. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from supervisor.board.observe import SprintView
from supervisor.errors import BlockedError, CompletedError, HeldError
from supervisor.model.decide import PhaseState, PhaseView
from supervisor.model.phase import Access, Phase


def check_ready(seen: SprintView, phase: Phase, n: int) -> None:
    """Returns if attempt `n` at `phase` is what may come next.

    Raises:
        CompletedError, HeldError, BlockedError: it is not; says why, and who.
    """
    view = seen.phases[phase.name]
    latest = view.latest
    if view.state is PhaseState.COMPLETED:
        raise CompletedError(
            f"phase {phase.name!r} of sprint {seen.record.id} is completed",
            hint="`nanosup next` says what is left to do",
        )
    if view.state is PhaseState.RUNNING and latest is not None:
        by = latest.owner
        where = f"pid {by.pid} on {by.host}" if by.pid is not None else f"a lease, on {by.host}"
        raise HeldError(
            f"phase {phase.name!r} is held by {by.agent} ({where}, attempt {latest.n}, "
            f"since {by.claimed_at})",
            hint="`--wait` waits for it; `nanosup unstuck` frees it if its holder is dead",
        )
    if view.state is PhaseState.BLOCKED:
        raise BlockedError(
            f"phase {phase.name!r} is blocked: {view.why}",
            hint="`nanosup next` says what can be done now",
        )
    if view.paused:
        raise BlockedError(
            f"phase {phase.name!r} is paused", hint=f"`nanosup resume {phase.name}` lets it go on"
        )
    if n != view.next_n:
        raise HeldError(f"attempt {n} at phase {phase.name!r} is not the next one")
    check_alone(seen, phase)


def check_alone(seen: SprintView, phase: Phase) -> None:
    """Returns if nothing that runs in the sprint keeps `phase` from running beside it.

    Asked before a claim, and again after it: of two who claim at once, at least one then sees the
    other, and gives way.

    Raises:
        HeldError: an exclusive phase runs, or is to run beside others.
    """
    if (why := beside(seen.phases.values(), phase)) is not None:
        raise HeldError(
            f"phase {phase.name!r} {why}", hint="wait for it; `nanosup next` says what can be done"
        )


def beside(phases: Iterable[PhaseView], phase: Phase) -> str | None:
    """What keeps `phase` from running beside those that run, as the end of a sentence."""
    running = [
        v.phase for v in phases if v.state is PhaseState.RUNNING and v.phase.name != phase.name
    ]
    if phase.access is Access.EXCLUSIVE and running:
        return f"is exclusive, and waits until {', '.join(p.name for p in running)} has ended"
    alone = [p.name for p in running if p.access is Access.EXCLUSIVE]
    return f"waits until {alone[0]} has ended, which is exclusive" if alone else None
