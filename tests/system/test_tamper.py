"""What an earlier phase handed on was tampered with: what depends on it stops, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fleetbox import Fleet, agent, phase
from tests.gitbox import git

GRAPH = (
    agent("a", "echo $NANOSUP_SPRINT $NANOSUP_PHASE > $NANOSUP_OUTPUTS/$NANOSUP_PHASE.md")
    + phase("plan", agents=["a"], outputs=["plan.md"])
    + phase("build", agents=["a"], depends_on=["plan"], access="write", outputs=["build.md"])
    + phase("docs", agents=["a"], outputs=["docs.md"])
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("tamper") / "repo", GRAPH)
    yield made
    made.close()


def outcome_of(fleet: Fleet, sprint: str) -> Path:
    return fleet.board / f"sprints/{sprint}/phases/plan/attempts/0001/outcome.json"


def blob_of(fleet: Fleet, sprint: str) -> Path:
    (output,) = json.loads(outcome_of(fleet, sprint).read_text())["outputs"]
    return fleet.board / "blobs/sha256" / output["sha256"][:2] / output["sha256"]


def edit(fleet: Fleet, sprint: str, other: str) -> None:
    blob = blob_of(fleet, sprint)
    blob.chmod(0o644)
    blob.write_text("edited")


def delete(fleet: Fleet, sprint: str, other: str) -> None:
    blob_of(fleet, sprint).unlink()


def copy(fleet: Fleet, sprint: str, other: str) -> None:
    """All of the attempt is another sprint's, signed by the same key."""
    ours, theirs = outcome_of(fleet, sprint).parent, outcome_of(fleet, other).parent
    for name in ("owner.json", "outcome.json", "statement.json"):
        os.replace(ours / name, ours / f"{name}.old")
        (ours / name).write_bytes((theirs / name).read_bytes())


@pytest.mark.parametrize("tamper", [edit, delete, copy])
def test_only_what_depends_on_it_stops(
    fleet: Fleet, tamper: Callable[[Fleet, str, str], None]
) -> None:
    goal = tamper.__name__
    for name in ("other", goal) if tamper is copy else (goal,):
        done = fleet.run("run", "plan", "--goal", f"{goal} {name}", "--", "sh", "-c",
                         "echo $NANOSUP_SPRINT > $NANOSUP_OUTPUTS/plan.md")  # fmt: skip
        assert done.returncode == 0, done.stderr
    other, sprint = ([""] + [one["id"] for one in fleet.json("status")["sprints"]])[-2:]
    tamper(fleet, sprint, other)

    done = fleet.run("up", "--goal", f"{goal} {goal}")

    assert done.returncode == 16, done.stdout + done.stderr
    by_name = {one["name"]: one for one in fleet.sprint()["phases"]}
    states = {name: one["state"] for name, one in by_name.items()}
    assert states == {"plan": "completed", "build": "blocked", "docs": "completed"}
    assert by_name["build"]["attempts"] == []
    assert "plan" in by_name["build"]["reason"]
    assert f"build blocked: {by_name['build']['reason']}" in done.stdout
    bad = json.loads(fleet.run("artifacts", "verify", "--json", "--sprint", sprint).stdout)
    assert not bad["ok"]
    assert {row["phase"] for row in bad["bad"]} == {"plan"}


def test_sealed_trees_commits_and_refs_that_were_tampered_with_are_found(
    fleet: Fleet, tmp_path: Path
) -> None:
    script = "echo one > built.txt; mkdir -p out && echo x > out/x"
    assert fleet.run("run", "plan", "--goal", "t", "--", "sh", "-c",
                     "echo > $NANOSUP_OUTPUTS/plan.md").returncode == 0  # fmt: skip
    done = fleet.run("run", "build", "--goal", "t", "--", "sh", "-c",
                     f"{script}; echo > $NANOSUP_OUTPUTS/build.md")  # fmt: skip
    assert done.returncode == 0, done.stderr
    sprint = fleet.sprint()["id"]
    layer = fleet.board / f"layers/{sprint}-build-0001"

    def bad() -> dict[str, str]:
        rows = json.loads(fleet.run("artifacts", "verify", "--json").stdout)["bad"]
        return {row["name"]: row["reason"] for row in rows}

    assert bad() == {}
    (layer / "built.txt").write_text("two\n")
    assert "its layers now make" in bad()["layers"]
    (layer / "built.txt").write_text("one\n")
    (layer / "planted.py").write_text("import os\n")
    assert set(bad()) == {"layers"}
    (layer / "planted.py").unlink()
    assert bad() == {}
    layer.rename(layer.with_name("away"))
    assert "cannot be read" in bad()["layers"]
    layer.with_name("away").rename(layer)
    ref = f"refs/nanosup/{sprint}/build"
    built = git(fleet.top, "rev-parse", ref)
    git(fleet.top, "update-ref", ref, "HEAD")
    assert set(bad()) == {ref}
    git(fleet.top, "update-ref", ref, built)
    assert bad() == {}
