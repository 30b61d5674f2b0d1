"""Work by hand: claims, tokens and leases from the command line, with no `nanosup up`."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleetbox import NANOSUP, Fleet, agent, phase
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


def test_exclusive_phase_and_others_of_its_sprint_keep_each_other_out(tmp_path: Path) -> None:
    fleet = Fleet(
        tmp_path / "alone",
        agent("a", "true")
        + phase("look", agents=["a"])
        + phase("ship", agents=["a"], access="exclusive"),
    )
    look = claim(fleet, "look")
    refused = fleet.run("claim", "ship", "--agent", "you")
    waiting = fleet.json("next")
    fleet.run("abort", "look", "--token", look)
    ship = claim(fleet, "ship")
    too_late = fleet.run("run", "look", "--", "true")
    then = fleet.json("next")
    fleet.run("complete", "ship", "--token", ship)

    assert (refused.returncode, too_late.returncode) == (12, 12)
    assert "'ship' is exclusive, and waits until look has ended" in refused.stderr
    assert waiting == {
        "next": None, "ready": [],
        "waiting": {"ship": "is exclusive, and waits until look has ended"},
    }  # fmt: skip
    assert then["waiting"] == {"look": "waits until ship has ended, which is exclusive"}
    assert fleet.run("run", "look", "--", "true").returncode == 0


def test_next_leaves_out_what_waits_for_the_writers_turn(fleet: Fleet) -> None:
    claim(fleet, "docs", "--goal", "one")
    fleet.run("claim", "plan", "--agent", "me", "--goal", "two")

    found = fleet.json("next")

    assert (found["next"], found["ready"]) == (None, [])
    assert "waits for the writer's turn, held by me" in found["waiting"]["docs"]


def test_every_error_with_json_is_an_object_and_every_other_a_line(fleet: Fleet) -> None:
    for arguments, code, kind in [
        (["claim"], 2, "Usage"),
        (["nosuch"], 2, "Usage"),
        (["status", "--wach"], 2, "Usage"),
        (["claim", "plan", "--agent", "a", "--lease", "nan"], 2, "Usage"),
        (["claim", "plan", "--agent", ""], 2, "Usage"),
        (["logs", "plan", "--sprint", "none"], 11, "NotFound"),
        (["complete", "plan", "--token", "x"], 12, "Token"),
        (["batch", "--graph", "{"], 10, "Config"),
    ]:
        plain, machine = fleet.run(*arguments), fleet.run(*arguments, "--json")
        assert (plain.returncode, machine.returncode) == (code, code), arguments
        assert plain.stderr.startswith("nanosup: ")
        assert plain.stderr.count("\n") == 1
        document = json.loads(machine.stderr)
        assert (document["error"], document["exit"]) == (kind, code)
        assert set(document) == {"error", "message", "hint", "exit"}
        assert plain.stdout == machine.stdout == ""


def test_claim_whose_token_cannot_be_printed_is_handed_back(fleet: Fleet) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [NANOSUP, "claim", "plan", "--agent", "a"],
            cwd=fleet.top, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    assert done.returncode != 0
    assert fleet.states("plan") == ["released"]


def test_claims_by_hand_and_an_up_take_one_sprint_through_together(fleet: Fleet) -> None:
    fleet.configure(
        agent("a", "true")
        + phase("plan", agents=["a"])
        + phase("docs", agents=["a"], access="write")
        + phase("build", agents=["a"], access="write", depends_on=["plan"])
    )
    docs = claim(fleet, "docs", "--goal", "both")
    up = fleet.start("up", "--goal", "both")
    with fleet.events() as wait:
        wait("attempt.ended", phase="plan")
        # `build` waits in line for the turn, and so comes before any other claim by hand.
        refused = fleet.run("claim", "build", "--agent", "you")
        assert fleet.run("complete", "docs", "--token", docs).returncode == 0
    assert up.wait(60) == 0

    assert refused.returncode == 12
    assert [fleet.states(name) for name in ("plan", "docs", "build")] == [["completed"]] * 3
    assert fleet.attempts("docs")[0]["agent"] == "me"


def forge_plan(fleet: Fleet) -> None:
    """Another plan in the store, and the outcome re-hashed to match it."""
    text = b'{"do": "evil"}'
    sha256 = hashlib.sha256(text).hexdigest()
    blob = fleet.board / "blobs/sha256" / sha256[:2] / sha256
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(text)
    path = fleet.board / f"sprints/{fleet.sprint()['id']}/phases/plan/attempts/0001/outcome.json"
    outcome = json.loads(path.read_text())
    outcome["outputs"][0] |= {"sha256": sha256, "size": len(text)}
    path.write_text(json.dumps(outcome))


def test_artifact_that_was_edited_and_re_hashed_reaches_no_lane(
    fleet: Fleet, tmp_path: Path
) -> None:
    plan = claim(fleet, "plan")
    path = document(tmp_path / "plan.json", {})
    fleet.run("complete", "plan", "--token", plan, "--artifact", path)
    forge_plan(fleet)

    by_hand = fleet.run("claim", "build", "--agent", "me")
    in_lane = fleet.run("run", "build", "--", "touch", str(tmp_path / "ran"))

    assert by_hand.returncode == in_lane.returncode == 16
    assert "attempt 1 of plan was signed with subject[outputs/plan.json]" in by_hand.stderr
    assert "attempt 1 of plan was signed with" in in_lane.stderr
    assert not (tmp_path / "ran").exists()
    assert fleet.attempts("build") == []
    # What does not depend on it goes on.
    assert claim(fleet, "docs")


def test_agents_that_claim_at_once_on_an_empty_board_begin_one_sprint(fleet: Fleet) -> None:
    crowd = [fleet.start("claim", "plan", "--agent", f"a{n}") for n in range(8)]
    ends = [(one.communicate(timeout=60), one.returncode) for one in crowd]

    assert sorted(code for _, code in ends) == [0] + [12] * 7, ends
    assert len(fleet.json("status")["sprints"]) == 1


def test_agents_of_two_products_in_two_terminals_take_a_sprint_through(tmp_path: Path) -> None:
    fleet = Fleet(
        tmp_path / "repo",
        agent("claude", "true") + agent("codex", "true")
        + phase("plan", agents=["claude"], outputs=["plan.json"])
        + phase("build", agents=["claude"], depends_on=["plan"], access="write")
        + phase("review", agents=["codex"], depends_on=["build"], outputs=["review.json"]),
    )  # fmt: skip
    script = Path(__file__).parents[1] / "agents/by_hand.py"

    def terminal(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(script), NANOSUP, *arguments],
            cwd=fleet.top, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    codex, claude = terminal("codex", "review"), terminal("claude", "plan", "build")
    said = {name: process.communicate(timeout=90)[0] for name, process in
            (("claude", claude), ("codex", codex))}  # fmt: skip

    assert (claude.returncode, codex.returncode) == (0, 0), said
    sprint = fleet.sprint()
    assert sprint["state"] == "completed"
    by = {p["name"]: [a["agent"] for a in p["attempts"]] for p in sprint["phases"]}
    assert by == {"plan": ["claude"], "build": ["claude"], "review": ["codex"]}
    assert 'print("hello")' in said["codex"]
    review = fleet.attempts("review")[0]
    assert review["sees"] == fleet.attempts("build")[0]["tree"]
    assert (
        json.loads(fleet.run("artifacts", "show", "review", "seen.json").stdout)["by"] == "claude"
    )
    assert fleet.json("artifacts", "verify")["ok"]
    assert not [e for e in fleet.journal() if e["event"].startswith("up.")]


def test_damaged_sprint_hides_no_other_and_can_be_put_aside(fleet: Fleet) -> None:
    for goal in ("one", "two"):
        claim(fleet, "plan", "--goal", goal)
    hurt, whole = sorted(path.name for path in (fleet.board / "sprints").iterdir())
    (fleet.board / "sprints" / hurt / "sprint.json").write_text("{")

    shown = fleet.run("status", "--json")

    assert shown.returncode == 20
    assert [one["id"] for one in json.loads(shown.stdout)["sprints"]] == [whole]
    error = json.loads(shown.stderr)
    assert error["error"] == "Board"
    assert f"{hurt}/sprint.json is damaged" in error["message"]
    assert fleet.run("clean").returncode == 20
    aside = json.loads(fleet.run("clean", "--quarantine", "--json").stdout)["quarantined"]
    assert [Path(path).is_dir() for path in aside] == [True]
    assert [one["id"] for one in fleet.json("status")["sprints"]] == [whole]
