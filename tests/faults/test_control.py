"""Restart, pause and down: from any terminal, before, during and after a crash of `up`."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faultbox import Make, Scenario, await_true, finish, phase, stand_in

COUNTS = "for i in range(10**6):\n    say(str(i)); time.sleep(0.01)\n"


def ok(scenario: Scenario, *args: str) -> str:
    done = scenario.run(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stands_still(scenario: Scenario, name: str, attempt: int = 1) -> bool:
    """Whether an agent that prints all the time has printed nothing for a while."""
    size = scenario.log(name, attempt).stat().st_size
    with pytest.raises(AssertionError):
        await_true(lambda: scenario.log(name, attempt).stat().st_size != size, "it", patience_s=0.3)
    return True


def await_growth(scenario: Scenario, name: str, attempt: int = 1) -> None:
    size = scenario.log(name, attempt).stat().st_size
    await_true(lambda: scenario.log(name, attempt).stat().st_size > size, f"{name} to go on")


def test_restart_ends_what_runs_and_another_agent_takes_over(make: Make) -> None:
    scenario = make(
        stand_in("a", "say('a'); wait()") + stand_in("b", "say('b')")
        + phase("p", agents=["a", "b"], restarts=0)
    )  # fmt: skip
    up = scenario.up()
    scenario.await_entry("waits", "p")

    assert '"ended": 1' in ok(scenario, "restart", "p", "--agent", "b", "--json")
    code, said = finish(up)

    assert code == 0, said
    assert [(a["agent"], a["state"]) for a in scenario.attempts("p")] == [
        ("a", "revoked"), ("b", "completed"),
    ]  # fmt: skip
    scenario.check_completed()


def test_restart_reopens_a_failed_phase_without_up_and_the_next_up_goes_on(make: Make) -> None:
    scenario = make(stand_in("a", "sys.exit(n < 3)") + phase("p", restarts=1, backoff_s=0.01))
    assert scenario.run("up").returncode == 1
    assert scenario.sprint()["state"] == "failed"

    assert "`nanosup up` starts it" in ok(scenario, "restart", "p")

    assert scenario.sprint()["state"] == "stopped"
    scenario.complete()
    assert scenario.states("p") == ["failed", "failed", "completed"]


def test_restart_of_a_completed_phase_has_all_that_came_from_it_made_again(make: Make) -> None:
    scenario = make(
        stand_in("a", "") + phase("plan") + phase("after", depends_on=["plan"]) + phase("other")
    )
    assert scenario.run("up").returncode == 0

    ok(scenario, "restart", "plan")

    assert [p["state"] for p in scenario.sprint()["phases"]] == ["ready", "blocked", "completed"]
    scenario.complete()
    assert [len(p["attempts"]) for p in scenario.sprint()["phases"]] == [2, 2, 1]


def test_restart_of_what_is_unknown_or_held_by_hand_is_refused(make: Make) -> None:
    scenario = make(stand_in("a", "") + phase("p"))
    assert scenario.run("claim", "p", "--agent", "me").returncode == 0

    assert scenario.run("restart", "p").returncode == 12
    assert scenario.run("restart", "p", "--agent", "nobody").returncode == 12
    assert scenario.run("restart", "q").returncode == 11
    assert scenario.run("pause", "q").returncode == 11


def test_pause_outlives_up_and_takes_none_of_the_time(make: Make) -> None:
    scenario = make(stand_in("a", COUNTS) + phase("p", timeout_s=5, stall_s=3, restarts=0))
    up = scenario.up()
    scenario.await_entry("said", "p")

    ok(scenario, "pause", "p")
    assert stands_still(scenario, "p")
    up.kill()
    finish(up)
    assert stands_still(scenario, "p")
    again = scenario.up()
    # Longer than both limits: neither may run meanwhile.
    with pytest.raises(AssertionError):
        await_true(lambda: scenario.states("p") != ["running"], "its end", patience_s=5)
    assert scenario.phase("p")["paused"]
    assert "running, paused" in ok(scenario, "status")
    ok(scenario, "resume", "p")
    await_growth(scenario, "p")
    code, _ = finish(again)

    assert code == 1
    assert scenario.states("p") == ["timed_out"]
    scenario.check()


def test_pause_outlives_the_keeper_and_nothing_starts_before_resume(make: Make) -> None:
    scenario = make(stand_in("a", "n > 1 or wait()") + phase("p", restarts=1, backoff_s=0.01))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    ok(scenario, "pause")

    os.kill(scenario.attempts("p")[0]["pid"], signal.SIGKILL)

    await_true(lambda: scenario.states("p") == ["lost"], "the loss")
    assert scenario.json("next")["waiting"] == {"p": "paused"}
    assert scenario.run("claim", "p", "--agent", "me").returncode == 13
    ok(scenario, "resume", "--all")
    code, said = finish(up)
    assert code == 0, said
    scenario.check_completed()


def test_down_ends_what_is_paused_or_stopped(make: Make) -> None:
    scenario = make(stand_in("a", "n > 1 or wait()") + phase("p") + phase("q"))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    scenario.await_entry("waits", "q")
    ok(scenario, "pause", "p")
    os.kill(scenario.attempts("q")[0]["pid"], signal.SIGSTOP)
    up.send_signal(signal.SIGSTOP)

    ok(scenario, "down")

    assert finish(up)[0] == 143
    assert scenario.states("p") == scenario.states("q") == ["revoked"]
    scenario.check_gone()
    ok(scenario, "resume")
    scenario.complete()


def test_down_during_backoff_ends_at_once(make: Make) -> None:
    scenario = make(stand_in("a", "sys.exit(n == 1)") + phase("p", restarts=1, backoff_s=600))
    up = scenario.up()
    await_true(lambda: scenario.sprints() and scenario.states("p") == ["failed"], "the failure")

    assert ok(scenario, "down") == "nothing was running\n"

    assert finish(up)[0] == 143
    ok(scenario, "restart", "p")  # who asks for it does not wait for the rest of ten minutes
    scenario.complete()


def test_reload_changes_what_was_not_begun_and_lanes_run_on(make: Make) -> None:
    begun = stand_in("a", "wait()") + phase("p", agents=["a"]) + phase("q", depends_on=["p"])
    scenario = make(begun)
    up = scenario.up()
    scenario.await_entry("waits", "p")
    (before,) = (a["pid"] for a in scenario.attempts("p"))

    (scenario.top / "nanosup.toml").write_text(
        begun.replace('name = "q"\n', 'name = "q"\nagents = ["b"]\n')
        + stand_in("b", "say('b')") + phase("r", agents=["b"], depends_on=["q"])
    )  # fmt: skip
    told = scenario.json("reload")
    scenario.release("p")
    code, said = finish(up)

    assert code == 0, said
    assert told["revision"] == 1
    assert ("phase r", "added") in {(c["what"], c["kind"]) for c in told["changes"]}
    assert told["running"] == []
    assert [(p["name"], p["attempts"][0]["agent"]) for p in scenario.sprint()["phases"]] == [
        ("p", "a"), ("q", "b"), ("r", "b"),
    ]  # fmt: skip
    assert [a["pid"] for a in scenario.attempts("p")] == [before]
    scenario.check_completed()
    revision = scenario.board / f"sprints/{scenario.sprint()['id']}/graph/0001.json"
    revision.write_text(
        revision.read_text().replace('"say', '"lie').replace("say('b')", "say('c')")
    )
    assert scenario.run("artifacts", "verify").returncode == 16


def test_reload_of_a_file_that_is_wrong_changes_nothing_and_says_why(make: Make) -> None:
    toml = stand_in("a", "wait()") + phase("p")
    scenario = make(toml)
    up = scenario.up()
    scenario.await_entry("waits", "p")

    for wrong, said in (
        (toml + "[[phase]]\nname = 3\n", "phase no. 2.name"),
        (toml.replace("[[phase]]", '[[phase]]\naccess = "write"'), "its access cannot be changed"),
        (toml.replace('"p"', '"q"'), "phase 'p' has been begun"),
        ("[workspace", "not TOML"),
    ):
        (scenario.top / "nanosup.toml").write_text(wrong)
        done = scenario.run("reload")
        assert done.returncode == 10
        assert said in done.stderr

    assert not list(scenario.board.glob("sprints/*/graph"))
    scenario.release("p")
    assert finish(up)[0] == 0
    scenario.check_completed()


def test_reload_can_begin_anew_what_was_changed(make: Make) -> None:
    toml = stand_in("a", "wait()") + phase("p") + phase("q")
    scenario = make(toml)
    up = scenario.up()
    scenario.await_entry("waits", "p")
    scenario.await_entry("waits", "q")

    changed = toml.replace('name = "q"\n', 'name = "q"\nprompt = "Again."\n')
    (scenario.top / "nanosup.toml").write_text(changed)
    assert scenario.json("reload", "--check")["revision"] is None
    told = scenario.json("reload", "--restart")
    scenario.release("p")
    scenario.release("q", 2)

    assert finish(up)[0] == 0
    assert told["restarted"] == ["q"]
    assert scenario.states("p") == ["completed"]
    assert scenario.states("q") == ["revoked", "completed"]
    scenario.check_completed()


def test_down_at_any_moment_of_a_start_revokes_and_loses_nothing(make: Make) -> None:
    scenario = make(stand_in("a", "n < 9 and wait()") + phase("p", access="write", restarts=0))
    for delay_s in (0, 0.02, 0.05, 0.1):
        up = scenario.up()
        tried = len(scenario.attempts("p")) if scenario.sprints() else 0
        await_true(
            lambda n=tried: scenario.sprints() and len(scenario.attempts("p")) > n, "a claim"
        )
        with pytest.raises(AssertionError):
            await_true(lambda: False, "the moment", patience_s=delay_s)
        ok(scenario, "down")
        finish(up)
        scenario.check()

    assert set(scenario.states("p")) == {"revoked"}
    ok(scenario, "restart", "p")
