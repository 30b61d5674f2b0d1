"""Work by hand: claims, tokens and leases from the command line, with no `nanosup up`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleetbox import Fleet, agent, phase
from tests.gitbox import git, git_bytes

GRAPH = (
    agent("a", "true")
    + agent("slow", "echo begun; sleep 100")
    + phase("plan", agents=["a"], outputs=["plan.json"])
    + phase("build", agents=["slow"], depends_on=["plan"], access="write")
    + phase("docs", agents=["a"], access="write")
    + phase("review", agents=["a"], depends_on=["build"], outputs=["review.json"])
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "repo", GRAPH)
    yield made
    made.close()


def claim(fleet: Fleet, name: str, *options: str) -> str:
    done = fleet.run("claim", name, "--agent", "me", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def document(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_two_agents_take_a_sprint_through_by_hand(fleet: Fleet, tmp_path: Path) -> None:
    assert fleet.run("next").stdout == "plan\n"

    plan = claim(fleet, "plan")
    made = fleet.run(
        "complete", "plan", "--token", plan,
        "--artifact", document(tmp_path / "plan.json", {"do": "it"}),
    )  # fmt: skip
    build = claim(fleet, "build")
    (fleet.top / "built.py").write_text("x = 1\n")
    built = fleet.run("complete", "build", "--token", build)
    reviewed = fleet.run(
        "run", "review", "--", "sh", "-c",
        "cat built.py $NANOSUP_INPUTS/plan/plan.json; "
        "echo '{\"verdict\": \"pass\"}' > $NANOSUP_OUTPUTS/review.json",
    )  # fmt: skip

    assert made.returncode == built.returncode == 0
    assert reviewed.stdout == 'x = 1\n{"do": "it"}'
    assert fleet.states("review") == ["completed"]
    ref = f"refs/nanosup/{fleet.sprint()['id']}/build"
    assert git(fleet.top, "show", f"{ref}:built.py") == "x = 1"
    verdict = fleet.json("artifacts", "verify")
    assert (verdict["ok"], verdict["checked"]) == (True, 2)


def test_claim_of_what_is_held_blocked_or_completed_is_refused(fleet: Fleet) -> None:
    docs = claim(fleet, "docs")

    assert fleet.run("claim", "docs", "--agent", "you").returncode == 12
    assert fleet.run("claim", "review", "--agent", "you").returncode == 13
    assert fleet.run("claim", "nope", "--agent", "you").returncode == 11
    assert fleet.run("complete", "docs", "--token", docs).returncode == 0
    assert fleet.run("claim", "docs", "--agent", "you").returncode == 14


def test_writers_turn_is_one_for_claims_by_hand_too(fleet: Fleet, tmp_path: Path) -> None:
    plan = claim(fleet, "plan")
    path = document(tmp_path / "plan.json", {})
    fleet.run("complete", "plan", "--token", plan, "--artifact", path)
    docs = claim(fleet, "docs")

    refused = fleet.run("claim", "build", "--agent", "you")
    fleet.run("abort", "docs", "--token", docs, "--reason", "later")

    assert refused.returncode == 12
    assert "the writer's turn is held by me" in refused.stderr
    assert fleet.states("docs") == ["released"]
    assert claim(fleet, "build")


def test_fenced_holder_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    first = claim(fleet, "plan", "--json")
    token = json.loads(first)["token"]
    assert fleet.run("unstuck", "plan").returncode == 12
    assert fleet.run("unstuck", "plan", "--force").returncode == 0
    second = claim(fleet, "plan")
    path = document(tmp_path / "plan.json", {})

    late = fleet.run("complete", "plan", "--token", token, "--artifact", path)

    assert late.returncode == 15
    assert fleet.run("abort", "plan", "--token", token).returncode == 15
    assert fleet.states("plan") == ["revoked", "running"]
    done = fleet.run("complete", "plan", "--token", second, "--artifact", path)
    assert done.returncode == 0


def test_token_of_another_or_none_at_all_is_refused(fleet: Fleet) -> None:
    token = claim(fleet, "plan")
    forged = token[:-1] + ("0" if token[-1] != "0" else "1")

    for wrong in (forged, "x", token.replace(".plan.", ".docs.")):
        assert fleet.run("complete", "plan", "--token", wrong).returncode == 12
    assert fleet.states("plan") == ["running"]


def test_missing_and_malformed_artifacts_leave_the_claim_as_it_was(
    fleet: Fleet, tmp_path: Path
) -> None:
    token = claim(fleet, "plan")
    (tmp_path / "plan.json").write_text('{"a": 1, "a": 2}')

    nothing = fleet.run("complete", "plan", "--token", token)
    twice = fleet.run(
        "complete", "plan", "--token", token, "--artifact", str(tmp_path / "plan.json")
    )

    assert (nothing.returncode, twice.returncode) == (16, 16)
    assert "'plan.json' is missing" in nothing.stderr
    assert fleet.states("plan") == ["running"]


def test_lease_that_ran_out_can_be_taken_over(fleet: Fleet) -> None:
    token = claim(fleet, "plan", "--lease", "1")
    directory = fleet.lane("plan").parent
    beat = directory / "beat.json"
    assert fleet.run("beat", "--token", token).returncode == 0
    document(beat, {**json.loads(beat.read_text()), "boottime_s": -1e9})

    assert claim(fleet, "plan")
    assert fleet.states("plan") == ["lost", "running"]
    assert fleet.run("complete", "plan", "--token", token).returncode == 15


def test_unstuck_takes_a_lane_from_a_living_keeper_by_force_only(
    fleet: Fleet, tmp_path: Path
) -> None:
    plan = claim(fleet, "plan")
    path = document(tmp_path / "plan.json", {})
    fleet.run("complete", "plan", "--token", plan, "--artifact", path)
    holder = fleet.start("run", "build", "--", "sh", "-c", "echo kept > kept; echo on; sleep 100")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "on\n"
    keeper = fleet.attempts("build")[0]["pid"]

    asked = fleet.run("unstuck", "build")
    forced = fleet.run("unstuck", "build", "--force")

    assert asked.returncode == 12
    assert f"pid {keeper}" in asked.stderr
    assert forced.returncode == 0, forced.stderr
    holder.communicate()
    assert fleet.states("build") == ["revoked"]
    assert (fleet.lane("build") / "upper/kept").read_text() == "kept\n"
    assert claim(fleet, "docs")


def test_unstuck_frees_what_a_dead_keeper_held(fleet: Fleet) -> None:
    holder = fleet.start("run", "docs", "--", "sh", "-c", "echo on; sleep 100")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "on\n"
    os.kill(fleet.attempts("docs")[0]["pid"], signal.SIGKILL)
    holder.communicate()

    assert fleet.run("unstuck", "docs").returncode == 0
    assert fleet.states("docs") == ["lost"]
    assert fleet.run("run", "docs", "--", "true").returncode == 0


def test_batches_come_in_dependency_order(fleet: Fleet) -> None:
    lines = [json.loads(line) for line in fleet.run("batch").stdout.splitlines()]

    assert lines == [
        {"batch": 1, "type": "read", "phases": ["plan"]},
        {"batch": 2, "type": "write", "phases": ["docs"]},
        {"batch": 3, "type": "write", "phases": ["build"]},
        {"batch": 4, "type": "read", "phases": ["review"]},
    ]


def test_linked_worktree_and_subdirectory_share_the_board(fleet: Fleet, tmp_path: Path) -> None:
    token = claim(fleet, "plan")
    git_bytes(fleet.top, "worktree", "add", "-q", str(tmp_path / "linked"))
    (fleet.top / "sub").mkdir()
    (tmp_path / "link").symlink_to(fleet.top / "sub")
    board = fleet.sprint()["id"]

    for place in (tmp_path / "linked", fleet.top / "sub", tmp_path / "link"):
        fleet.top = place
        assert fleet.sprint()["id"] == board
        assert fleet.run("claim", "plan", "--agent", "you").returncode == 12
    assert token
