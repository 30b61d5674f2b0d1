"""Sprints that overlap: one builds while another is reviewed, and two never write at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.fleetbox import Fleet, agent, phase
from tests.gitbox import git

# Each phase takes some time, which is its work; $NANOSUP_GOAL is written down by the builder.
WORK = """
case $NANOSUP_PHASE in build) echo "$NANOSUP_GOAL" >> built ;; esac
sleep SECONDS
case $NANOSUP_PHASE-$NANOSUP_GOAL in
review-bad*) echo '{"verdict": "fail"}' > $NANOSUP_OUTPUTS/review.json ;;
review-*) cat built >&2; echo '{"verdict": "pass"}' > $NANOSUP_OUTPUTS/review.json ;;
esac
"""


def graph(work_s: float) -> str:
    return (
        agent("a", WORK.replace("SECONDS", str(work_s)))
        + phase("plan", agents=["a"])
        + phase("build", agents=["a"], depends_on=["plan"], access="write")
        + phase("review", agents=["a"], depends_on=["build"], outputs=["review.json"], gate=True)
    )


GRAPH = graph(0.3)
Make = Callable[..., Fleet]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Fleet] = []

    def new(toml: str, name: str = "repo") -> Fleet:
        made.append(Fleet(tmp_path / name, toml))
        return made[-1]

    yield new
    for fleet in made:
        fleet.close()


def sprints(fleet: Fleet) -> dict[str, Any]:
    """The sprints by their goals."""
    return {sprint["goal"]: sprint for sprint in fleet.json("status")["sprints"]}


def spans(fleet: Fleet, first: str, last: str) -> list[tuple[str, str]]:
    """(from, to) of each writer's turn, or of each attempt at a phase that writes."""
    found = []
    for sprint in sprints(fleet).values():
        lines = fleet.run("events", "--json", "--sprint", sprint["id"]).stdout.splitlines()
        open_since: dict[tuple[str, int], str] = {}
        for event in map(json.loads, lines):
            key = event.get("phase"), event.get("attempt")
            if event["event"] == first and event.get("access", "write") != "read":
                open_since[key] = event["at"]
            elif event["event"] == last and key in open_since:
                found.append((open_since.pop(key), event["at"]))
        assert not open_since
    return sorted(found)


def assert_one_writer_at_a_time(fleet: Fleet, count: int) -> None:
    for names in (("turn.taken", "turn.released"), ("attempt.claimed", "attempt.ended")):
        found = spans(fleet, *names)
        assert len(found) == count
        assert all(one[1] <= next_[0] for one, next_ in pairwise(found))


def attempts(fleet: Fleet) -> dict[tuple[str, str], tuple[str, str]]:
    """(goal, phase) → when its only attempt began and ended."""
    return {
        (goal, phase["name"]): (attempt["started_at"], attempt["ended_at"])
        for goal, sprint in sprints(fleet).items()
        for phase in sprint["phases"]
        for attempt in phase["attempts"]
    }


# What that saves in time is measured by scripts/bench: a busy machine says nothing about it.
def test_one_sprint_builds_while_another_is_reviewed(make: Make) -> None:
    fleet = make(graph(1))

    done = fleet.run("up", "--goal", "A", "--goal", "B")

    assert done.returncode == 0, done.stderr
    assert_one_writer_at_a_time(fleet, 2)
    took = attempts(fleet)
    first, second = sorted("AB", key=lambda goal: took[goal, "build"])
    reviewed, built = took[first, "review"], took[second, "build"]
    assert max(reviewed[0], built[0]) < min(reviewed[1], built[1])
    for goal, sprint in sprints(fleet).items():
        assert git(fleet.top, "show", f"refs/nanosup/{sprint['id']}/build:built") == goal


def test_an_up_beside_another_runs_its_own_sprint_and_the_turn_goes_in_order(make: Make) -> None:
    # A builds until the host says so: everybody else is there by then, however busy the machine.
    held_up = "[ $NANOSUP_PHASE$NANOSUP_GOAL = buildA ] && [ ! -e go/on ]"
    held = GRAPH.replace("sleep", f"while {held_up}; do sleep 0.02; done; sleep", 1)
    fleet = make('[workspace]\nshare = ["go"]\n' + held)
    (fleet.top / "go").mkdir()
    first = fleet.start("up", "--goal", "A")
    with fleet.events() as wait:
        wait("attempt.running", phase="build")
        second, third = fleet.start("up", "--goal", "B"), fleet.start("up", "--goal", "C")
        same = fleet.run("up", "--goal", "A")
    (fleet.top / "go" / "on").touch()
    codes = [process.wait(60) for process in (first, second, third)]

    assert codes == [0, 0, 0]
    assert same.returncode == 19
    assert "--goal" in same.stderr
    assert_one_writer_at_a_time(fleet, 3)
    for sprint in sprints(fleet).values():
        assert sprint["base"] == sprints(fleet)["A"]["base"]
    queue = fleet.board / "queue/attempts"
    tickets = sorted(path for path in queue.iterdir() if path.name.isdigit())
    ends = [json.loads((path / "outcome.json").read_text()) for path in tickets]
    got = [int(end["reason"].split()[-1]) for end in ends if end["state"] == "completed"]
    assert got == sorted(got)
    assert len(got) == 3


def test_stacked_sprint_starts_from_what_the_one_before_has_sealed(make: Make) -> None:
    fleet = make("[workspace]\nstack = true\n" + GRAPH)

    done = fleet.run("up", "--goal", "bad", "--goal", "B", "--goal", "C")

    assert done.returncode == 1, done.stderr
    below, middle, top = (sprints(fleet)[goal] for goal in ("bad", "B", "C"))
    assert git(fleet.top, "show", f"refs/nanosup/{top['id']}/build:built") == "bad\nB\nC"
    assert below["state"] == "rejected"
    assert below["stacked_on"] is None
    assert middle["stacked_on"] == {"sprint": below["id"], "state": "rejected", "sound": False}
    assert top["stacked_on"] == {"sprint": middle["id"], "state": "completed", "sound": False}
    assert middle["base"]["commit"] == git(
        fleet.top, "rev-parse", f"refs/nanosup/{below['id']}/build"
    )
    events = fleet.run("events", "--json", "--sprint", middle["id"]).stdout
    assert '"base.doubted"' in events
    assert "was rejected, failed or made anew" in fleet.run("status", "--all").stdout


def test_stacked_sprint_of_another_up_waits_for_the_first_to_build(make: Make) -> None:
    fleet = make(GRAPH)
    first = fleet.start("up", "--goal", "A")
    with fleet.events() as wait:
        wait("attempt.running", phase="plan")
        second = fleet.run("up", "--goal", "B", "--stack")

    assert second.returncode == 0, second.stderr
    assert first.wait(60) == 0
    found = sprints(fleet)
    assert found["B"]["stacked_on"] == {
        "sprint": found["A"]["id"], "state": "completed", "sound": True
    }  # fmt: skip
    assert git(fleet.top, "show", f"refs/nanosup/{found['B']['id']}/build:built") == "A\nB"
    alone = fleet.run("up", "--goal", "D")
    assert alone.returncode == 0
    assert sprints(fleet)["D"]["stacked_on"] is None


def test_ctrl_c_drops_the_sprint_that_waits_for_its_base(make: Make) -> None:
    fleet = make(GRAPH)
    up = fleet.start("up", "--goal", "A", "--goal", "B", "--stack")
    with fleet.events() as wait:
        wait("attempt.running", phase="plan")
        assert fleet.run("down").returncode == 0
        said = up.communicate(timeout=60)[1]

    assert up.returncode == 143
    assert "not begun: B" in said
    assert list(sprints(fleet)) == ["A"]


def test_killed_up_that_waits_for_the_turn_holds_nobody_up(make: Make) -> None:
    fleet = make(graph(0.3))
    token = fleet.run("claim", "plan", "--agent", "me", "--goal", "hand").stdout.strip()
    assert fleet.run("complete", "plan", "--token", token).returncode == 0
    token = fleet.run("claim", "build", "--agent", "me").stdout.strip()
    first, second = fleet.start("up", "--goal", "A"), fleet.start("up", "--goal", "B")
    for goal in ("A", "B"):
        await_ticket(fleet, goal)
    first.kill()
    assert fleet.run("complete", "build", "--token", token).returncode == 0

    assert second.wait(60) == 0
    assert {goal: sprint["state"] for goal, sprint in sprints(fleet).items()} == {
        "hand": "stopped", "A": "stopped", "B": "completed"
    }  # fmt: skip
    assert fleet.run("up", "--goal", "A").returncode == 0


def await_ticket(fleet: Fleet, goal: str) -> None:
    """Returns once the sprint of a goal waits for the turn."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        known = {sprint["goal"]: sprint["id"] for sprint in fleet.json("status")["sprints"]}
        asked = [
            json.loads(path.read_text())["agent"]
            for path in fleet.board.glob("queue/attempts/0*/owner.json")
        ]
        if goal in known and f"sprint {known[goal]}" in asked:
            return
    raise AssertionError(f"{goal} does not wait for the turn")
