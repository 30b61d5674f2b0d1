"""`--wait`: work by hand that is not to be had yet, had as soon as it is."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleetbox import TIMEOUT_S, Fleet, agent, phase

GRAPH = (
    agent("a", "true")
    + phase("build", agents=["a"], access="write")
    + phase("docs", agents=["a"], access="write")
    + phase("review", agents=["a"], depends_on=["build"])
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "repo", GRAPH)
    yield made
    made.close()


def claim(fleet: Fleet, name: str) -> str:
    done = fleet.run("claim", name, "--agent", "me")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def complete(fleet: Fleet, name: str, token: str) -> None:
    done = fleet.run("complete", name, "--token", token)
    assert done.returncode == 0, done.stderr


def waiting(process: subprocess.Popen[str]) -> str:
    """What it says that it waits for, once it does."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("nanosup: waiting: "), line
    return line


def test_claim_waits_for_what_the_phase_depends_on(fleet: Fleet) -> None:
    build = claim(fleet, "build")
    review = fleet.start("claim", "review", "--agent", "you", "--wait")
    assert "waits for build" in waiting(review)

    complete(fleet, "build", build)
    token, said = review.communicate(timeout=TIMEOUT_S)
    assert (review.returncode, said) == (0, "")
    complete(fleet, "review", token.strip())


def test_claim_waits_for_the_holder_of_the_phase(fleet: Fleet) -> None:
    build = claim(fleet, "build")
    other = fleet.start("claim", "build", "--agent", "you", "--wait")
    assert "held by me" in waiting(other)

    fleet.run("abort", "build", "--token", build)
    token, _ = other.communicate(timeout=TIMEOUT_S)
    assert other.returncode == 0
    assert fleet.states("build") == ["released", "running"]
    complete(fleet, "build", token.strip())


def test_claim_does_not_wait_for_what_is_done(fleet: Fleet) -> None:
    build = claim(fleet, "build")
    other = fleet.start("claim", "build", "--agent", "you", "--wait")
    waiting(other)
    complete(fleet, "build", build)
    _, said = other.communicate(timeout=TIMEOUT_S)
    assert other.returncode == 14
    assert "is completed" in said


def test_run_waits_for_the_turn_in_the_order_of_asking(fleet: Fleet) -> None:
    build = claim(fleet, "build")
    docs = fleet.start("run", "docs", "--wait", "--", "sh", "-c", "echo new > docs.md")
    assert "the writer's turn, held by me" in waiting(docs)
    refused = fleet.run("run", "docs", "--", "true")
    assert refused.returncode == 12

    complete(fleet, "build", build)
    _, said = docs.communicate(timeout=TIMEOUT_S)
    assert docs.returncode == 0, said
    assert fleet.states("docs") == ["completed"]
    assert fleet.run("claim", "review", "--agent", "me").returncode == 0


def test_who_is_killed_while_waiting_is_in_nobodys_way(fleet: Fleet) -> None:
    build = claim(fleet, "build")
    first = fleet.start("claim", "docs", "--agent", "first", "--wait")
    waiting(first)
    second = fleet.start("run", "docs", "--agent", "second", "--wait", "--", "true")
    waiting(second)
    first.kill()
    first.wait()

    complete(fleet, "build", build)
    _, said = second.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 0, said


def test_ctrl_c_ends_the_wait_and_leaves_the_line(fleet: Fleet) -> None:
    build = claim(fleet, "build")
    docs = fleet.start("claim", "docs", "--agent", "you", "--wait")
    waiting(docs)
    docs.send_signal(signal.SIGINT)
    out, said = docs.communicate(timeout=TIMEOUT_S)
    assert (docs.returncode, out) == (130, "")
    assert "Traceback" not in said

    complete(fleet, "build", build)
    claim(fleet, "docs")


def test_nobody_waits_for_what_has_failed(fleet: Fleet) -> None:
    fleet.configure(
        agent("bad", "exit 1")
        + phase("build", agents=["bad"], access="write", restarts=0)
        + phase("review", agents=["bad"], depends_on=["build"])
    )
    assert fleet.run("up", "--plain").returncode == 1
    refused = fleet.run("claim", "review", "--agent", "me", "--wait")
    assert refused.returncode == 13
    assert "build failed" in refused.stderr
    assert fleet.run("next", "--wait").stdout == ""


def test_nobody_waits_for_what_is_not_there(fleet: Fleet) -> None:
    claim(fleet, "build")
    for command in (
        ("claim", "nope", "--agent", "me", "--wait"),
        ("run", "nope", "--wait", "true"),
    ):
        refused = fleet.run(*command)
        assert (refused.returncode, "nope" in refused.stderr) == (11, True)


def test_next_waits_until_there_is_something_to_pick_up(fleet: Fleet) -> None:
    fleet.configure(
        agent("a", "true")
        + phase("build", agents=["a"], access="write")
        + phase("review", agents=["a"], depends_on=["build"])
    )
    build = claim(fleet, "build")
    assert fleet.run("next").stdout == ""
    coming = fleet.start("next", "--wait", "--json")

    complete(fleet, "build", build)
    out, _ = coming.communicate(timeout=TIMEOUT_S)
    assert (coming.returncode, '"next": "review"' in out) == (0, True)

    complete(fleet, "review", claim(fleet, "review"))
    assert fleet.run("next", "--wait").stdout == ""
