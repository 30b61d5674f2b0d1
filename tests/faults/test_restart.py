"""What follows when an attempt has failed: again, later, by another agent, or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.faultbox import Make, Scenario, await_true, finish, phase, stand_in


def begun_at_s(scenario: Scenario, phase: str, attempt: int) -> float:
    return scenario.ledger(phase, attempt)[0].at_ns / 1e9


@pytest.mark.parametrize("carry", ["resume", "fresh"])
def test_next_attempt_is_told_what_became_of_the_last(make: Make, carry: str) -> None:
    script = """
if n == 1:
    save("f", b"one\\r\\n"); say(b"\\x1b[2Jlast \\xff words\\n" + b"x\\n" * 500); sys.exit(3)
inputs = os.environ["NANOSUP_INPUTS"]
open(outputs + "/told", "wb").write(open(inputs + "/handoff.json", "rb").read())
open(outputs + "/asked", "wb").write(open(os.environ["NANOSUP_PROMPT_FILE"], "rb").read())
open(outputs + "/there", "w").write(str(os.path.exists("f")))
try: open(inputs + "/handoff.json", "w")
except OSError: note("refused")
"""
    scenario = make(stand_in("a", script) + phase("p", access="write", carry=carry, backoff_s=0))

    code, said = finish(scenario.up())

    assert code == 0, said
    found = scenario.lane("p", 2) / "outputs"
    told: dict[str, Any] = json.loads((found / "told").read_text())
    resumed = carry == "resume"
    assert (told["phase"], told["attempt"], told["agent"]) == ("p", 2, "a")
    assert (told["state"], told["why"]) == ("failed", "exit status 3")
    assert told["exit"] == {"code": 3}
    assert told["carried"] is resumed
    assert (found / "there").read_text() == str(resumed)
    assert told["log"]["stdout"] == ["x"] * 200
    assert [a["n"] for a in told["attempts"]] == [1]
    assert "exit status 3" in (found / "asked").read_text()
    assert any(e.words[0] == "refused" for e in scenario.ledger("p", 2))
    # The patch applies to what the first attempt began with.
    base = scenario.sprint()["base"]["commit"]
    subprocess.run(["git", "checkout", "-q", base], cwd=scenario.top, check=True)
    subprocess.run(["git", "apply", "-"], cwd=scenario.top, check=True, input=told["diff"].encode())
    assert (scenario.top / "f").read_bytes() == b"one\r\n"


def test_rate_limited_phase_is_parked_and_uses_up_no_restart(make: Make) -> None:
    scenario = make(
        stand_in("a", "if n < 2: say('429: Usage Limit; try again in 2s'); sys.exit(1)").rstrip()
        + f"\n{RATE_LIMITED}\n\n"
        + phase("p", restarts=0)
    )
    up = scenario.up()
    await_true(lambda: scenario.sprints() and len(scenario.attempts("p")) == 1, "an attempt")
    await_true(lambda: scenario.states("p") == ["failed"], "its end")
    shown = scenario.json("status")["sprints"][-1]["phases"][0]
    assert shown["state"] == "ready"
    assert shown["reason"] == "a is rate limited"
    assert 0 < shown["waits_s"] <= 2

    code, said = finish(up)

    assert code == 0, said
    assert scenario.states("p") == ["failed", "completed"]
    assert [a["trouble"] for a in scenario.attempts("p")] == ["rate_limited", None]
    assert begun_at_s(scenario, "p", 2) - begun_at_s(scenario, "p", 1) >= 2
    scenario.check_completed()


RATE_LIMITED = 'rate_limited = { output = ["usage limit"] }'
LOGGED_OUT = "not_logged_in = { exit = [41] }\n\n"


def test_agents_that_cannot_work_now_hand_over_at_once(make: Make) -> None:
    scenario = make(
        stand_in("out", "sys.exit(41)").rstrip() + "\n" + LOGGED_OUT
        + stand_in("limited", "say('usage limit'); sys.exit(1)").rstrip()
        + f"\n{RATE_LIMITED}\n\n"
        + stand_in("able", "say('x')")
        + phase("p", agents=["out", "limited", "able"], restarts=3, backoff_s=60)
        + phase("q", agents=["out"], restarts=3, backoff_s=60)
    )  # fmt: skip

    code, said = finish(scenario.up())

    assert code == 1, said
    assert [a["agent"] for a in scenario.attempts("p")] == ["out", "limited", "able"]
    assert scenario.states("p")[-1] == "completed"
    assert scenario.states("q") == ["failed"]
    assert "not logged in: out; log in, then `nanosup restart`" in said
    scenario.check_gone()


def test_backoff_goes_on_where_it_was_when_up_is_killed_in_it(make: Make) -> None:
    scenario = make(
        stand_in("a", "sys.exit(1 if n == 1 else 0)") + phase("p", restarts=1, backoff_s=5)
    )
    up = scenario.up()
    await_true(lambda: scenario.sprints() and scenario.states("p") == ["failed"], "the first end")
    up.kill()
    up.communicate()

    before_s = scenario.phase("p")["waits_s"]
    time.sleep(1.5)  # nobody is there to count: the time goes by all the same
    after_s = scenario.phase("p")["waits_s"]
    code, said = finish(scenario.up())

    assert after_s < before_s - 1.3  # both are told to a tenth
    assert code == 0, said
    assert begun_at_s(scenario, "p", 2) - begun_at_s(scenario, "p", 1) >= 2.5
    scenario.check_completed()


def test_down_in_a_backoff_ends_at_once_and_restart_begins_anew(make: Make) -> None:
    scenario = make(
        stand_in("a", "sys.exit(1 if n < 3 else 0)") + phase("p", restarts=1, backoff_s=600)
    )
    up = scenario.up()
    await_true(lambda: scenario.sprints() and scenario.states("p") == ["failed"], "the first end")
    assert scenario.run("down").returncode == 0
    assert finish(up)[0] == 143
    scenario.check_gone()

    up = scenario.up()
    for attempt in (2, 3):
        assert scenario.run("restart", "p").returncode == 0
        await_true(lambda n=attempt: len(scenario.attempts("p")) == n, "the next")  # type: ignore
        await_true(lambda: scenario.attempts("p")[-1]["state"] != "running", "its end")

    assert finish(up)[0] == 0
    assert scenario.states("p") == ["failed", "failed", "completed"]
    scenario.check_completed()


def test_killed_lane_is_replaced_at_once_where_there_is_no_backoff(make: Make) -> None:
    scenario = make(
        stand_in("a", "if n == 1: wait()") + phase("p", access="write", backoff_s=0)
    )  # fmt: skip
    up = scenario.up()
    scenario.await_entry("waits", "p")
    killed_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    os.kill(scenario.attempts("p")[0]["pid"], signal.SIGKILL)

    assert finish(up)[0] == 0
    assert scenario.states("p") == ["lost", "completed"]
    # The aim is 50 ms; this machine may be busy with anything.
    assert begun_at_s(scenario, "p", 2) - killed_s < 3
    scenario.check_completed()
