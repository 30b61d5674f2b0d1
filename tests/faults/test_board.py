"""Damage and strange clocks: what is wrong is named, what is right goes on."""

from __future__ import annotations

import json
import os
import signal
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faultbox import Make, Scenario, await_true, finish, phase, stand_in

DAY_S = 86400


def test_torn_last_line_of_the_journal_swallows_nothing(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p"))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    journal = scenario.board / f"sprints/{scenario.sprint()['id']}/journal.jsonl"

    with journal.open("ab") as file:
        file.write(b'\n{"at": "2026-11-24T00:00:00.000Z", "event": "attempt.en')
    scenario.release("p")

    assert finish(up)[0] == 0
    assert [e["event"] for e in scenario.journal()].count("attempt.ended") == 1
    scenario.check_completed()


def test_corrupt_outcome_is_named_and_nothing_is_guessed(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p") + phase("q", depends_on=["p"]))
    up = scenario.up()
    scenario.release("p")
    scenario.await_entry("waits", "q")
    outcome = scenario.log("p").parent / "outcome.json"
    whole = outcome.read_bytes()

    outcome.write_bytes(whole[: len(whole) // 2])

    shown = scenario.run("status")
    assert shown.returncode == 20
    assert f"{outcome} is damaged" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    os.kill(up.pid, signal.SIGKILL)
    finish(up)
    refused = scenario.run("up")
    assert refused.returncode == 20
    assert "Traceback" not in refused.stderr
    outcome.write_bytes(whole)
    scenario.release("q")
    scenario.complete()
    assert scenario.states("q") == ["completed"]


@pytest.mark.parametrize("change", ["pid", "boot"])
def test_owner_whose_pid_was_used_again_or_whose_host_was_started_anew_is_dead(
    make: Make, change: str
) -> None:
    scenario = make(stand_in("a", "n > 1 or wait()") + phase("p", restarts=1, backoff_s=0.01))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    for pid in (up.pid, scenario.attempts("p")[0]["pid"]):
        os.kill(pid, signal.SIGKILL)
    finish(up)
    for path in scenario.board.glob("sprints/*/**/owner.json"):
        owner = json.loads(path.read_text())
        # This very process has that pid now, and lives.
        owner["pid"] = os.getpid()
        if change == "boot":
            owner["start_ticks"] = int(
                Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
            )
            owner["boot_id"] = str(uuid.uuid4())
        path.write_text(json.dumps(owner))

    assert scenario.states("p") == ["lost"]
    assert scenario.sprint()["state"] == "stopped"
    scenario.complete()
    assert scenario.states("p") == ["lost", "completed"]


@pytest.mark.parametrize("shift_s", [DAY_S, -DAY_S])
def test_wall_clock_that_jumps_a_day_decides_nothing(make: Make, shift_s: int) -> None:
    scenario = make(
        stand_in("a", "n > 1 or sys.exit(1); wait()")
        + phase("p", restarts=1, backoff_s=1.0, timeout_s=60, stall_s=60)
    )
    up = scenario.up()
    await_true(lambda: scenario.sprints() and scenario.states("p") == ["failed"], "the failure")
    up.kill()
    finish(up)

    with scenario.shifted(shift_s):
        again = scenario.up()
        scenario.await_entry("waits", "p", 2)
        assert scenario.run("status").returncode == 0
        assert scenario.states("p") == ["failed", "running"]
        scenario.release("p", 2)
        code, said = finish(again)

    assert code == 0, said
    scenario.check_completed()


def test_two_at_once_on_one_repository_are_one_and_a_refusal(make: Make) -> None:
    scenario = make(stand_in("a", "n > 1 or wait()") + phase("p"))
    first = scenario.up("--goal", "g")
    scenario.await_entry("waits", "p")
    first.kill()
    finish(first)

    both = [scenario.up("--goal", "g") for _ in range(2)]
    await_true(lambda: any(up.poll() is not None for up in both), "one to be refused")
    scenario.check()
    scenario.release("p")

    assert sorted(finish(up)[0] for up in both) == [0, 19]
    assert scenario.states("p") == ["completed"]
    scenario.check_completed()


@pytest.mark.parametrize("goals", [(), ("--goal", "g"), ("--goal", "g", "--goal", "h")])
def test_several_begun_at_the_same_moment_begin_each_sprint_once(
    make: Make, goals: tuple[str, ...]
) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p"))
    ups = [scenario.up(*goals) for _ in range(4)]
    await_true(lambda: sum(up.poll() is not None for up in ups) == 3, "three to be refused")

    sprints = scenario.sprints()
    assert len(sprints) == max(1, len(goals) // 2)
    for sprint in sprints:
        assert sprint["state"] == "running"
    (winner,) = (up for up in ups if up.poll() is None)
    winner.terminate()

    assert sorted(finish(up)[0] for up in ups if up is not winner) == [19, 19, 19]
    finish(winner)


def test_journal_that_is_removed_ends_nothing(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p") + phase("q", depends_on=["p"]))
    up = scenario.up()
    scenario.await_entry("waits", "p")

    (scenario.board / f"sprints/{scenario.sprint()['id']}/journal.jsonl").unlink()
    scenario.release("p")
    scenario.release("q")

    code, said = finish(up)
    assert code == 0, said
    assert "Traceback" not in said
    scenario.check_completed()


def move(scenario: Scenario, **elsewhere: object) -> None:
    """Kills all that runs, and lets whoever has claimed anything have been somewhere else."""
    for pid in scenario.processes():
        with suppress(ProcessLookupError):  # it died with one that was killed before
            os.kill(pid, signal.SIGKILL)
    await_true(lambda: not scenario.processes(), "everything to be dead")
    for path in scenario.board.glob("**/owner.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), **elsewhere}))


def test_what_a_killed_container_has_begun_goes_on_in_the_next(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p", access="write"))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    move(scenario, pid_ns=1)
    finish(up)

    up = scenario.up()
    scenario.release("p", 2)
    assert finish(up)[0] == 0
    assert scenario.states("p") == ["lost", "completed"]
    scenario.check_completed()


def test_what_a_host_that_is_gone_has_begun_is_freed_by_force(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p"))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    move(scenario, boot_id="another", host="elsewhere")
    finish(up)
    assert scenario.run("up", "--plain").returncode == 19

    assert scenario.run("unstuck", "p", "--force").returncode == 0

    up = scenario.up()
    scenario.release("p", 2)
    assert finish(up)[0] == 0
    scenario.check_completed()
