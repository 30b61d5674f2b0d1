"""Which snapshot an attempt sees, from tables of what has been sealed."""

from __future__ import annotations

import msgspec

from supervisor.model.decide import AttemptView, view
from supervisor.model.graph import Graph
from supervisor.model.lineage import inputs_for, layer_id, sealed, snapshot_for
from supervisor.model.phase import Access, Carry, Phase
from supervisor.model.record import AttemptState, Outcome, Output, Owner, Snapshot, Sprint

BASE = Snapshot(commit="c0", tree="t0", base_tree="t0", epoch_ns=1)
GRAPH = Graph(
    [
        Phase(name="plan", agents=("a",)),
        Phase(name="one", depends_on=("plan",), access=Access.WRITE, agents=("a",)),
        Phase(name="two", depends_on=("plan",), access=Access.WRITE, agents=("a",)),
        Phase(name="review", depends_on=("one",), agents=("a",)),
        Phase(name="early", depends_on=("plan",), agents=("a",)),
    ]
)
SPRINT = Sprint(id="s", goal="", created_at="", base=BASE, phases=GRAPH.order, agents={})
ONE = sealed(BASE, layer_id("s", "one", 1), commit="c1", tree="t1")
TWO = sealed(ONE, layer_id("s", "two", 1), commit="c2", tree="t2")


def attempt(
    n: int,
    state: AttemptState,
    *,
    saw: Snapshot = BASE,
    left: Snapshot | None = None,
    outputs: tuple[Output, ...] = (),
) -> AttemptView:
    owner = Owner(agent="a", host="h", user="u", claimed_at="", snapshot=saw)
    outcome = Outcome(state=state, ended_at="", sealed=left, outputs=outputs)
    return AttemptView(n, owner, outcome, state)


def snapshot(name: str, **attempts: tuple[AttemptView, ...]) -> Snapshot:
    return snapshot_for(SPRINT, GRAPH, GRAPH[name], view(GRAPH, attempts))


DONE = AttemptState.COMPLETED
BOTH = {"one": (attempt(1, DONE, left=ONE),), "two": (attempt(1, DONE, saw=ONE, left=TWO),)}


def test_everything_starts_from_the_base() -> None:
    assert snapshot("plan") == BASE
    assert snapshot("one") == BASE


def test_reader_sees_what_its_writer_sealed() -> None:
    assert snapshot("review", one=(attempt(1, DONE, left=ONE),)) == ONE


def test_readers_view_does_not_move_when_somebody_writes_later() -> None:
    assert snapshot("review", **BOTH) == ONE


def test_reader_that_depends_on_no_writer_sees_the_base() -> None:
    assert snapshot("early", **BOTH) == BASE


def test_writer_starts_from_what_the_writer_before_it_sealed() -> None:
    assert snapshot("two", one=(attempt(1, DONE, left=ONE),)) == ONE


def test_new_attempt_carries_on_what_the_failed_one_left() -> None:
    first = snapshot("one", one=(attempt(1, AttemptState.FAILED),))
    second = snapshot(
        "one",
        one=(attempt(1, AttemptState.FAILED), attempt(2, AttemptState.LOST, saw=first)),
    )

    assert first.carried == ("s-one-0001",)
    assert second.carried == ("s-one-0001", "s-one-0002")
    assert second.commit == "c0"


def test_carried_layers_are_sealed_with_the_attempt_that_completes() -> None:
    seen = snapshot("one", one=(attempt(1, AttemptState.FAILED),))

    done = sealed(seen, layer_id("s", "one", 2), commit="c1", tree="t1")

    assert done.layers == ("s-one-0001", "s-one-0002")
    assert done.carried == ()


def test_what_a_failed_attempt_left_is_dropped_once_somebody_else_has_written() -> None:
    seen = snapshot(
        "two",
        one=(attempt(1, DONE, left=ONE),),
        two=(attempt(1, AttemptState.FAILED, saw=BASE),),
    )

    assert seen == ONE


def test_fresh_carries_nothing() -> None:
    fresh = msgspec.structs.replace(GRAPH["one"], carry=Carry.FRESH)
    views = view(GRAPH, {"one": (attempt(1, AttemptState.FAILED),)})

    assert snapshot_for(SPRINT, GRAPH, fresh, views) == BASE


def test_inputs_are_the_outputs_of_everything_upstream() -> None:
    plan = Output(name="plan.json", sha256="ab", size=2)
    views = view(
        GRAPH, {"plan": (attempt(1, DONE, outputs=(plan,)),), "one": (attempt(1, DONE, left=ONE),)}
    )

    given = inputs_for(GRAPH, GRAPH["review"], views)

    assert [(i.phase, i.attempt, i.name, i.sha256) for i in given] == [
        ("plan", 1, "plan.json", "ab")
    ]
