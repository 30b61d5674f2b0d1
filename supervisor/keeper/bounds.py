"""What bounds a lane beside its view: the hosts that it may reach, and how much it may use."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

from sandbox.errors import HostError
from sandbox.jail import census, cgroup, limit, namespace
from sandbox.jail.cgroup import Group
from sandbox.jail.limit import Limits, Means, Plan
from sandbox.jail.view import Lane, WayOut
from sandbox.probe import host
from sandbox.tiers.tier import Tier
from sandbox.union.spec import MountSpec
from supervisor.board.attempt import Attempt
from supervisor.board.board import SprintDir
from supervisor.keeper.lane import LaneDir
from supervisor.keeper.log import NAMES, reserved_bytes
from supervisor.model.ending import Cause
from supervisor.model.phase import Agent, Phase

_BLOCK_BYTES = 512  # of st_blocks (stat(2))


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one running lane.

    Attributes:
        group: its control group, if it has one.
        watched: directories on the host's disk that it writes to, and that nobody else counts.
        logs: its logs, of which only what they take behind their ends counts here.
    """

    plan: Plan
    memory_bytes: int | None
    way_out: WayOut | None
    group: Group | None
    watched: tuple[str, ...]
    logs: tuple[str, ...]

    def of_mount(self, spec: MountSpec) -> MountSpec:
        """The lane's file system with what it may take."""
        return replace(spec, limit_bytes=self.plan.disk if spec.upper is not None else None)

    def of_lane(self, lane: Lane) -> Lane:
        """The lane's view with what it may use and reach."""
        return replace(
            lane,
            way_out=self.way_out,
            resources=self.plan.resources,
            groups=self.group.fds if self.group is not None else (),
            # Both count as the lane's memory, which also has to hold its processes.
            memory_bytes=None if self.memory_bytes is None else max(self.memory_bytes // 2, 1),
        )

    @property
    def are_looked_after(self) -> bool:
        """Whether one of them holds only as often as somebody looks."""
        return self.plan.disk is not None

    def looked_after(self, refresh: Callable[[], None]) -> Callable[[], Cause | None]:
        """`refresh`, and a look at whether the lane has more on disk than it may."""

        def look() -> Cause | None:
            refresh()
            allowed = self.plan.disk
            return Cause.DISK if allowed is not None and self._uses_more(allowed) else None

        return look

    def _uses_more(self, allowed: int) -> bool:
        total = sum(map(_reserved, self.logs))
        for top in self.watched:
            for size in _sizes(top):
                total += size
                if total > allowed:
                    return True
        return False


@contextmanager
def bounded(
    phase: Phase,
    agent: Agent,
    lane: LaneDir,
    attempt: Attempt,
    sprint: SprintDir,
    tier: Tier,
    way_out: AbstractContextManager[WayOut | None],
) -> Iterator[Bounds]:
    """The bounds of a lane while it runs. What cannot be had is written into the journal.

    Args:
        way_out: its way out of its network namespace, while it runs.

    Raises:
        HostError: something that is required, or a network namespace, cannot be had here.
    """
    limits = phase.limits.over(agent.limits)
    hierarchy = cgroup.find() if tier.namespaced else None
    planned = _planned(limits, tier, hierarchy, f"phase {phase.name!r}")
    if lacking := {**planned.weak, **planned.missing}:
        fields = {"phase": phase.name, "attempt": attempt.n, "missing": lacking}
        sprint.journal.append("limits.missing", **fields)
    watched = [lane.home, lane.tmp, lane.outputs, lane.git, *lane.scratch_for(phase).values()]
    if tier is not Tier.FUSE and phase.access.writes:
        watched.append(lane.upper if tier.namespaced else lane.tree)
    name = f"{sprint.id}.{phase.name}.{attempt.n}"
    with ExitStack() as stack:
        group = None
        try:
            group = stack.enter_context(cgroup.made(hierarchy, name, planned.group))
        except HostError as error:  # it was promised, and is refused after all
            if limits.required:
                raise
            missing = {controller: error.message for controller, _, _ in planned.group}
            told = {"phase": phase.name, "attempt": attempt.n, "missing": missing}
            sprint.journal.append("limits.missing", **told)
        yield Bounds(
            plan=planned,
            memory_bytes=limits.memory,
            way_out=stack.enter_context(way_out),
            group=group,
            watched=tuple(watched),
            logs=tuple(os.path.join(attempt.path, log) for log in NAMES),
        )


def check_limits(phase: Phase, agents: Mapping[str, Agent], tier: Tier) -> dict[str, str]:
    """What of the limits of a phase is not enforced here in full, and why.

    Raises:
        HostError: something that is required is among it.
    """
    hierarchy = cgroup.find() if tier.namespaced else None
    lacking: dict[str, str] = {}
    for name in phase.agents or ("",):
        agent = agents.get(name)
        limits = phase.limits.over(agent.limits) if agent else phase.limits
        planned = _planned(limits, tier, hierarchy, f"phase {phase.name!r}")
        lacking |= {**planned.weak, **planned.missing}
    return lacking


def _planned(limits: Limits, tier: Tier, hierarchy: cgroup.Hierarchy | None, where: str) -> Plan:
    means = Means(
        version=hierarchy.version if hierarchy else 0,
        controllers=frozenset(hierarchy.places if hierarchy else ()),
        own_processes=tier.namespaced and host.counts_processes_by_namespace(),
        others=None if tier.namespaced else census.count_tasks(namespace.lane_ids()[0]),
        counts_disk=tier is Tier.FUSE,
        ceilings=_ceilings(),
    )
    planned = limit.plan(limits, means)
    for name, why in limit.unmet(limits, planned).items():
        raise HostError(
            f"{where}: limits.{name} is required and cannot be enforced here: {why}",
            hint="systemd-run --user --scope -p Delegate=yes nanosup up   (or run as root)",
        )
    return planned


def _reserved(log: str) -> int:
    try:
        return reserved_bytes(os.lstat(log))
    except OSError:
        return 0


def _ceilings() -> dict[int, int]:
    hard = {kind: resource.getrlimit(kind)[1] for kind in limit.RESOURCES}
    return {kind: most for kind, most in hard.items() if most != resource.RLIM_INFINITY}


def _sizes(top: str) -> Iterator[int]:
    """Bytes on disk of all below `top`, in no order. It is the agent's: links are not followed."""
    pending = [top]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    yield status.st_blocks * _BLOCK_BYTES
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(entry.path)
        except OSError:  # gone, too long, or not to be read by us
            continue
