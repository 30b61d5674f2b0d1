"""What an output has to look like, and what a gate says in it."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.config.gate import shipped
from supervisor.model.contract import Inspector
from supervisor.model.phase import Phase
from supervisor.model.record import Verdict


def inspector(name: str = "review", *, gate: bool = True, **schemas: Any) -> Inspector:
    phase = Phase(name=name, agents=("a",), outputs=(f"{name}.json",), gate=gate)
    found = {f"{key}.json": schema for key, schema in schemas.items()}
    return Inspector(
        Phase(
            name=name, agents=("a",), outputs=phase.outputs, gate=gate,
            schemas={**shipped(phase), **found},
        )
    )  # fmt: skip


@pytest.mark.parametrize("said", ["pass", "fail"])
@pytest.mark.parametrize("name", ["review", "security", "qa", "other"])
def test_verdict_is_read_from_the_first_output(name: str, said: str) -> None:
    looked = inspector(name)

    assert looked.verdict is None
    assert looked.fault("notes.json", {"verdict": "maybe"}) is None
    assert looked.fault(f"{name}.json", {"verdict": said, "findings": [], "more": 1}) is None
    assert looked.verdict is Verdict(said)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "breaks its schema at $: 'verdict' is a required property"),
        ({"verdict": "maybe"}, "$.verdict: 'maybe' is not one of ['pass', 'fail']"),
        ({"verdict": True}, "$.verdict: True is not one of ['pass', 'fail']"),
        ({"verdict": "pass", "findings": "none"}, "$.findings: 'none' is not of type 'array'"),
        ({"verdict": "pass", "findings": [3]}, "$.findings[0]: 3 is not of type"),
        ([], "$: [] is not of type 'object'"),
        (None, "$: None is not of type 'object'"),
    ],
)
def test_what_breaks_the_schema_of_a_gate_is_said_with_its_place(value: Any, said: str) -> None:
    looked = inspector()

    assert said in str(looked.fault("review.json", value))
    assert looked.verdict is None


@pytest.mark.parametrize("value", [{}, {"verdict": "Pass"}, {"verdict": ["pass"]}, "pass", None])
def test_gate_without_a_schema_still_needs_a_verdict(value: Any) -> None:
    fault = inspector("other").fault("other.json", value)

    assert fault == 'has no "verdict" that is "pass" or "fail", and its phase is a gate'


def test_own_schema_replaces_the_shipped_one_and_not_the_verdict() -> None:
    strict = inspector(review={"required": ["score"]})

    assert "'score' is a required property" in str(strict.fault("review.json", {"verdict": "pass"}))
    assert 'no "verdict"' in str(strict.fault("review.json", {"score": 3}))
    assert strict.fault("review.json", {"score": 3, "verdict": "fail", "findings": 3}) is None


def test_phase_that_is_no_gate_gives_no_verdict() -> None:
    looked = inspector("notes", gate=False)

    assert looked.fault("notes.json", {"verdict": "fail"}) is None
    assert looked.verdict is None
