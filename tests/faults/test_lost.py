"""Agents that print and write while what is around them dies or stands still."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faultbox import Make, Scenario, await_true, finish, phase, stand_in

# Prints and writes all the time, until the second attempt.
BUSY = """
if n == 1:
    i = 0
    while True:
        i += 1
        say(b"%d \\x00\\xff" % i * 50 + b"\\n")
        save(f"f{i}", str(i) * 100)
"""


def begin(scenario: Scenario) -> None:
    await_true(lambda: len(scenario.ledger("p")) > 40, "the agent to be busy")


@pytest.mark.parametrize("victim", ["keeper", "server", "child", "up and keeper"])
def test_whoever_is_killed_under_a_busy_agent_nothing_is_lost(make: Make, victim: str) -> None:
    scenario = make(
        stand_in("a", BUSY) + phase("p", access="write", restarts=1, backoff_s=0.01, grace_s=1)
    )
    up = scenario.up()
    begin(scenario)
    (attempt,) = scenario.json("status")["sprints"][0]["phases"][0]["attempts"]
    pids = {"keeper": "pid", "server": "server_pid", "child": "child_pid", "up and keeper": "pid"}

    if victim == "up and keeper":
        up.kill()
    os.kill(attempt[pids[victim]], signal.SIGKILL)
    code, said = finish(up)

    assert code == (-9 if victim == "up and keeper" else 0), said
    await_true(lambda: scenario.states("p")[0] != "running", "the end of the attempt")
    assert scenario.states("p")[0] == ("failed" if victim == "child" else "lost")
    if victim == "up and keeper":
        scenario.complete()
    scenario.check_completed()
    assert scenario.states("p")[1:] == ["completed"]


def test_up_killed_under_a_printing_agent_leaves_no_gap(make: Make) -> None:
    scenario = make(stand_in("a", BUSY.replace("True", "i < 500")) + phase("p", access="write"))
    for _ in range(3):
        up = scenario.up()
        begin(scenario)
        up.kill()
        finish(up)
        assert scenario.states("p") in (["running"], ["completed"])
        scenario.check()

    scenario.complete()

    assert scenario.states("p") == ["completed"]


@pytest.mark.parametrize("which", ["up", "keeper"])
def test_stopped_for_a_while_and_continued_it_goes_on_as_if_nothing_were(
    make: Make, which: str
) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p", stall_s=1, signs=["output"], restarts=0))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    pid = up.pid if which == "up" else scenario.attempts("p")[0]["pid"]

    os.kill(pid, signal.SIGSTOP)
    if which == "up":
        scenario.release("p")
        await_true(lambda: scenario.states("p") == ["completed"], "the lane, which needs no `up`")
    else:
        with pytest.raises(AssertionError):
            await_true(lambda: scenario.states("p") != ["running"], "a stall", patience_s=1.5)
        scenario.release("p")
    os.kill(pid, signal.SIGCONT)

    code, said = finish(up)
    assert code == 0, said
    scenario.check_completed()


def test_log_that_is_deleted_while_the_agent_prints_ends_nothing(make: Make) -> None:
    scenario = make(stand_in("a", "wait(); os.write(1, b'more'); os.unlink(outputs + '/ledger')")
                    + phase("p"))  # fmt: skip
    up = scenario.up()
    scenario.await_entry("waits", "p")
    scenario.log("p").unlink()

    assert scenario.run("logs", "p").returncode == 0
    scenario.release("p")

    assert finish(up)[0] == 0
    assert scenario.run("logs", "p").returncode == 0
    scenario.check_completed()


@pytest.mark.parametrize("times", [10, pytest.param(100, marks=pytest.mark.long)])
def test_agent_that_crashes_at_once_each_time_is_given_up_and_leaves_nothing(
    make: Make, times: int
) -> None:
    scenario = make(stand_in("a", "sys.exit(7)") + phase("p", restarts=times - 1, backoff_s=0))

    assert finish(scenario.up())[0] == 1

    assert scenario.states("p") == ["failed"] * times
    scenario.check()
    scenario.check_gone()


def test_agent_that_crashes_and_works_in_turns_gets_there(make: Make) -> None:
    scenario = make(
        stand_in("a", "n % 2 and sys.exit(1); save('f', str(n)); n < 6 and os.kill(0, 9)")
        + phase("p", access="write", restarts=6, backoff_s=0.01)
    )

    assert scenario.run("up").returncode == 0

    ends = [attempt["exit"] for attempt in scenario.attempts("p")]
    assert ends == [
        {"code": 1},
        {"signal": 9},
        {"code": 1},
        {"signal": 9},
        {"code": 1},
        {"code": 0},
    ]
    scenario.check_completed()


def test_status_client_that_stops_reading_holds_up_nobody(make: Make) -> None:
    scenario = make(stand_in("a", "for i in range(3000): say('x' * 200)\nwait()") + phase("p"))
    up = scenario.up()
    scenario.await_entry("said", "p")
    # None of them is ever read; each soon blocks in write(2).
    clients = [
        scenario.start(*words)
        for words in (("status", "--watch"), ("logs", "-f", "--raw", "p"), ("events", "-f"))
    ]

    scenario.release("p")

    assert finish(up)[0] == 0
    for client in clients:
        client.kill()
        client.communicate()
    scenario.check_completed()


def test_what_a_failed_writer_left_is_verified_under_the_next_writer_too(make: Make) -> None:
    scenario = make(
        stand_in("a", "save(f'{phase}-{n}', 'x'); sys.exit(phase == 'p' and n == 1)")
        + phase("p", access="write", restarts=1, backoff_s=0)
        + phase("q", access="write", depends_on=["p"])
    )

    assert finish(scenario.up())[0] == 0
    assert scenario.states("p") == ["failed", "completed"]
    scenario.check_completed()
