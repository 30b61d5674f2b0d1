"""What an edited configuration may change in a sprint that runs."""

from __future__ import annotations

import msgspec
import pytest

from supervisor.errors import ConfigError
from supervisor.model.amend import Amendment, Change, Kind, amend
from supervisor.model.phase import Access, Agent, Phase
from supervisor.model.record import Snapshot, Sprint

PLAN = Phase(name="plan", agents=("a",))
BUILD = Phase(name="build", depends_on=("plan",), access=Access.WRITE, agents=("a",))
REVIEW = Phase(name="review", depends_on=("build",), agents=("a",), gate=True)
AGENTS = {"a": Agent(name="a", command=("true",))}
NOW = Sprint(
    id="s",
    goal="",
    created_at="",
    base=Snapshot(commit="c", tree="t", base_tree="t"),
    phases=(PLAN, BUILD, REVIEW),
    agents=AGENTS,
)


def change(*phases: Phase, begun: tuple[str, ...] = (), **options: object) -> Amendment:
    given = {"agents": AGENTS, "max_lanes": 4, **options}
    return amend(NOW, phases, begun=begun, at="", **given)  # type: ignore[arg-type]


def test_same_file_changes_nothing() -> None:
    assert change(PLAN, BUILD, REVIEW, begun=("plan",)).changes == ()


def test_what_was_not_begun_may_be_changed_added_and_taken_away() -> None:
    other = Phase(name="other", agents=("a",))
    build = msgspec.structs.replace(BUILD, access=Access.READ)

    found = change(PLAN, build, other, begun=("plan",))

    assert set(found.changes) == {
        Change("phase build", Kind.CHANGED, ("access",)),
        Change("phase review", Kind.REMOVED),
        Change("phase other", Kind.ADDED),
    }
    assert found.touched == ("build", "other")
    assert found.revision.phases == (PLAN, build, other)


def test_what_was_begun_may_get_more_time_and_other_agents() -> None:
    plan = msgspec.structs.replace(PLAN, timeout_s=5.0, agents=("b",), prompt="Think again.")
    agents = {**AGENTS, "b": Agent(name="b", command=("true",))}

    found = change(plan, BUILD, REVIEW, begun=("plan",), agents=agents)

    assert found.changes[0] == Change("phase plan", Kind.CHANGED, ("agents", "prompt", "timeout_s"))
    assert found.touched == ("plan",)


@pytest.mark.parametrize(
    "key", [{"access": Access.READ}, {"depends_on": ()}, {"gate": True}], ids=str
)
def test_place_in_the_graph_of_what_was_begun_stays(key: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"'build' has been begun, and its {next(iter(key))}"):
        change(PLAN, msgspec.structs.replace(BUILD, **key), REVIEW, begun=("plan", "build"))


def test_what_was_begun_cannot_be_taken_away() -> None:
    with pytest.raises(ConfigError, match="'plan' has been begun"):
        change(msgspec.structs.replace(BUILD, depends_on=()), begun=("plan",))


def test_agent_that_was_changed_touches_its_phases() -> None:
    agents = {"a": Agent(name="a", command=("false",))}

    found = change(PLAN, BUILD, REVIEW, agents=agents, max_lanes=9)

    assert found.touched == ("plan", "build", "review")
    assert found.changes == (
        Change("agent a", Kind.CHANGED, ("command",)),
        Change("max_lanes", Kind.CHANGED),
    )
