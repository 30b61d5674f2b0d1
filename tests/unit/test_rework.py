"""Verdicts and rounds, from tables of histories. No clock, no process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import ConfigError
from supervisor.model.decide import (
    AttemptView,
    PhaseState,
    PhaseView,
    SprintState,
    Start,
    decide,
    sprint_state,
    view,
)
from supervisor.model.graph import Graph, default_phases
from supervisor.model.history import current, round_of
from supervisor.model.lineage import after_for, inputs_for, judged_in
from supervisor.model.phase import Access, OnFail, Phase
from supervisor.model.policy import Try
from supervisor.model.record import AttemptState, Outcome, Output, Owner, Verdict

S, V = AttemptState, Verdict
PASS, FAIL = V.PASS, V.FAIL


def graph(on_fail: OnFail = OnFail.REWORK, max_rounds: int = 1) -> Graph:
    """build → review, qa → ship."""
    gate = {"agents": ("a",), "gate": True, "on_fail": on_fail, "max_rounds": max_rounds}
    return Graph(
        [
            Phase(name="plan", agents=("a",)),
            Phase(name="build", depends_on=("plan",), access=Access.WRITE, agents=("a", "b")),
            Phase(name="review", depends_on=("build",), outputs=("review.json",), **gate),
            Phase(name="qa", depends_on=("build",), outputs=("qa.json",), **gate),
            Phase(
                name="ship",
                depends_on=("review", "qa"),
                access=Access.EXCLUSIVE,
                agents=("a",),
            ),
        ]
    )


class Story:
    """What happens in a sprint, one attempt after another, as a fleet would have it."""

    def __init__(self, made: Graph) -> None:
        self.graph = made
        self.attempts: dict[str, tuple[AttemptView, ...]] = {}

    @property
    def views(self) -> dict[str, PhaseView]:
        return view(self.graph, self.attempts)

    def then(self, phase: str, state: AttemptState, verdict: Verdict | None = None) -> Story:
        """Adds an attempt, which must be one that may be claimed."""
        views = self.views
        assert views[phase].state is PhaseState.READY, f"{phase} is {views[phase].state}"
        step = views[phase].step
        assert isinstance(step, Try)
        item = self.graph[phase]
        tried = self.attempts.get(phase, ())
        owner = Owner(
            agent=step.agent,
            host="h",
            user="u",
            claimed_at="",
            inputs=inputs_for(self.graph, item, views),
            after=after_for(self.graph, item, views),
        )
        outputs = tuple(Output(name=name, sha256="0" * 64, size=1) for name in item.outputs)
        outcome = None
        if state is not S.RUNNING:
            outcome = Outcome(state=state, ended_at="", outputs=outputs, verdict=verdict)
        self.attempts[phase] = (*tried, AttemptView(len(tried) + 1, owner, outcome, state))
        return self

    def done(self, *phases: str) -> Story:
        for phase in phases:
            verdict = PASS if self.graph[phase].gate else None
            self.then(phase, S.COMPLETED, verdict)
        return self

    def states(self) -> dict[str, str]:
        return {name: one.state.value for name, one in self.views.items()}

    def started(self) -> list[tuple[str, int]]:
        made = decide(self.views, max_lanes=9, turn_taken=False)
        return [(one.phase, one.n) for one in made.actions if isinstance(one, Start)]

    def sprint(self) -> SprintState:
        return sprint_state(self.views, driven=True)


def built(on_fail: OnFail = OnFail.REWORK, max_rounds: int = 1) -> Story:
    return Story(graph(on_fail, max_rounds)).done("plan", "build")


def test_sprint_whose_gates_pass_completes() -> None:
    story = built().done("review", "qa", "ship")

    assert story.sprint() is SprintState.COMPLETED
    assert {one.round for one in story.views.values()} == {1}


def test_failed_verdict_rejects_the_sprint_and_blocks_what_comes_after_it() -> None:
    story = built(OnFail.REJECT).done("qa").then("review", S.COMPLETED, FAIL)

    assert story.states()["review"] == "completed"
    assert story.views["review"].verdict is FAIL
    assert story.states()["ship"] == "blocked"
    assert story.views["ship"].why == "the verdict of review is fail"
    assert story.started() == []
    assert story.sprint() is SprintState.REJECTED


def test_failed_verdict_of_the_last_phase_rejects_too() -> None:
    gate = Phase(name="review", agents=("a",), outputs=("r.json",), gate=True)
    story = Story(Graph([gate])).then("review", S.COMPLETED, FAIL)

    assert story.sprint() is SprintState.REJECTED


def test_other_gates_are_heard_before_the_writer_is_opened_again() -> None:
    story = built().then("review", S.COMPLETED, FAIL)

    assert story.started() == [("qa", 1)]
    story.done("qa")
    assert story.started() == [("build", 2)]
    assert story.views["build"].rework == ("review",)
    assert story.views["build"].round == 2


def test_new_attempt_gets_the_verdict_and_supersedes_what_saw_the_old_tree() -> None:
    story = built().then("review", S.COMPLETED, FAIL).done("qa")
    assert story.states()["review"] == "blocked"
    assert story.sprint() is SprintState.RUNNING
    story.then("build", S.COMPLETED)
    second = story.attempts["build"][1]

    assert [(one.phase, one.attempt) for one in second.owner.inputs] == [("review", 1)]
    assert judged_in(story.graph, story.graph["build"], second.owner.inputs) == ("review",)
    assert second.owner.after == {"plan": 1}
    assert story.started() == [("review", 2), ("qa", 2)]
    assert story.views["ship"].why == "waits for review, qa"
    story.done("review", "qa", "ship")
    assert story.sprint() is SprintState.COMPLETED
    assert [round_of(a, story.attempts["qa"], story.attempts) for a in story.attempts["qa"]] == [
        1,
        2,
    ]
    assert story.views["plan"].round == 1
    assert story.views["ship"].round == 2


def test_sprint_is_rejected_when_the_rounds_are_used_up() -> None:
    story = built(max_rounds=2)
    for _ in range(2):
        story.done("qa").then("review", S.COMPLETED, FAIL).then("build", S.COMPLETED)
    story.done("qa").then("review", S.COMPLETED, FAIL)

    assert story.started() == []
    assert story.sprint() is SprintState.REJECTED
    assert len(story.attempts["build"]) == 3


def test_no_rounds_mean_no_rework() -> None:
    story = built(max_rounds=0).done("qa").then("review", S.COMPLETED, FAIL)

    assert story.sprint() is SprintState.REJECTED


def test_each_round_has_restarts_of_its_own_and_the_verdict_stays_an_input() -> None:
    story = built().then("review", S.COMPLETED, FAIL).done("qa")
    story.then("build", S.FAILED)

    again = story.attempts["build"][1]
    assert again.owner.agent == "a"
    assert story.views["build"].state is PhaseState.READY
    story.then("build", S.TIMED_OUT).then("build", S.COMPLETED)
    third, fourth = story.attempts["build"][2:]
    assert (third.owner.agent, fourth.owner.agent) == ("a", "b")
    assert fourth.owner.inputs == again.owner.inputs != ()
    assert story.started() == [("review", 2), ("qa", 2)]


def test_writer_that_fails_for_good_in_its_second_round_fails_the_sprint() -> None:
    story = built().then("review", S.COMPLETED, FAIL).done("qa")
    for _ in range(4):
        story.then("build", S.FAILED)

    assert story.sprint() is SprintState.FAILED
    assert story.views["ship"].state is PhaseState.BLOCKED


def test_reader_that_looks_at_the_old_tree_may_finish_and_is_done_again() -> None:
    made = graph()
    docs = Phase(name="docs", depends_on=("build",), agents=("a",))
    story = Story(Graph([*made.order, docs])).done("plan", "build")
    story.then("docs", S.RUNNING).done("qa").then("review", S.COMPLETED, FAIL)

    assert story.started() == [("build", 2)]
    first = story.attempts["docs"][0]
    story.attempts["docs"] = (
        AttemptView(1, first.owner, Outcome(state=S.COMPLETED, ended_at=""), S.COMPLETED),
    )
    story.then("build", S.COMPLETED)
    assert ("docs", 2) in story.started()


def test_gate_behind_one_that_failed_is_not_waited_for() -> None:
    gate = {"agents": ("a",), "gate": True, "on_fail": OnFail.REWORK}
    story = Story(
        Graph(
            [
                Phase(name="build", access=Access.WRITE, agents=("a",)),
                Phase(name="review", depends_on=("build",), outputs=("r.json",), **gate),
                Phase(name="qa", depends_on=("review",), outputs=("q.json",), **gate),
            ]
        )
    )
    story.done("build").then("review", S.COMPLETED, FAIL)

    assert story.started() == [("build", 2)]


def test_gate_that_only_rejects_wins_over_one_that_asks_for_rework() -> None:
    made = graph()
    strict = Phase(
        name="security", depends_on=("build",), agents=("a",), outputs=("s.json",), gate=True
    )
    story = Story(Graph([*made.order, strict])).done("plan", "build", "qa")
    story.then("review", S.COMPLETED, FAIL).then("security", S.COMPLETED, FAIL)

    assert story.started() == []
    assert story.sprint() is SprintState.REJECTED


def test_gate_opens_the_writer_next_to_it_and_not_the_one_before() -> None:
    gate = {"agents": ("a",), "gate": True, "on_fail": OnFail.REWORK}
    story = Story(
        Graph(
            [
                Phase(name="build", access=Access.WRITE, agents=("a",)),
                Phase(name="review", depends_on=("build",), outputs=("r.json",), **gate),
                Phase(name="polish", depends_on=("review",), access=Access.WRITE, agents=("a",)),
                Phase(name="qa", depends_on=("polish",), outputs=("q.json",), **gate),
            ]
        )
    ).done("build", "review", "polish")
    story.then("qa", S.COMPLETED, FAIL)

    assert story.started() == [("polish", 2)]
    assert story.states()["review"] == "completed"


def test_rework_needs_a_writer_to_open_again() -> None:
    with pytest.raises(ConfigError, match="no phase before it writes"):
        Graph([Phase(name="review", agents=("a",), gate=True, on_fail=OnFail.REWORK)])


def test_verdict_of_an_older_board_that_has_none_lets_pass() -> None:
    made = Graph(default_phases(["a"], {}))
    owner = Owner(agent="a", host="h", user="u", claimed_at="")
    done = (AttemptView(1, owner, Outcome(state=S.COMPLETED, ended_at=""), S.COMPLETED),)

    assert sprint_state(view(made, {p.name: done for p in made.order}), driven=False) is (
        SprintState.COMPLETED
    )


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any acyclic graph of a few phases, with gates that reject or ask for rework."""
    phases: list[Phase] = []
    writers: set[str] = set()  # phases with a writer before them, or that write
    for number in range(draw(st.integers(2, 7))):
        name = f"p{number}"
        known = [one.name for one in phases]
        depends_on = tuple(draw(st.lists(st.sampled_from(known), unique=True))) if known else ()
        access = draw(st.sampled_from([Access.READ, Access.READ, Access.WRITE, Access.EXCLUSIVE]))
        behind = bool(writers.intersection(depends_on))
        if access.writes or behind:
            writers.add(name)
        gate = access is Access.READ and draw(st.booleans())
        rework = gate and behind and draw(st.booleans())
        phases.append(
            Phase(
                name=name,
                depends_on=depends_on,
                access=access,
                agents=("a",),
                restarts=1,
                outputs=(f"{name}.json",) if gate else (),
                gate=gate,
                on_fail=OnFail.REWORK if rework else OnFail.REJECT,
                max_rounds=draw(st.integers(0, 2)),
            )
        )
    return Graph(draw(st.permutations(phases)))


@given(graphs(), st.data())
def test_whatever_gates_say_a_sprint_ends_and_nothing_stale_counts(
    made: Graph, data: st.DataObject
) -> None:
    story = Story(made)
    for _ in range(400):
        ready = [name for name, one in story.views.items() if one.state is PhaseState.READY]
        if not ready:
            break
        name = data.draw(st.sampled_from(ready))
        for upstream in made[name].depends_on:
            assert story.views[upstream].verdict is not FAIL
        before = {n: done.n for n, done in current(made, story.attempts).items()}
        state = data.draw(st.sampled_from([S.COMPLETED] * 4 + [S.FAILED, S.REVOKED, S.LOST]))
        gate = made[name].gate and state is S.COMPLETED
        story.then(name, state, data.draw(st.sampled_from(V)) if gate else None)
        owner = story.attempts[name][-1].owner
        assert owner.after == {up: before[up] for up in made.ancestors(name)}
    else:
        raise AssertionError("the sprint does not end")
    views, found = story.views, current(made, story.attempts)
    assert story.sprint() is not SprintState.RUNNING
    for name, one in views.items():
        if one.state is PhaseState.COMPLETED:
            assert found[name].owner.after == {up: found[up].n for up in made.ancestors(name)}
    if story.sprint() is SprintState.COMPLETED:
        assert all(one.verdict is PASS for one in views.values() if one.phase.gate)
    if story.sprint() is SprintState.REJECTED:
        assert any(one.verdict is FAIL for one in views.values())
