"""Agents that go silent, are stopped, or have said that they are done and hang all the same."""

from __future__ import annotations

import os
import signal
import time

from tests.faultbox import Make, Scenario, await_true, finish, phase, stand_in


def the_agent(scenario: Scenario, of: str = "p", attempt: int = 1) -> int:
    """The pid of the agent itself."""
    scenario.await_entry("starts", of, attempt)
    (pid,) = (p for p, what in scenario.jailed().items() if what == (of, attempt))
    return pid


def test_stopped_agent_is_found_and_the_next_attempt_takes_over(
    make: Make,
) -> None:
    scenario = make(
        stand_in("a", "save('f', str(n)); say('x')\nif n == 1: time.sleep(600)")
        + phase("p", access="write", stall_s=1, backoff_s=0, grace_s=5)
    )
    up = scenario.up()
    os.kill(the_agent(scenario), signal.SIGSTOP)

    code, said = finish(up)

    assert code == 0, said
    first = scenario.attempts("p")[0]
    assert first["state"] == "stalled"
    assert first["exit"] == {"signal": 15}  # it was let go on, to hear its end
    assert "stopped" in first["reason"]
    assert any(e["event"] == "attempt.stopped" for e in scenario.journal())
    scenario.check_completed()


BUSY = "while True: sum(range(10**5)); time.sleep(0.05)"
PRINTING = "while True: print('x', flush=True); time.sleep(0.1)"
LOOKING = "while True: os.path.exists(str(time.time())); time.sleep(0.1)"
BEATING = "while True: open(os.environ['NANOSUP_BEAT'], 'w').close(); time.sleep(0.1)"
SIGNS = {
    "printing-output": (PRINTING, ["output"], "timed_out"),
    "busy-output": (BUSY, ["output"], "stalled"),
    "busy-cpu": (BUSY, ["cpu"], "timed_out"),
    "looking-fs": (LOOKING, ["fs"], "timed_out"),
    "printing-fs": (PRINTING, ["fs"], "stalled"),
    "beating-beat": (BEATING, ["beat"], "timed_out"),
    "idle-all": ("time.sleep(600)", ["output", "cpu", "fs"], "stalled"),
}


def test_only_the_signs_that_were_asked_for_count(make: Make) -> None:
    scenario = make(
        "[workspace]\nmax_lanes = 9\n\n"
        + "".join(stand_in(name, script) for name, (script, _, _) in SIGNS.items())
        + "".join(
            phase(name, agents=[name], signs=signs, stall_s=1.5, timeout_s=5, restarts=0)
            for name, (_, signs, _) in SIGNS.items()
        )
    )

    finish(scenario.up())

    states = {name: scenario.states(name) for name in SIGNS}
    assert states == {name: [state] for name, (_, _, state) in SIGNS.items()}
    scenario.check_gone()


def test_stopped_keeper_makes_no_stall(make: Make) -> None:
    scenario = make(stand_in("a", "wait(); time.sleep(0.2)") + phase("p", stall_s=3, restarts=0))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    keeper = scenario.attempts("p")[0]["pid"]

    os.kill(keeper, signal.SIGSTOP)
    time.sleep(4.0)  # the fault itself lasts: nothing is waited for
    os.kill(keeper, signal.SIGCONT)
    scenario.release("p")

    assert finish(up)[0] == 0
    assert scenario.states("p") == ["completed"]


RESULT = """say('{"type": "result", "is_error": %s, "text": "..."}')\n"""


def test_agent_that_hangs_after_its_result_is_done(make: Make) -> None:
    scenario = make(
        stand_in(
            "a",
            "say('{\"type\": \"assistant\"}'); save('f', 'x')\n"
            "open(outputs + '/done', 'w').close()\n" + RESULT % "false" + "time.sleep(600)",
            end_events=["result"],
            end_grace_s=0.5,
        )
        + phase("p", access="write", outputs=["done"], restarts=0, grace_s=5)
    )

    code, said = finish(scenario.up())

    assert code == 0, said
    (attempt,) = scenario.attempts("p")
    assert attempt["state"] == "completed"
    assert "'result' event" in attempt["reason"]
    scenario.check_completed()


WORDS = {
    "failure": (RESULT % "true", [], "failed", "said itself that it failed"),
    "no-output": (RESULT % "false", ["absent"], "failed", "'absent' is missing"),
    "goes-on": (RESULT % "false" + "say('{}')\n", [], "timed_out", "timeout_s"),
    "long-line": (
        "say('x' * 9_000_000 + '{\"type\": \"result\"}')\n",
        [],
        "timed_out",
        "timeout_s",
    ),
    "no-newline": ('say(b\'{"type": "result"}\')\n', [], "timed_out", "timeout_s"),
}


def test_result_is_believed_only_as_the_last_whole_line_and_outputs_are_checked(
    make: Make,
) -> None:
    scenario = make(
        "[workspace]\nmax_lanes = 9\n\n"
        + "".join(
            stand_in(name, script + "time.sleep(600)", end_events=["result"], end_grace_s=0.3)
            for name, (script, _, _, _) in WORDS.items()
        )
        + "".join(
            phase(name, agents=[name], outputs=outputs, restarts=0, timeout_s=3)
            for name, (_, outputs, _, _) in WORDS.items()
        )
    )

    assert finish(scenario.up())[0] == 1

    for name, (_, _, state, said) in WORDS.items():
        (attempt,) = scenario.attempts(name)
        assert (name, attempt["state"]) == (name, state)
        assert said in attempt["reason"]
    scenario.check_gone()


def test_server_that_hangs_does_not_hold_its_lane_for_ever(make: Make) -> None:
    scenario = make(
        stand_in("a", "save('f', 'x'); wait()\nif n == 1: os.listdir('.'); open('g', 'w')")
        + phase("p", access="write", timeout_s=4, grace_s=0.2, backoff_s=0)
    )
    up = scenario.up()
    scenario.await_entry("waits", "p")
    server = scenario.json("status")["sprints"][-1]["phases"][0]["attempts"][0]["server_pid"]
    os.kill(server, signal.SIGSTOP)
    scenario.release("p")
    await_true(lambda: len(scenario.attempts("p")) == 2, "a second attempt")
    scenario.release("p", 2)

    code, said = finish(up)

    assert code == 0, said
    assert scenario.states("p") == ["timed_out", "completed"]
    scenario.check_completed()
