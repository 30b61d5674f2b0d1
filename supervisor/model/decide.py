"""From what the board shows to what is to be done next. Pure: no clock, no process, no I/O.

`nanosup up` calls `decide` again after every change (level-triggered), so each decision looks only
at what is, never at what happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from supervisor.model import history, rework
from supervisor.model.graph import Graph
from supervisor.model.history import Attempts
from supervisor.model.history import AttemptView as AttemptView
from supervisor.model.phase import Access, Phase
from supervisor.model.policy import GiveUp, Past, Reset, Try, after
from supervisor.model.record import AttemptState, Trouble, Verdict


class PhaseState(StrEnum):
    BLOCKED = "blocked"
    READY = "ready"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class SprintState(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    BLOCKED = "blocked"
    STOPPED = "stopped"


class PhaseView(msgspec.Struct, frozen=True):
    """A phase as observed, and what follows from it.

    Attributes:
        why: the reason in a few words: for a blocked or failed phase, and for a ready one that
            waits before its next attempt.
        step: what its own history calls for, were nothing else in the way.
        round: 1, and 1 more each time that this or something before it was opened again.
        rework: the gates whose "fail" has opened this write phase again.
        paused: nothing of it is started, and what runs stands still.
    """

    phase: Phase
    attempts: tuple[AttemptView, ...]
    state: PhaseState
    why: str = ""
    step: Try | GiveUp | None = None
    round: int = 1
    rework: tuple[str, ...] = ()
    paused: bool = False

    @property
    def latest(self) -> AttemptView | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def next_n(self) -> int:
        """The number of the attempt that would come next."""
        return self.latest.n + 1 if self.latest else 1

    @property
    def completed(self) -> AttemptView | None:
        """The newest completed attempt: what the phase has handed on so far."""
        return history.last_completed(self.attempts)

    @property
    def verdict(self) -> Verdict | None:
        """What a gate says now; None where it has not spoken about what is there now."""
        done = self.completed
        return done.verdict if done and self.state is PhaseState.COMPLETED else None


class Start(msgspec.Struct, frozen=True):
    """Claim attempt `n` of `phase` for `agent`, and run it."""

    phase: str
    n: int
    agent: str


class Bury(msgspec.Struct, frozen=True):
    """Write down that attempt `n` of `phase` is lost: its owner is dead, and left no outcome."""

    phase: str
    n: int


Action = Start | Bury


class Decision(msgspec.Struct, frozen=True):
    """What is to be done now.

    Attributes:
        wake_s: seconds after which to decide again even if nothing changes; None = no need.
        asks: a phase could start but for the writer's turn: wait for it, in line.
    """

    actions: tuple[Action, ...]
    wake_s: float | None = None
    asks: bool = False


def view(
    graph: Graph,
    attempts: Mapping[str, Attempts],
    *,
    resets: Mapping[str, tuple[Reset, ...]] | None = None,
    refused: Mapping[str, str] | None = None,
    seed: str = "",
) -> dict[str, PhaseView]:
    """The state of every phase, in dependency order.

    Args:
        attempts: of each phase, oldest first.
        resets: of each phase that has any, in the order in which they were asked for.
        refused: phase → reason, where its inputs were found not to be what they should be.
        seed: the sprint's id.
    """
    found = history.current(graph, _that_count(attempts, resets or {}))
    views: dict[str, PhaseView] = {}
    for phase in graph.order:
        tried = attempts.get(phase.name, ())
        latest = tried[-1] if tried else None
        judged = rework.judge(graph, phase.name, found, tried)
        reworked = judged.failed if judged.reopens else ()
        step: Try | GiveUp | None = None
        why = ""
        unmet = [d for d in phase.depends_on if not _is_met(views[d])]
        if latest and latest.state is AttemptState.RUNNING:
            state = PhaseState.RUNNING
        elif phase.name in found and not reworked and _still_counts(found[phase.name], unmet):
            state = PhaseState.COMPLETED
        elif unmet:
            state, why = PhaseState.BLOCKED, _waiting_for(unmet, views)
        elif refused and phase.name in refused:
            state, why = PhaseState.BLOCKED, refused[phase.name]
        else:
            step = after(
                phase,
                _pasts(tried, graph.ancestors(phase.name), found),
                resets=(resets or {}).get(phase.name, ()),
                seed=seed + phase.name,
            )
            state, why = PhaseState.READY, step.why if isinstance(step, Try) else ""
            if isinstance(step, GiveUp):
                state, why = PhaseState.FAILED, _last_words(latest, step)
        made = sum(attempt.is_completed for attempt in tried)
        rounds = [views[d].round for d in phase.depends_on]
        rounds.append(made if state is PhaseState.COMPLETED else made + 1)
        views[phase.name] = PhaseView(phase, tried, state, why, step, max(rounds), reworked)
    return views


def decide(
    views: Mapping[str, PhaseView],
    *,
    max_lanes: int,
    turn_taken: bool,
    asked: bool = False,
    starting: Sequence[Access] = (),
) -> Decision:
    """What is to be done now.

    Reads start in parallel up to `max_lanes`; of the phases that write only one runs, and none
    while the repository's writer's turn cannot be had. One that waits for it has its lane kept
    free: else reads that keep coming could make it miss its turn. An exclusive phase also waits
    until nothing else of its sprint runs, and lets nothing after it start while it waits, for the
    same reason.

    Args:
        turn_taken: the turn is held, or somebody else comes first.
        asked: the sprint waits for the turn already.
        starting: what the phases may do that have been started and have claimed nothing yet. They
            are not among `views`.
    """
    actions: list[Action] = [
        Bury(name, attempt.n)
        for name, phase in views.items()
        for attempt in phase.attempts
        if attempt.state is AttemptState.LOST and attempt.outcome is None
    ]
    running = [v for v in views.values() if v.state is PhaseState.RUNNING]
    going = [*starting, *(v.phase.access for v in running)]
    if Access.EXCLUSIVE in going:
        return Decision(tuple(actions))
    lanes = len(going)
    writing = turn_taken or any(access.writes for access in going)
    waits: list[float] = []
    asks = False
    kept = int(asked)
    for name, ready in views.items():
        if ready.state is not PhaseState.READY or not isinstance(ready.step, Try):
            continue
        if ready.paused:
            continue
        access = ready.phase.access
        if lanes + (0 if access.writes else kept) >= max_lanes:
            continue
        if ready.step.wait_s > 0:
            waits.append(ready.step.wait_s)
            continue
        if access is Access.EXCLUSIVE and lanes:
            break
        if access.writes and writing:
            lanes += not asks  # they run one after the other, so one lane is enough
            asks, kept = True, 0
        else:
            actions.append(Start(name, ready.next_n, ready.step.agent))
            lanes += 1
            if access.writes:
                writing, kept = True, 0
        if access is Access.EXCLUSIVE:
            break
    return Decision(tuple(actions), min(waits, default=None), asks)


def sprint_state(views: Mapping[str, PhaseView], *, driven: bool) -> SprintState:
    """Where the sprint stands.

    Args:
        driven: a living `nanosup up` runs it.
    """
    states = {v.state for v in views.values()}
    if PhaseState.RUNNING in states:
        return SprintState.RUNNING
    if PhaseState.READY in states:
        return SprintState.RUNNING if driven else SprintState.STOPPED
    if PhaseState.FAILED in states:
        return SprintState.FAILED
    if any(v.verdict is Verdict.FAIL for v in views.values()):
        return SprintState.REJECTED
    return SprintState.COMPLETED if states == {PhaseState.COMPLETED} else SprintState.BLOCKED


def _is_met(upstream: PhaseView) -> bool:
    return upstream.state is PhaseState.COMPLETED and upstream.verdict is not Verdict.FAIL


def _that_count(
    attempts: Mapping[str, Attempts], resets: Mapping[str, tuple[Reset, ...]]
) -> dict[str, Attempts]:
    """The attempts that no reset has put aside."""
    after = {
        name: max((reset.after for reset in asked), default=0) for name, asked in resets.items()
    }
    return {
        name: tuple(a for a in tried if a.n > after.get(name, 0))
        for name, tried in attempts.items()
    }


def _still_counts(done: AttemptView, unmet: list[str]) -> bool:
    """What was completed stays so, unless something before it was opened again since."""
    return done.owner.after is None or not unmet


def _pasts(
    tried: Attempts, ancestors: tuple[str, ...], found: Mapping[str, AttemptView]
) -> list[Past]:
    """The attempts at a phase; those of earlier rounds are nobody's failure in this one."""
    done = history.last_completed(tried)
    pasts = []
    for attempt in tried:
        past = _past(attempt)
        if done is not None and attempt.n <= done.n:
            past = msgspec.structs.replace(past, state=AttemptState.COMPLETED)
        elif not history.goes_on_from(attempt, ancestors, found):
            past = msgspec.structs.replace(past, state=AttemptState.RELEASED)
        pasts.append(past)
    return pasts


def _waiting_for(unmet: list[str], views: Mapping[str, PhaseView]) -> str:
    judged = [d for d in unmet if views[d].verdict is Verdict.FAIL]
    stuck = [d for d in unmet if views[d].state in (PhaseState.FAILED, PhaseState.BLOCKED)]
    failed = [d for d in stuck if views[d].state is PhaseState.FAILED]
    if failed:
        return f"{', '.join(failed)} failed"
    if judged:
        return f"the verdict of {', '.join(judged)} is fail"
    return f"waits for {', '.join(unmet)}"


def _past(attempt: AttemptView) -> Past:
    outcome = attempt.outcome
    return Past(
        attempt.owner.agent,
        attempt.state,
        attempt.age_s,
        trouble=outcome.trouble if outcome else None,
        retry_s=outcome.retry_s if outcome else None,
    )


def _last_words(latest: AttemptView | None, step: GiveUp) -> str:
    if latest is None or latest.outcome is None:
        return step.reason
    if latest.outcome.trouble is Trouble.NOT_LOGGED_IN:
        return f"{step.reason} ({latest.outcome.reason})"
    return f"{latest.state}: {latest.outcome.reason}" if latest.outcome.reason else latest.state
