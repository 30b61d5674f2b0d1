"""Verdicts that send a change back, from the command line to the refs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fleetbox import Fleet, agent, phase
from tests.gitbox import git

BUILD = """
ls "$NANOSUP_INPUTS" | sort | xargs > "$NANOSUP_OUTPUTS/inputs.txt"
cat "$NANOSUP_PROMPT_FILE" > "$NANOSUP_OUTPUTS/prompt.txt"
echo "round $NANOSUP_ATTEMPT" >> built.txt
"""
# Passes what has two lines.
REVIEW = """
[ "$(wc -l < built.txt)" -ge "$WANTED" ] && said=pass || said=fail
echo "{\\"verdict\\": \\"$said\\", \\"findings\\": [{\\"what\\": \\"too short\\"}]}" \
  > "$NANOSUP_OUTPUTS/review.json"
"""


def toml(*, wanted: int = 2, **keys: Any) -> str:
    return (
        agent("b", BUILD)
        + agent("r", REVIEW)
        + agent("s", "true")
        + phase("build", agents=["b"], access="write", outputs=["inputs.txt"])
        + phase(
            "review",
            agents=["r"],
            depends_on=["build"],
            outputs=["review.json"],
            **keys,
        ).rstrip()
        + f'\nenv = {{ WANTED = "{wanted}" }}\n\n'
        + phase("ship", agents=["s"], depends_on=["review"], access="exclusive")
    )


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    made: list[Fleet] = []

    def fleet(text: str) -> Fleet:
        made.append(Fleet(tmp_path / f"repo{len(made)}", text))
        return made[-1]

    yield fleet
    for one in made:
        one.close()


def test_change_that_fails_review_is_reworked_with_the_verdict_at_hand(make: Any) -> None:
    fleet = make(toml(on_fail="rework"))

    done = fleet.run("up", "--goal", "x")

    assert done.returncode == 0, done.stdout + done.stderr
    sprint = fleet.sprint()
    assert (sprint["state"], sprint["round"]) == ("completed", 2)
    by_name = {one["name"]: one for one in sprint["phases"]}
    rounds = {
        name: [(a["n"], a["round"], a["verdict"]) for a in one["attempts"]]
        for name, one in by_name.items()
    }
    assert rounds == {
        "build": [(1, 1, None), (2, 2, None)],
        "review": [(1, 1, "fail"), (2, 2, "pass")],
        "ship": [(1, 2, None)],
    }
    first, second = by_name["build"]["attempts"]
    assert by_name["review"]["attempts"][0]["sees"] == first["tree"]
    assert by_name["review"]["attempts"][1]["sees"] == second["tree"] != first["tree"]
    assert fleet.run("artifacts", "show", "build", "inputs.txt").stdout == "review\n"
    prompt = fleet.run("artifacts", "show", "build", "prompt.txt").stdout
    assert 'the verdict of review on what came of it is "fail"' in prompt
    assert "$NANOSUP_INPUTS/review/review.json" in prompt
    ref = f"refs/nanosup/{sprint['id']}/build"
    assert git(fleet.top, "show", f"{ref}:built.txt") == "round 1\nround 2"
    assert fleet.json("artifacts", "verify")["ok"]
    first_words = fleet.run("artifacts", "show", "review", "--attempt", "1").stdout
    assert json.loads(first_words)["verdict"] == "fail"
    assert json.loads(fleet.run("artifacts", "show", "review").stdout)["verdict"] == "pass"
    listed = fleet.json("artifacts", "list", "--all")["artifacts"]
    assert [(o["phase"], o["attempt"]) for o in listed if o["name"] == "review.json"] == [
        ("review", 1),
        ("review", 2),
    ]


def test_change_that_never_passes_is_rejected(make: Any) -> None:
    fleet = make(toml(wanted=9, on_fail="rework", max_rounds=1))

    done = fleet.run("up", "--goal", "x")

    assert done.returncode == 1
    assert "rejected" in done.stdout
    assert fleet.sprint()["state"] == "rejected"
    assert fleet.states("build") == ["completed", "completed"]
    ship = fleet.phase("ship")
    assert (ship["state"], ship["reason"]) == ("blocked", "the verdict of review is fail")
    assert fleet.phase("review")["verdict"] == "fail"


def test_without_rework_the_first_fail_rejects(make: Any) -> None:
    fleet = make(toml(wanted=9))

    assert fleet.run("up", "--goal", "x").returncode == 1
    assert fleet.sprint()["state"] == "rejected"
    assert fleet.states("build") == ["completed"]


def test_verdict_that_breaks_its_schema_fails_the_attempt(make: Any) -> None:
    fleet = make(
        agent("r", 'echo \'{"verdict": "maybe"}\' > $NANOSUP_OUTPUTS/review.json')
        + phase("review", agents=["r"], outputs=["review.json"], restarts=0)
    )

    assert fleet.run("up", "--goal", "x").returncode == 1
    (attempt,) = fleet.attempts("review")
    assert attempt["state"] == "failed"
    said = "breaks its schema at $.verdict: 'maybe' is not one of ['pass', 'fail']"
    assert f"the output 'review.json' {said}" in attempt["reason"]


def test_schema_of_the_users_own_is_frozen_with_the_sprint(make: Any) -> None:
    fleet = make(
        agent("a", 'echo \'{"n": "x"}\' > $NANOSUP_OUTPUTS/count.json')
        + phase("count", agents=["a"], outputs=["count.json"], restarts=0).rstrip()
        + '\nschemas = { "count.json" = "count.schema.json" }\n'
    )
    assert fleet.run("up", "--goal", "x").returncode == 10
    schema = fleet.top / "count.schema.json"
    schema.write_text('{"$ref": "https://example.org/x.json"}')
    refused = fleet.run("up", "--goal", "x")
    assert refused.returncode == 10
    assert "only references within it" in refused.stderr
    schema.write_text('{"properties": {"n": {"type": "integer"}}}')

    assert fleet.run("up", "--goal", "x").returncode == 1
    assert "$.n: 'x' is not of type 'integer'" in fleet.attempts("count")[0]["reason"]


def test_rework_by_hand_needs_no_fleet(make: Any, tmp_path: Path) -> None:
    fleet = make(toml(on_fail="rework"))

    def complete(name: str, **files: str) -> None:
        token = fleet.run("claim", name, "--agent", "me").stdout.strip()
        options = []
        for stem, text in files.items():
            path = tmp_path / f"{stem.replace('_', '.')}"
            path.write_text(text)
            options += ["--artifact", str(path)]
        done = fleet.run("complete", name, "--token", token, *options)
        assert done.returncode == 0, done.stderr

    complete("build", inputs_txt="")
    token = fleet.run("claim", "review", "--agent", "me").stdout.strip()
    (tmp_path / "review.json").write_text('{"verdict": "no"}')
    refused = fleet.run(
        "complete", "review", "--token", token, "--artifact", str(tmp_path / "review.json")
    )
    assert refused.returncode == 16
    assert "not one of ['pass', 'fail']" in refused.stderr
    fleet.run("abort", "review", "--token", token)
    complete("review", review_json='{"verdict": "fail"}')
    assert fleet.run("next").stdout == "build\n"
    assert fleet.run("claim", "ship", "--agent", "me").returncode == 13
    complete("build", inputs_txt="")
    complete("review", review_json='{"verdict": "pass"}')
    assert fleet.run("next").stdout == "ship\n"
    assert fleet.states("review") == ["released", "completed", "completed"]
    assert fleet.json("artifacts", "verify")["ok"]
