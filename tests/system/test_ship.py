"""`nanosup ship`: only what every gate has passed, and never under a user's feet."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fleetbox import NANOSUP, Fleet, agent, phase
from tests.gitbox import git

GRAPH = (
    agent("b", "echo built > built.txt; mkdir -p .vscode; echo '{}' > .vscode/tasks.json")
    + agent("r", 'echo "{\\"verdict\\": \\"$SAYS\\"}" > $NANOSUP_OUTPUTS/$NANOSUP_PHASE.json')
    + agent("s", '[ -z "$SHIPS" ] || echo late >> built.txt')
    + phase("build", agents=["b"], access="write")
)


def gate(name: str, says: str = "pass") -> str:
    keys = {"agents": ["r"], "depends_on": ["build"], "outputs": [f"{name}.json"]}
    return phase(name, **keys).rstrip() + f'\nenv = {{ SAYS = "{says}" }}\n\n'


def last(ships: str = "") -> str:
    keys: dict[str, Any] = {"agents": ["s"], "depends_on": ["review", "qa"], "access": "exclusive"}
    return phase("ship", **keys).rstrip() + f'\nenv = {{ SHIPS = "{ships}" }}\n'


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made: list[Fleet] = []

    def fleet(text: str, *, code: int = 0) -> Fleet:
        made.append(Fleet(tmp_path_factory.mktemp("ship") / "repo", text))
        done = made[-1].run("up", "--goal", "x")
        assert done.returncode == code, done.stdout + done.stderr
        return made[-1]

    yield fleet
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def passed(make: Any) -> Fleet:
    """A sprint that all gates have passed; tests add branches, and change nothing else."""
    fleet: Fleet = make(GRAPH + gate("review") + gate("qa") + last())
    return fleet


@contextmanager
def forged(path: Path, change: Callable[[Any], object]) -> Iterator[None]:
    kept = path.read_text()
    value = json.loads(kept)
    change(value)
    path.write_text(json.dumps(value))
    try:
        yield
    finally:
        path.write_text(kept)


def attempt(fleet: Fleet, name: str) -> Path:
    return fleet.board / f"sprints/{fleet.sprint()['id']}/phases/{name}/attempts/0001"


def refused(fleet: Fleet, code: int, *words: str, args: tuple[str, ...] = ()) -> None:
    refs = git(fleet.top, "for-each-ref", "refs/heads")
    done = fleet.run("ship", *args)
    assert done.returncode == code, done.stderr
    assert [word for word in words if word not in done.stderr] == []
    assert git(fleet.top, "for-each-ref", "refs/heads") == refs


def test_passed_tree_becomes_a_branch_and_again_changes_nothing(passed: Fleet) -> None:
    sprint = passed.sprint()["id"]
    built = git(passed.top, "rev-parse", f"refs/nanosup/{sprint}/build")

    shipped = passed.json("ship")

    assert (shipped["branch"], shipped["commit"]) == (f"nanosup/{sprint}", built)
    assert (shipped["old"], shipped["moved"]) == (None, True)
    assert {g["phase"]: g["verdict"] for g in shipped["gates"]} == {"review": "pass", "qa": "pass"}
    assert {g["tree"] for g in shipped["gates"]} == {shipped["tree"]}
    assert [one["path"] for one in shipped["flagged"]] == [".vscode/tasks.json"]
    assert git(passed.top, "rev-parse", f"nanosup/{sprint}") == built
    assert "nanosup ship" in git(passed.top, "reflog", f"nanosup/{sprint}")
    again = passed.run("ship", "--json")
    assert json.loads(again.stdout)["moved"] is False
    assert ".vscode/tasks.json: VS Code loads it" in again.stderr
    assert git(passed.top, "status", "--porcelain") == ""


def test_branch_is_fast_forwarded_and_never_moved_sideways(passed: Fleet) -> None:
    git(passed.top, "branch", "out")
    assert passed.json("ship", "--branch", "out")["old"] == git(passed.top, "rev-parse", "HEAD")
    git(passed.top, "branch", "other", git(passed.top, "commit-tree", "HEAD^{tree}", "-m", "x"))

    refused(passed, 21, "does not grow from", args=("--branch", "other"))
    refused(passed, 21, "cannot be the name of a branch", args=("--branch", "a..b"))
    refused(passed, 21, "cannot be the name of a branch", args=("--branch", "-d"))
    refused(passed, 21, "cannot be set", args=("--branch", "out/below"))


def test_branch_that_is_checked_out_is_left_alone(passed: Fleet, tmp_path: Path) -> None:
    here = git(passed.top, "branch", "--show-current")
    git(passed.top, "worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"))

    refused(passed, 21, "is checked out in", str(passed.top), args=("--branch", here))
    refused(passed, 21, "checked out in", str(tmp_path / "linked"), args=("--branch", "linked"))
    from_there = subprocess.run(
        [NANOSUP, "ship", "--branch", here], cwd=tmp_path / "linked", capture_output=True, text=True
    )
    assert from_there.returncode == 21
    assert f"is checked out in {passed.top}:" in from_there.stderr


def test_many_who_ship_at_once_agree(passed: Fleet) -> None:
    crowd = [passed.start("ship", "--branch", "crowd", "--json") for _ in range(6)]
    ends = [(one.communicate(timeout=60), one.returncode) for one in crowd]

    assert [code for _, code in ends] == [0] * 6, ends
    shipped = [json.loads(out) for (out, _), _ in ends]
    assert len({one["commit"] for one in shipped}) == 1
    assert any(one["moved"] for one in shipped)
    assert git(passed.top, "rev-parse", "crowd") == shipped[0]["commit"]


def test_stale_lock_is_named(passed: Fleet) -> None:
    (passed.top / ".git/refs/heads/stale.lock").touch()

    refused(passed, 21, "is locked", "stale.lock", args=("--branch", "stale"))


def test_board_whose_gate_was_taken_away_is_refused(passed: Fleet) -> None:
    record = attempt(passed, "qa").parents[3] / "sprint.json"

    with forged(record, lambda sprint: sprint["phases"][2].update(gate=False)):
        refused(passed, 17, "cannot be shipped", "was signed with")


def test_artifact_of_a_gate_that_was_edited_is_refused(passed: Fleet) -> None:
    (output,) = json.loads((attempt(passed, "qa") / "outcome.json").read_text())["outputs"]
    blob = passed.board / "blobs/sha256" / output["sha256"][:2] / output["sha256"]
    kept = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(b'{"verdict": "pass", "findings": []}')

    refused(passed, 17, "artifact qa/qa.json should be sha256")
    blob.write_bytes(kept)


def test_failed_verdict_is_refused_even_where_the_board_was_edited(make: Any) -> None:
    fleet = make(GRAPH + gate("review") + gate("qa", "fail") + last(), code=1)

    refused(fleet, 17, "the verdict of qa (attempt 1) is fail")
    outcome = attempt(fleet, "qa") / "outcome.json"
    with forged(outcome, lambda outcome: outcome.update(verdict="pass")):
        refused(fleet, 17, "attempt 1 of qa was signed with", "verdict = fail")


def test_gate_that_has_not_spoken_is_refused(make: Any) -> None:
    fleet = make(GRAPH + gate("review", "pass") + gate("qa", "maybe") + last(), code=1)

    refused(fleet, 17, "qa has given no verdict: it is failed")


def test_tree_that_changed_after_the_gates_is_refused(make: Any) -> None:
    fleet = make(GRAPH + gate("review") + gate("qa") + last(ships="yes"))

    refused(fleet, 17, "review (attempt 1) has passed tree", "qa (attempt 1) has passed tree")
    sealed = json.loads((attempt(fleet, "ship") / "outcome.json").read_text())["sealed"]
    with (
        forged(attempt(fleet, "review") / "owner.json", lambda one: one.update(snapshot=sealed)),
        forged(attempt(fleet, "qa") / "owner.json", lambda one: one.update(snapshot=sealed)),
    ):
        refused(fleet, 17, "attempt 1 of review was signed with")


def test_nothing_sealed_is_nothing_to_ship(make: Any) -> None:
    fleet = make(agent("a", "true") + phase("look", agents=["a"]))

    refused(fleet, 17, "no phase has sealed a tree")
