"""What commands show, made from what was observed: documents for machines, lines for people. Pure.

The JSON is stable: keys may be added, and are never renamed or removed (docs/commands/status.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from supervisor.board.journal import Event
from supervisor.board.observe import SprintView
from supervisor.board.readiness import beside
from supervisor.board.tail import sanitize
from supervisor.model.decide import AttemptView, PhaseState, PhaseView
from supervisor.model.history import round_of
from supervisor.model.policy import Try
from supervisor.model.record import Exit

if TYPE_CHECKING:
    from datetime import datetime

    from supervisor.board.footing import Footing


_NO_NAMESPACES = (
    "landlock"  # sandbox.tiers.tier.Tier.LANDLOCK, which costs a command that only shows 10 ms
)


def status_document(
    sprints: list[SprintView],
    pulses: Mapping[tuple[str, str, int], Any],
    footings: Mapping[str, Footing] | None = None,
    disk: Mapping[str, Any] | None = None,
) -> Any:
    """The answer of `status --json`.

    Args:
        pulses: (sprint, phase, attempt) → what its keeper last said of its processes.
        footings: sprint → what it is stacked on.
        disk: `full` and `free_bytes` of the disk that the board is on.
    """
    footings = footings or {}
    document = {"sprints": [_sprint(s, pulses, footings.get(s.record.id)) for s in sprints]}
    return {**document, "disk": dict(disk)} if disk is not None else document


def next_document(
    phases: Iterable[PhaseView], agent: str | None = None, turn: str | None = None
) -> dict[str, Any]:
    """The answer of `next --json`: what may be picked up, best first, and why the rest may not.

    Args:
        agent: prefers phases that name this agent.
        turn: why the writer's turn cannot be had; None: it can.
    """
    phases = list(phases)
    ready: list[PhaseView] = []
    waiting: dict[str, str] = {}
    for one in phases:
        if one.state is PhaseState.BLOCKED:
            waiting[one.phase.name] = one.why
        elif one.state is PhaseState.READY:
            why = "paused" if one.paused else beside(phases, one.phase)
            if why is None and one.phase.access.writes:
                why = turn
            if why is None:
                ready.append(one)
            else:
                waiting[one.phase.name] = why
    if agent is not None:
        ready.sort(key=lambda v: agent not in v.phase.agents)
    return {
        "next": ready[0].phase.name if ready else None,
        "ready": [v.phase.name for v in ready],
        "waiting": waiting,
    }


def event_document(sprint: str, event: Event) -> dict[str, Any]:
    """A line of `events --json`."""
    return {"at": event.at, "sprint": sprint, "event": event.event, **event.fields}


def event_line(event: Event) -> str:
    """An event as a line for people."""
    fields = dict(event.fields)
    phase, attempt = fields.pop("phase", None), fields.pop("attempt", None)
    where = f"{phase}.{attempt}" if attempt is not None else phase or ""
    rest = " ".join(f"{key}={_brief(value)}" for key, value in fields.items() if value is not None)
    # What agents have called their files may be among it.
    line = " ".join(part for part in (event.at[11:19], where, event.event, rest) if part)
    return sanitize(line).replace("\n", " ")


def elapsed_s(attempt: AttemptView, now: datetime) -> float | None:
    """Seconds that an attempt has taken, or took, by the wall clock: only ever shown."""
    from datetime import datetime

    try:
        started = datetime.fromisoformat(attempt.owner.claimed_at)
        ended = datetime.fromisoformat(attempt.outcome.ended_at) if attempt.outcome else now
    except ValueError:
        return None
    return max(0.0, (ended - started).total_seconds())


def duration(seconds: float | None) -> str:
    """Seconds as people read them: 0.4 s, 12 s, 3:05, 1:02:09."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"


def _sprint(
    seen: SprintView, pulses: Mapping[tuple[str, str, int], Any], footing: Footing | None
) -> dict[str, Any]:
    record = seen.record
    return {
        "id": record.id,
        "goal": record.goal,
        "state": seen.state.value,
        "created_at": record.created_at,
        "base": {"commit": record.base.commit, "tree": record.base.tree},
        "stacked_on": _footing(footing) if footing else None,
        "driven": seen.driven,
        "not_enforced": _not_enforced(seen, pulses),
        "round": max((view.round for view in seen.phases.values()), default=1),
        "phases": [_phase(view, seen, pulses) for view in seen.phases.values()],
    }


def _footing(footing: Footing) -> dict[str, Any]:
    state = footing.state.value if footing.state else None
    return {"sprint": footing.sprint, "state": state, "sound": footing.sound}


def _not_enforced(seen: SprintView, pulses: Mapping[tuple[str, str, int], Any]) -> list[str]:
    """What lanes of the sprint are not kept from, for want of namespaces."""
    found = (
        pulses.get((seen.record.id, name, attempt.n), {}).get("tier")
        for name, view in seen.phases.items()
        for attempt in view.attempts
    )
    if all(tier != _NO_NAMESPACES for tier in found):
        return []
    from sandbox.tiers.tier import UNSEEN

    return list(UNSEEN)


def _phase(
    view: PhaseView, seen: SprintView, pulses: Mapping[tuple[str, str, int], Any]
) -> dict[str, Any]:
    return {
        "name": view.phase.name,
        "access": view.phase.access.value,
        "depends_on": list(view.phase.depends_on),
        "agents": list(view.phase.agents),
        "state": view.state.value,
        "paused": view.paused,
        "reason": view.why or None,
        "waits_s": round(view.step.wait_s, 1) if isinstance(view.step, Try) else None,
        "gate": view.phase.gate,
        "verdict": view.verdict.value if view.verdict else None,
        "round": view.round,
        "attempts": [
            _attempt(
                a,
                round_of(a, view.attempts, {name: v.attempts for name, v in seen.phases.items()}),
                pulses.get((seen.record.id, view.phase.name, a.n), {}),
            )
            for a in view.attempts
        ],
    }


def _attempt(view: AttemptView, round_: int, pulse: Mapping[str, Any]) -> dict[str, Any]:
    outcome = view.outcome
    return {
        "n": view.n,
        "agent": view.owner.agent,
        "state": view.state.value,
        "round": round_,
        "verdict": view.verdict.value if view.verdict else None,
        "pid": view.owner.pid,
        "child_pid": pulse.get("child_pid"),
        "server_pid": pulse.get("server_pid"),
        "ready_ms": pulse.get("ready_ms"),
        "mount": pulse.get("mount") or None,
        "tier": pulse.get("tier") or None,
        "started_at": view.owner.claimed_at,
        "ended_at": outcome.ended_at if outcome else None,
        "exit": _exit(outcome.exit) if outcome else None,
        "reason": (outcome.reason or None) if outcome else None,
        "trouble": outcome.trouble.value if outcome and outcome.trouble else None,
        "tree": outcome.sealed.tree if outcome and outcome.sealed else None,
        "commit": outcome.sealed.commit if outcome and outcome.sealed else None,
        "sees": view.owner.snapshot.tree if view.owner.snapshot else None,
    }


def _exit(end: Exit | None) -> dict[str, int] | None:
    if end is None:
        return None
    if end.signal is not None:
        return {"signal": end.signal}
    return {"code": end.code if end.code is not None else 0}


def _brief(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f'"{text}"' if " " in text else text
