"""What the gates say of a write phase, and whether it is opened again. Pure.

A gate speaks about the last write phase before it, its *writer*. When one says "fail", the others
are heard first; then the writer is opened again, if every gate that failed it asks for rework and
has rounds left. What was made from the old tree is superseded once there is a new one (`history`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from supervisor.model.graph import Graph
from supervisor.model.history import Attempts, AttemptView
from supervisor.model.phase import OnFail, Phase
from supervisor.model.record import Verdict


class Judgement(msgspec.Struct, frozen=True):
    """What the gates of one writer say of its current attempt.

    Attributes:
        failed: gates that said "fail", in the graph's order.
        reopens: the writer is to make another attempt, with what these gates wrote.
    """

    failed: tuple[str, ...] = ()
    reopens: bool = False


def gates_of(graph: Graph, writer: str) -> tuple[Phase, ...]:
    """The gates that speak about a write phase."""
    return tuple(g for g in graph.order if g.gate and graph.writer_before(g.name) == writer)


def judge(
    graph: Graph, writer: str, found: Mapping[str, AttemptView], tried: Attempts
) -> Judgement:
    """What follows for a write phase from what its gates have said.

    Args:
        found: the completed attempts that count (`history.current`).
        tried: the attempts at the writer.
    """
    if writer not in found or not graph[writer].access.writes:
        return Judgement()
    gates = gates_of(graph, writer)
    failed = [g for g in gates if g.name in found and found[g.name].verdict is Verdict.FAIL]
    if not failed:
        return Judgement()
    names = tuple(gate.name for gate in failed)
    # A gate behind one that failed never starts, and is not waited for.
    pending = [
        gate
        for gate in gates
        if gate.name not in found and not set(graph.ancestors(gate.name)).intersection(names)
    ]
    made = sum(attempt.is_completed for attempt in tried)
    reopens = not pending and all(
        gate.on_fail is OnFail.REWORK and made <= gate.max_rounds for gate in failed
    )
    return Judgement(names, reopens)
