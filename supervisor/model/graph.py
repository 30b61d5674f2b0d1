"""The phase graph: its rules, its order, and the graph one gets without asking. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from supervisor.errors import ConfigError
from supervisor.model.phase import Access, OnFail, Phase

# A name becomes a directory, part of a git ref (git-check-ref-format(1)) and of a token; with a
# sprint's id and a number it makes the name of a layer; overlayfs options have no room to spare.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
_NAME_LIMIT = 32


class Graph:
    """An acyclic graph of phases, validated.

    Args:
        phases: in any order.

    Raises:
        ConfigError: empty, a name twice, a name that cannot be one, a dependency that does not
            exist, a cycle, or rework without a writer. The message names the phases.
    """

    def __init__(self, phases: Iterable[Phase]) -> None:
        listed = tuple(phases)
        if not listed:
            raise ConfigError(
                "the graph has no phase", hint="add a [[phase]], or leave them out altogether"
            )
        self._by_name: dict[str, Phase] = {}
        for phase in listed:
            check_name(phase.name, "phase")
            if phase.name in self._by_name:
                raise ConfigError(
                    f"phase {phase.name!r} is there twice", hint="each phase needs its own name"
                )
            self._by_name[phase.name] = phase
        for phase in listed:
            self._check_dependencies(phase)
        self._order = self._sorted(listed)
        self._ancestors: dict[str, tuple[str, ...]] = {}
        for phase in listed:
            if phase.on_fail is OnFail.REWORK and self.writer_before(phase.name) is None:
                raise ConfigError(
                    f'phase {phase.name!r}: on_fail = "rework", and no phase before it writes',
                    hint='let it depend on a phase with access = "write", or take on_fail away',
                )

    def __getitem__(self, name: str) -> Phase:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @property
    def order(self) -> tuple[Phase, ...]:
        """Every phase after all that it depends on; else in the order of listing."""
        return self._order

    def ancestors(self, name: str) -> tuple[str, ...]:
        """All that `name` depends on, directly or not, in dependency order."""
        if name in self._ancestors:
            return self._ancestors[name]
        found: set[str] = set()
        front = list(self._by_name[name].depends_on)
        while front:
            upstream = front.pop()
            if upstream not in found:
                found.add(upstream)
                front.extend(self._by_name[upstream].depends_on)
        made = tuple(phase.name for phase in self._order if phase.name in found)
        self._ancestors[name] = made
        return made

    def writer_before(self, name: str) -> str | None:
        """The last of the phases that write among those that `name` depends on."""
        writers = [up for up in self.ancestors(name) if self._by_name[up].access.writes]
        return writers[-1] if writers else None

    def batches(self) -> tuple[tuple[Access, tuple[str, ...]], ...]:
        """What may run at once, in order: reads of one depth together, each writer alone."""
        depth: dict[str, int] = {}
        for phase in self._order:
            depth[phase.name] = 1 + max((depth[d] for d in phase.depends_on), default=-1)
        batches: list[tuple[Access, tuple[str, ...]]] = []
        for level in range(max(depth.values()) + 1):
            here = [phase for phase in self._order if depth[phase.name] == level]
            if reads := tuple(p.name for p in here if p.access is Access.READ):
                batches.append((Access.READ, reads))
            batches.extend((p.access, (p.name,)) for p in here if p.access.writes)
        return tuple(batches)

    def _check_dependencies(self, phase: Phase) -> None:
        seen: set[str] = set()
        for name in phase.depends_on:
            if name not in self._by_name:
                raise ConfigError(
                    f"phase {phase.name!r} depends on {name!r}, which does not exist",
                    hint=nearest(name, self._by_name) or f"phases are: {', '.join(self._by_name)}",
                )
            if name in seen:
                raise ConfigError(
                    f"phase {phase.name!r} names {name!r} twice in depends_on",
                    hint="name it once",
                )
            seen.add(name)

    def _sorted(self, listed: Sequence[Phase]) -> tuple[Phase, ...]:
        placed: dict[str, Phase] = {}
        waiting = list(listed)
        while waiting:
            ready = [p for p in waiting if all(d in placed for d in p.depends_on)]
            if not ready:
                raise ConfigError(
                    f"the graph has a cycle: {' → '.join(self._cycle(waiting))}",
                    hint="take one of these depends_on away",
                )
            # One at a time: keeps the order of listing wherever dependencies allow it.
            placed[ready[0].name] = ready[0]
            waiting.remove(ready[0])
        return tuple(placed.values())

    def _cycle(self, waiting: Sequence[Phase]) -> list[str]:
        stuck = {phase.name for phase in waiting}
        trail = [waiting[0].name]
        while True:
            # Every phase that is stuck has a dependency that is stuck, so the walk must return.
            upstream = next(d for d in self._by_name[trail[-1]].depends_on if d in stuck)
            if upstream in trail:
                return [*trail[trail.index(upstream) :], upstream]
            trail.append(upstream)


def check_name(name: str, kind: str) -> None:
    """Raises ConfigError unless `name` can name a directory, a part of a git ref, and a token."""
    if len(name) > _NAME_LIMIT or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a {kind}",
            hint=f"use at most {_NAME_LIMIT} lower-case letters, digits, '-' and '_'",
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names what was probably meant, or an empty string."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def default_phases(agents: Sequence[str], prompts: Mapping[str, str]) -> tuple[Phase, ...]:
    """think → plan → build → {review, security, qa} → ship, every phase for any of `agents`."""
    chosen = tuple(agents)

    def phase(
        name: str,
        *depends_on: str,
        access: Access = Access.READ,
        outputs: tuple[str, ...] = (),
        gate: bool = False,
    ) -> Phase:
        return Phase(
            name=name,
            depends_on=depends_on,
            access=access,
            agents=chosen,
            prompt=prompts.get(name, ""),
            outputs=outputs,
            gate=gate,
        )

    return (
        phase("think"),
        phase("plan", "think", outputs=("plan.json",)),
        phase("build", "plan", access=Access.WRITE),
        phase("review", "build", outputs=("review.json",), gate=True),
        phase("security", "build", outputs=("security.json",), gate=True),
        phase("qa", "build", outputs=("qa.json",), gate=True),
        phase("ship", "review", "security", "qa", access=Access.EXCLUSIVE, outputs=("ship.json",)),
    )
