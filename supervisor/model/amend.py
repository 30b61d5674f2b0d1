"""What an edited configuration changes in a sprint that runs. Pure.

What has been attempted stands: of a phase that was begun, its place in the graph (`depends_on`),
its `access` and whether it is a gate are part of what was signed. All else of it holds from its
next attempt on. A phase that was not begun may be changed, added and taken away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from supervisor.errors import ConfigError
from supervisor.model.phase import Agent, Phase
from supervisor.model.record import Revision, Sprint

_FIXED = ("access", "depends_on", "gate")


class Kind(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """What is different about one thing.

    Attributes:
        what: "phase review", "agent claude", "max_lanes".
        keys: which of its keys were changed.
    """

    what: str
    kind: Kind
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Amendment:
    """What the sprint is to be from now on.

    Attributes:
        touched: phases whose next attempt is different, by themselves or by their agents.
    """

    revision: Revision
    changes: tuple[Change, ...]
    touched: tuple[str, ...]


def amend(
    now: Sprint,
    phases: tuple[Phase, ...],
    agents: Mapping[str, Agent],
    max_lanes: int,
    *,
    begun: Collection[str],
    at: str,
) -> Amendment:
    """What follows from a new configuration.

    Args:
        begun: the phases that have an attempt.
        at: the time, to be shown.

    Raises:
        ConfigError: it would change what has been begun; says what.
    """
    before = {phase.name: phase for phase in now.phases}
    after = {phase.name: phase for phase in phases}
    for name in begun:
        _check_begun(name, before[name], after.get(name))
    changes = [*_changes("phase", before, after), *_changes("agent", now.agents, agents)]
    if max_lanes != now.max_lanes:
        changes.append(Change("max_lanes", Kind.CHANGED))
    agents_changed = {name for name in agents if agents[name] != now.agents.get(name)}
    touched = tuple(
        phase.name
        for phase in phases
        if phase != before.get(phase.name) or agents_changed.intersection(phase.agents)
    )
    revision = Revision(at=at, phases=phases, agents=dict(agents), max_lanes=max_lanes)
    return Amendment(revision, tuple(changes), touched)


def _check_begun(name: str, was: Phase, is_now: Phase | None) -> None:
    if is_now is None:
        raise ConfigError(
            f"phase {name!r} has been begun and cannot be taken out of a sprint that runs",
            hint="put it back; to do without it, begin a new sprint",
        )
    fixed = [key for key in _FIXED if getattr(was, key) != getattr(is_now, key)]
    if fixed:
        raise ConfigError(
            f"phase {name!r} has been begun, and its {', '.join(fixed)} cannot be changed any more",
            hint="put it back as it was, or begin a new sprint",
        )


def _changes(
    kind: str, before: Mapping[str, Phase | Agent], after: Mapping[str, Phase | Agent]
) -> list[Change]:
    found = []
    for name in dict.fromkeys((*before, *after)):
        was, is_now = before.get(name), after.get(name)
        if was is None:
            found.append(Change(f"{kind} {name}", Kind.ADDED))
        elif is_now is None:
            found.append(Change(f"{kind} {name}", Kind.REMOVED))
        elif was != is_now:
            fields = was.__struct_fields__
            keys = tuple(key for key in fields if getattr(was, key) != getattr(is_now, key))
            found.append(Change(f"{kind} {name}", Kind.CHANGED, keys))
    return found
