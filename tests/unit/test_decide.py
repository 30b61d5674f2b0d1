"""Decisions, from tables of histories. No clock, no process."""

from __future__ import annotations

import pytest

from supervisor.model.decide import (
    AttemptView,
    Bury,
    Decision,
    PhaseState,
    PhaseView,
    SprintState,
    Start,
    decide,
    sprint_state,
    view,
)
from supervisor.model.graph import Graph, default_phases
from supervisor.model.phase import Access, Phase
from supervisor.model.record import AttemptState, Outcome, Owner

S = AttemptState
GRAPH = Graph(default_phases(["a"], {}))
OWNER = Owner(agent="a", host="h", user="u", claimed_at="")


def attempt(
    n: int,
    state: AttemptState,
    *,
    agent: str = "a",
    dead: bool = False,
    age_s: float = float("inf"),
) -> AttemptView:
    outcome = None if state is S.RUNNING or dead else Outcome(state=state, ended_at="")
    owner = Owner(agent=agent, host="h", user="u", claimed_at="")
    return AttemptView(n, owner, outcome, state, age_s)


def seen(graph: Graph = GRAPH, **histories: list[AttemptState]) -> dict[str, PhaseView]:
    return view(
        graph,
        {
            name: tuple(attempt(n, state) for n, state in enumerate(states, 1))
            for name, states in histories.items()
        },
    )


def started(
    views: dict[str, PhaseView], *, max_lanes: int = 9, turn_taken: bool = False
) -> list[str]:
    decision = decide(views, max_lanes=max_lanes, turn_taken=turn_taken)
    return [action.phase for action in decision.actions if isinstance(action, Start)]


DONE = [S.COMPLETED]


def test_only_the_first_phase_starts_in_a_new_sprint() -> None:
    assert started(seen()) == ["think"]


def test_gates_start_together_once_build_is_done() -> None:
    views = seen(think=DONE, plan=DONE, build=DONE)

    assert started(views) == ["review", "security", "qa"]
    assert started(views, max_lanes=2) == ["review", "security"]


def test_running_lanes_count_against_max_lanes() -> None:
    views = seen(think=DONE, plan=DONE, build=DONE, review=[S.RUNNING])

    assert started(views, max_lanes=2) == ["security"]


def test_writer_waits_while_the_turn_is_taken() -> None:
    assert started(seen(think=DONE, plan=DONE), turn_taken=True) == []


def test_writer_that_waits_for_the_turn_asks_for_it_and_has_its_lane_kept_free() -> None:
    graph = Graph(
        [Phase(name=name, agents=("a",)) for name in ("one", "two", "three")]
        + [Phase(name="build", access=Access.WRITE, agents=("a",))]
    )
    views = seen(graph, one=[S.RUNNING])

    first = decide(views, max_lanes=3, turn_taken=True)
    waiting = decide(views, max_lanes=3, turn_taken=True, asked=True)
    its_turn = decide(views, max_lanes=3, turn_taken=False, asked=True)

    assert not first.asks  # no lane is left, so it could not use the turn
    assert waiting.asks
    assert [a.phase for a in waiting.actions if isinstance(a, Start)] == ["two"]
    assert [a.phase for a in its_turn.actions if isinstance(a, Start)] == ["two", "build"]
    assert not its_turn.asks


def test_exclusive_phase_asks_for_the_turn_only_once_nothing_else_runs() -> None:
    gates = dict.fromkeys(("think", "plan", "build", "review", "security"), DONE)

    still = decide(seen(**gates, qa=[S.RUNNING]), max_lanes=9, turn_taken=True)
    alone = decide(seen(**gates, qa=DONE), max_lanes=9, turn_taken=True)

    assert (still.asks, alone.asks) == (False, True)


def test_exclusive_phase_and_others_do_not_start_beside_what_is_just_starting() -> None:
    gates = dict.fromkeys(("think", "plan", "build", "review", "security", "qa"), DONE)
    views = seen(**gates)
    del views["qa"]

    beside_read = decide(views, max_lanes=9, turn_taken=False, starting=[Access.READ])
    first = seen()
    beside_exclusive = decide(first, max_lanes=9, turn_taken=False, starting=[Access.EXCLUSIVE])
    no_lane = decide(first, max_lanes=1, turn_taken=False, starting=[Access.READ])

    assert beside_read.actions == beside_exclusive.actions == no_lane.actions == ()


def test_of_two_ready_writers_one_starts() -> None:
    graph = Graph(Phase(name=name, access=Access.WRITE, agents=("a",)) for name in ("one", "two"))

    assert started(seen(graph)) == ["one"]
    assert started(seen(graph, one=[S.RUNNING])) == []
    assert started(seen(graph, one=DONE)) == ["two"]


def test_exclusive_waits_for_all_others_and_holds_back_what_comes_after_it() -> None:
    graph = Graph(
        [
            Phase(name="read", agents=("a",)),
            Phase(name="ship", access=Access.EXCLUSIVE, agents=("a",)),
            Phase(name="late", agents=("a",)),
        ]
    )

    assert started(seen(graph)) == ["read"]
    assert started(seen(graph, read=[S.RUNNING])) == []
    assert started(seen(graph, read=DONE)) == ["ship"]
    assert started(seen(graph, read=DONE, ship=[S.RUNNING])) == []
    assert started(seen(graph, read=DONE, ship=DONE)) == ["late"]


def test_failed_attempt_is_followed_by_the_next_number_after_a_backoff() -> None:
    def after_s(age_s: float) -> Decision:
        views = view(GRAPH, {"think": (attempt(1, S.FAILED, age_s=age_s),)})
        return decide(views, max_lanes=1, turn_taken=False)

    early, late = after_s(0.0), after_s(99.0)

    assert early.actions == ()
    assert early.wake_s is not None
    assert 0 < early.wake_s <= 0.5
    assert late.actions == (Start("think", 2, "a"),)


def test_phase_that_is_backing_off_takes_no_lane() -> None:
    done = {name: (attempt(1, S.COMPLETED),) for name in ("think", "plan", "build")}
    views = view(GRAPH, {**done, "review": (attempt(1, S.FAILED, age_s=0.0),)})

    decision = decide(views, max_lanes=2, turn_taken=False)

    assert [a.phase for a in decision.actions if isinstance(a, Start)] == ["security", "qa"]


def test_dead_owner_is_buried_and_counts_as_a_failure() -> None:
    views = view(GRAPH, {"think": (attempt(1, S.LOST, dead=True),)})

    decision = decide(views, max_lanes=1, turn_taken=False)

    assert decision.actions == (Bury("think", 1), Start("think", 2, "a"))


def test_phase_out_of_attempts_fails_and_blocks_what_depends_on_it() -> None:
    views = seen(think=DONE, plan=[S.FAILED, S.TIMED_OUT])

    assert views["plan"].state is PhaseState.FAILED
    assert views["build"].state is PhaseState.BLOCKED
    assert views["build"].why == "plan failed"
    assert started(views) == []
    assert sprint_state(views, driven=True) is SprintState.FAILED


def test_refused_inputs_block_only_the_branch_they_belong_to() -> None:
    done = {name: (attempt(1, S.COMPLETED),) for name in ("think", "plan", "build")}
    views = view(GRAPH, done, refused={"review": "plan.json was changed"})

    assert views["review"].state is PhaseState.BLOCKED
    assert views["review"].why == "plan.json was changed"
    assert started(views) == ["security", "qa"]


@pytest.mark.parametrize(
    ("histories", "driven", "state"),
    [
        ({}, True, SprintState.RUNNING),
        ({}, False, SprintState.STOPPED),
        ({"think": [S.RUNNING]}, False, SprintState.RUNNING),
        ({"think": [S.REVOKED]}, False, SprintState.STOPPED),
        ({"think": [S.FAILED]}, True, SprintState.RUNNING),
        ({"think": [S.FAILED, S.FAILED]}, True, SprintState.FAILED),
        ({p.name: DONE for p in GRAPH.order}, False, SprintState.COMPLETED),
    ],
)
def test_state_of_the_sprint(
    histories: dict[str, list[AttemptState]], driven: bool, state: SprintState
) -> None:
    assert sprint_state(seen(**histories), driven=driven) is state
