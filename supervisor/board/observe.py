"""What the board shows right now, as the values that decisions and views are made from."""

from __future__ import annotations

import os

import msgspec

from supervisor.board.attempt import Attempt
from supervisor.board.board import SprintDir
from supervisor.board.owner import age_s, liveness, stamp
from supervisor.board.pause import paused
from supervisor.board.reset import resets
from supervisor.board.slot import Slot
from supervisor.model.decide import AttemptView, PhaseView, SprintState, sprint_state, view
from supervisor.model.graph import Graph
from supervisor.model.liveness import Liveness
from supervisor.model.record import AttemptState, Sprint, Stamp

ENDED = frozenset({SprintState.COMPLETED, SprintState.FAILED, SprintState.REJECTED})


class SprintView(msgspec.Struct, frozen=True):
    """A sprint as observed.

    Attributes:
        driven: a living `nanosup up` runs it.
    """

    record: Sprint
    graph: Graph
    phases: dict[str, PhaseView]
    driven: bool

    @property
    def state(self) -> SprintState:
        return sprint_state(self.phases, driven=self.driven)


def observe(sprint: SprintDir, *, refused: dict[str, str] | None = None) -> SprintView:
    """Reads everything that decides how a sprint stands.

    Raises:
        BoardError: a document is damaged; it is named.
    """
    record = sprint.record
    graph = Graph(record.phases)
    now = stamp()
    slots = {phase.name: sprint.slot(phase.name) for phase in graph.order}
    phases = view(
        graph,
        {name: tuple(_seen(a, now) for a in slot.attempts()) for name, slot in slots.items()},
        resets={name: resets(slot) for name, slot in slots.items()},
        refused=refused,
        seed=record.id,
    )
    still = paused(sprint)
    phases = {n: msgspec.structs.replace(v, paused=still.covers(n)) for n, v in phases.items()}
    return SprintView(record, graph, phases, holder(driver(sprint)) is not None)


def driver(sprint: SprintDir) -> Slot:
    """The claim that a `nanosup up` makes on the sprint that it runs."""
    return Slot(os.path.join(sprint.path, "driver"), f"the running of sprint {sprint.id}")


def holder(slot: Slot) -> Attempt | None:
    """Who holds `slot` now: its latest attempt, if that has no outcome and is not known dead."""
    latest = slot.latest()
    if latest is None or latest.outcome is not None or liveness(latest) is Liveness.DEAD:
        return None
    return latest


def _seen(attempt: Attempt, now: Stamp) -> AttemptView:
    if attempt.outcome is not None:
        state = attempt.outcome.state
    elif liveness(attempt) is Liveness.DEAD:
        state = AttemptState.LOST
    else:
        state = AttemptState.RUNNING
    ended = attempt.outcome.ended if attempt.outcome is not None else None
    if ended is not None:
        age = age_s(ended, now)
    else:
        # Found dead just now; or its outcome is of somebody who keeps no time.
        age = 0.0 if state is AttemptState.LOST and attempt.outcome is None else float("inf")
    return AttemptView(attempt.n, attempt.owner, attempt.outcome, state, age)
