"""Which snapshot an attempt sees, and which inputs it is given. Pure.

The writers of a sprint take turns, and each starts from what the one before has sealed: the sealed
snapshots of a sprint form one line, each one higher than the one before. A reader sees that line
up to the last writer that it depends on, however far the line has grown since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from supervisor.model.decide import AttemptView, PhaseView
from supervisor.model.graph import Graph
from supervisor.model.phase import Carry, Phase
from supervisor.model.record import Input, Snapshot, Sprint


def layer_id(sprint: str, phase: str, n: int) -> str:
    """The name of the layer that attempt `n` of `phase` makes."""
    return f"{sprint}-{phase}-{n:04d}"


def maker_of(layer: str, sprint: str) -> tuple[str, str]:
    """The names of the phase of this sprint that a layer is of, and of its attempt ("0001")."""
    phase, attempt = layer.removeprefix(f"{sprint}-").rsplit("-", 1)
    return phase, attempt


def snapshot_for(
    sprint: Sprint, graph: Graph, phase: Phase, views: Mapping[str, PhaseView]
) -> Snapshot:
    """What a new attempt at `phase` sees."""
    if not phase.access.writes:
        return _furthest(sprint.base, (views[name] for name in graph.ancestors(phase.name)))
    head = _furthest(sprint.base, views.values())
    last = views[phase.name].latest
    if phase.carry is Carry.FRESH or last is None or last.owner.snapshot is None:
        return head
    seen = last.owner.snapshot
    if seen.height != head.height:
        # Somebody else has written since. What the failed attempt copied up is older than that,
        # and would silently undo it.
        return head
    carried = (*seen.carried, layer_id(sprint.id, phase.name, last.n))
    return msgspec.structs.replace(head, carried=carried)


def sealed(seen: Snapshot, layer: str, *, commit: str, tree: str) -> Snapshot:
    """The snapshot that a completed write attempt leaves behind."""
    return msgspec.structs.replace(
        seen,
        commit=commit,
        tree=tree,
        layers=(*seen.layers, *seen.carried, layer),
        carried=(),
        height=seen.height + 1,
    )


def inputs_for(graph: Graph, phase: Phase, views: Mapping[str, PhaseView]) -> tuple[Input, ...]:
    """The outputs of everything upstream of `phase`, direct or not, in dependency order.

    A write phase that was opened again also gets those of the gates that have failed it.
    """
    found: list[Input] = []
    for name in needed_by(graph, phase, views):
        upstream = views[name].completed
        if upstream is None or upstream.outcome is None:
            continue
        found.extend(
            Input(phase=name, attempt=upstream.n, name=out.name, sha256=out.sha256, size=out.size)
            for out in upstream.outcome.outputs
        )
    return tuple(found)


def needed_by(graph: Graph, phase: Phase, views: Mapping[str, PhaseView]) -> tuple[str, ...]:
    """The phases that a new attempt at `phase` is given something of."""
    return (*graph.ancestors(phase.name), *views[phase.name].rework)


def after_for(graph: Graph, phase: Phase, views: Mapping[str, PhaseView]) -> dict[str, int]:
    """The attempt at each phase upstream that a new attempt at `phase` goes on from."""
    return {
        name: done.n
        for name in graph.ancestors(phase.name)
        if (done := views[name].completed) is not None
    }


def judged_in(graph: Graph, phase: Phase, inputs: Iterable[Input]) -> tuple[str, ...]:
    """The gates among an attempt's inputs: they have opened its phase again."""
    upstream = graph.ancestors(phase.name)
    return tuple(dict.fromkeys(one.phase for one in inputs if one.phase not in upstream))


def head(sprint: Sprint, views: Mapping[str, PhaseView]) -> Snapshot:
    """The furthest that the sprint's line of sealed snapshots has come."""
    return _furthest(sprint.base, views.values())


def _furthest(base: Snapshot, phases: Iterable[PhaseView]) -> Snapshot:
    snapshots = [base]
    for phase in phases:
        done: AttemptView | None = phase.completed
        if done and done.outcome and done.outcome.sealed:
            snapshots.append(done.outcome.sealed)
    return max(snapshots, key=lambda snapshot: snapshot.height)
