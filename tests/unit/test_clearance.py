"""Which gates have to have passed which tree, from tables of what they have said."""

from __future__ import annotations

import pytest

from supervisor.model.clearance import Clearance, clear
from supervisor.model.decide import AttemptView, view
from supervisor.model.graph import Graph
from supervisor.model.phase import Access, Phase
from supervisor.model.policy import Reset
from supervisor.model.record import AttemptState, Outcome, Owner, Snapshot, Sprint, Verdict

BASE = Snapshot(commit="c0", tree="t0", base_tree="t0")


def writer(name: str, *depends_on: str, access: Access = Access.WRITE) -> Phase:
    return Phase(name=name, depends_on=depends_on, access=access, agents=("a",))


def gate(name: str, *depends_on: str) -> Phase:
    return Phase(
        name=name, depends_on=depends_on, agents=("a",), gate=True, outputs=(f"{name}.json",)
    )


def snapshot(height: int) -> Snapshot:
    return Snapshot(commit=f"c{height}", tree=f"t{height}", base_tree="t0", height=height)


def attempt(
    *, saw: int = 0, sealed: int | None = None, verdict: Verdict | None = None
) -> tuple[AttemptView, ...]:
    owner = Owner(agent="a", host="h", user="u", claimed_at="", snapshot=snapshot(saw))
    outcome = Outcome(
        state=AttemptState.COMPLETED,
        ended_at="",
        sealed=None if sealed is None else snapshot(sealed),
        verdict=verdict,
    )
    return (AttemptView(1, owner, outcome, AttemptState.COMPLETED),)


def cleared(
    phases: list[Phase],
    *,
    then: list[Phase] | None = None,
    resets: dict[str, tuple[Reset, ...]] | None = None,
    **done: object,
) -> Clearance:
    graph = Graph(phases)
    sprint = Sprint(id="s", goal="", created_at="", base=BASE, phases=graph.order, agents={})
    attempts = {name: made for name, made in done.items() if isinstance(made, tuple)}
    views = view(graph, attempts, resets=resets)
    return clear(sprint, graph, views, sealed_by=Graph(then) if then is not None else None)


PASS, FAIL = Verdict.PASS, Verdict.FAIL
BUILT = [writer("build"), gate("review", "build"), gate("qa", "build")]


def test_tree_that_every_gate_has_passed_is_clear() -> None:
    found = cleared(
        BUILT, build=attempt(sealed=1), review=attempt(saw=1, verdict=PASS),
        qa=attempt(saw=1, verdict=PASS),
    )  # fmt: skip

    assert found.refusals == ()
    assert (found.writer, found.head) == ("build", snapshot(1))


@pytest.mark.parametrize(
    ("review", "said"),
    [
        ((), "review has given no verdict: it is ready"),
        (attempt(saw=1, verdict=FAIL), "the verdict of review (attempt 1) is fail"),
        (attempt(saw=1), "review (attempt 1) has given no verdict"),
        (attempt(saw=0, verdict=PASS), "review (attempt 1) has passed tree t0, and not t1"),
    ],
)
def test_one_gate_is_enough_to_refuse(review: tuple[AttemptView, ...], said: str) -> None:
    found = cleared(BUILT, build=attempt(sealed=1), review=review, qa=attempt(saw=1, verdict=PASS))

    assert found.refusals == (said,)


def test_nothing_sealed_is_nothing_to_ship() -> None:
    assert cleared(BUILT).refusals == ("no phase has sealed a tree",)


def test_gate_before_any_writer_is_not_asked() -> None:
    found = cleared([gate("idea"), writer("build", "idea")], build=attempt(sealed=1))

    assert (found.gates, found.refusals) == ((), ())


def test_writer_after_the_gates_makes_a_tree_that_nobody_has_seen() -> None:
    phases = [*BUILT, writer("ship", "review", "qa", access=Access.EXCLUSIVE)]
    done = {
        "build": attempt(sealed=1),
        "review": attempt(saw=1, verdict=PASS),
        "qa": attempt(saw=1, verdict=PASS),
    }

    assert cleared(phases, **done).refusals == ()
    assert len(cleared(phases, ship=attempt(saw=1, sealed=2), **done).refusals) == 2


def test_gate_that_a_later_writer_with_gates_of_its_own_waits_for_judges_what_that_began_from() -> (
    None
):
    phases = [
        writer("build"), gate("review", "build"), writer("polish", "review"), gate("qa", "polish"),
    ]  # fmt: skip
    done = {
        "build": attempt(sealed=1),
        "review": attempt(saw=1, verdict=PASS),
        "polish": attempt(saw=1, sealed=2),
    }

    assert cleared(phases, qa=attempt(saw=2, verdict=PASS), **done).refusals == ()
    assert len(cleared(phases, qa=attempt(saw=1, verdict=PASS), **done).refusals) == 1
    # Without a gate of its own what polish made was seen by nobody.
    assert len(cleared(phases[:3], **done).refusals) == 1


def test_writers_side_by_side_need_every_gate_on_what_came_of_both() -> None:
    phases = [writer("one"), gate("r1", "one"), writer("two"), gate("r2", "two")]
    found = cleared(
        phases, one=attempt(sealed=1), r1=attempt(saw=1, verdict=PASS),
        two=attempt(saw=1, sealed=2), r2=attempt(saw=2, verdict=PASS),
    )  # fmt: skip

    assert found.refusals == ("r1 (attempt 1) has passed tree t1, and not t2",)


def test_gate_that_was_taken_away_since_the_tree_was_sealed_still_counts() -> None:
    done = {"build": attempt(sealed=1), "review": attempt(saw=1, verdict=PASS)}

    assert cleared(BUILT[:2], **done).refusals == ()
    assert cleared(BUILT[:2], then=BUILT, **done).refusals == (
        "qa was a gate when the tree was sealed, and has been taken away",
    )


def test_gate_that_somebody_restarted_has_to_judge_again() -> None:
    done = {"build": attempt(sealed=1), "review": attempt(saw=1, verdict=PASS)}

    assert cleared(BUILT[:2], resets={"review": (Reset(1),)}, **done).refusals == (
        "review is to judge again: it is ready",
    )
