"""The phase graph's rules and order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import ConfigError
from supervisor.model.graph import Graph, default_phases
from supervisor.model.phase import Access, Phase


def phase(name: str, *depends_on: str, access: Access = Access.READ) -> Phase:
    return Phase(name=name, depends_on=depends_on, access=access, agents=("a",))


def test_default_graph_batches_reads_together_and_writers_alone() -> None:
    batches = Graph(default_phases(["a"], {})).batches()

    assert batches == (
        (Access.READ, ("think",)),
        (Access.READ, ("plan",)),
        (Access.WRITE, ("build",)),
        (Access.READ, ("review", "security", "qa")),
        (Access.EXCLUSIVE, ("ship",)),
    )


def test_order_of_listing_does_not_change_the_batches() -> None:
    phases = list(default_phases(["a"], {}))
    expected = [set(names) for _, names in Graph(phases).batches()]
    random.Random(7).shuffle(phases)

    assert [set(names) for _, names in Graph(phases).batches()] == expected


def test_ancestors_are_transitive_and_in_dependency_order() -> None:
    assert Graph(default_phases(["a"], {})).ancestors("review") == ("think", "plan", "build")


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ([], "no phase"),
        ([phase("a"), phase("a")], "'a' is there twice"),
        ([phase("a", "b")], "'a' depends on 'b', which does not exist"),
        ([phase("a"), phase("b", "a", "a")], "names 'a' twice"),
        ([phase("a", "a")], "a cycle: a → a"),
        ([phase("a", "c"), phase("b", "a"), phase("c", "b")], "a cycle: a → c → b → a"),
        ([phase("..")], "cannot be the name"),
        ([phase("a/b")], "cannot be the name"),
        ([phase("x.lock")], "cannot be the name"),
        ([phase("a\n")], "cannot be the name"),
        ([phase("é")], "cannot be the name"),
        ([phase("a" * 33)], "cannot be the name"),
        ([phase("Review")], "cannot be the name"),
    ],
)
def test_bad_graph_is_refused_with_its_reason(phases: list[Phase], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Graph(phases)

    assert said in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_misspelt_dependency_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        Graph([phase("build"), phase("review", "biuld")])

    assert caught.value.hint == "did you mean 'build'?"


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_order_puts_every_phase_after_its_dependencies(size: int, rng: random.Random) -> None:
    names = [f"p{i}" for i in range(size)]
    phases = [
        phase(name, *rng.sample(names[:i], rng.randint(0, i))) for i, name in enumerate(names)
    ]
    rng.shuffle(phases)

    placed: set[str] = set()
    for item in Graph(phases).order:
        assert set(item.depends_on) <= placed
        placed.add(item.name)
    assert len(placed) == size
