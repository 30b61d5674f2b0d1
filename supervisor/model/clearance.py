"""Whether a sprint's tree may be shipped: what its gates say of exactly that tree. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.model import lineage, rework
from supervisor.model.decide import PhaseState, PhaseView
from supervisor.model.graph import Graph
from supervisor.model.phase import Access, Phase
from supervisor.model.record import Snapshot, Sprint, Verdict


@dataclass(frozen=True, slots=True)
class GateReport:
    """What one gate says.

    Attributes:
        attempt: its last completed attempt; 0 where there is none.
        tree: the tree that attempt saw.
        why: why the gate does not let the tree pass, as a sentence; empty where it does.
    """

    phase: str
    attempt: int
    verdict: Verdict | None
    tree: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Clearance:
    """What the gates say of what a sprint has come to.

    Attributes:
        head: the furthest that the sprint's sealed snapshots have come; None where nothing was
            sealed.
        writer: the phase that sealed it.
        gates: every gate behind a phase that writes, in the graph's order.
    """

    head: Snapshot | None
    writer: str | None
    gates: tuple[GateReport, ...]

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why the tree may not be shipped; empty if it may."""
        if self.head is None:
            return ("no phase has sealed a tree",)
        return tuple(gate.why for gate in self.gates if gate.why)


def clear(
    sprint: Sprint,
    graph: Graph,
    views: Mapping[str, PhaseView],
    *,
    sealed_by: Graph | None = None,
) -> Clearance:
    """What the gates of a sprint say of its head.

    Args:
        sealed_by: the graph by which the head was sealed, where that was another: what was a gate
            then still is one. An attempt is signed with its graph, and a later graph with nothing.

    A gate that a later write phase waits for has judged what that one started from; where that
    one has gates of its own, it is they who judge what came of it.
    """
    head = lineage.head(sprint, views)
    sealed = head if head.height else None
    gates = _gates(graph)
    reports = [
        _report(gate, views[gate.name], None if _is_between(graph, gate) else head.tree)
        for gate in gates
    ]
    for gate in _gates(sealed_by or graph):
        if gate.name not in [known.name for known in gates]:
            why = f"{gate.name} was a gate when the tree was sealed, and has been taken away"
            reports.append(GateReport(gate.name, 0, None, None, why))
    return Clearance(sealed, writer_of(head, views)[0] if sealed else None, tuple(reports))


def writer_of(head: Snapshot, views: Mapping[str, PhaseView]) -> tuple[str | None, int]:
    """The phase that sealed the head of its sprint, and the revision of the graph it went by."""
    for name, view in views.items():
        done = view.completed
        if done and done.outcome and done.outcome.sealed == head:
            return name, done.owner.revision
    return None, 0


def _gates(graph: Graph) -> list[Phase]:
    """Those behind a phase that writes."""
    return [gate for gate in graph.order if gate.gate and graph.writer_before(gate.name)]


def _is_between(graph: Graph, gate: Phase) -> bool:
    return any(
        later.access is Access.WRITE
        and gate.name in graph.ancestors(later.name)
        and rework.gates_of(graph, later.name)
        for later in graph.order
    )


def _report(gate: Phase, view: PhaseView, wanted: str | None) -> GateReport:
    done = view.completed
    if done is None:
        state = f"it is {view.state}" + (f", {view.why}" if view.why else "")
        return GateReport(gate.name, 0, None, None, f"{gate.name} has given no verdict: {state}")
    tree = done.owner.snapshot.tree if done.owner.snapshot else None
    why = ""
    if done.verdict is Verdict.FAIL:
        why = f"the verdict of {gate.name} (attempt {done.n}) is fail"
    elif done.verdict is not Verdict.PASS:
        why = f"{gate.name} (attempt {done.n}) has given no verdict"
    elif wanted is not None and tree != wanted:
        seen = tree[:10] if tree else "none"
        why = f"{gate.name} (attempt {done.n}) has passed tree {seen}, and not {wanted[:10]}"
    elif view.state is not PhaseState.COMPLETED:
        # Somebody has restarted it, or what it depends on.
        state = f"it is {view.state}" + (f", {view.why}" if view.why else "")
        why = f"{gate.name} is to judge again: {state}"
    return GateReport(gate.name, done.n, done.verdict, tree, why)
