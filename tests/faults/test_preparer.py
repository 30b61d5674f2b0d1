"""What happens to a lane that is not there yet: to the process that prepares it, and its keeper."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandbox.descriptor import readable
from sandbox.jail.census import children
from supervisor.model.judgement import UNSERVED
from tests.faultbox import Make, Scenario, await_true, finish, phase, stand_in

WRITER = "save(f'f{n}', 'x')\nif n == 1: wait()"


@contextmanager
def held_up(scenario: Scenario) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`up`, and a keeper whose preparer waits for what the attempt before has left behind: the lock
    of its lane is held."""
    up = scenario.up()
    scenario.await_entry("waits", "p")
    (first,) = scenario.attempts("p")
    with (scenario.lane("p") / "lock").open("rb") as lock:
        pidfd = os.pidfd_open(first["pid"])
        # Its server would have unlocked it a moment later.
        os.kill(first["pid"], signal.SIGKILL)
        assert readable(pidfd, 10)
        os.close(pidfd)
        fcntl.flock(lock, fcntl.LOCK_EX)
        await_true(lambda: len(scenario.attempts("p")) == 2, "another attempt")
        yield up, scenario.attempts("p")[1]["pid"]


@pytest.fixture
def scenario(make: Make) -> Scenario:
    return make(stand_in("a", WRITER) + phase("p", access="write", restarts=3, backoff_s=1))


@pytest.mark.parametrize("whom", ["keeper", "preparer"])
def test_one_dies_with_the_other_and_the_attempt_is_lost(scenario: Scenario, whom: str) -> None:
    with held_up(scenario) as (up, keeper):
        lane = [keeper, *children(keeper)]
        preparer = lane[2]
        pidfds = [os.pidfd_open(pid) for pid in lane]

        os.kill({"keeper": keeper, "preparer": preparer}[whom], signal.SIGKILL)
        gone = [readable(pidfd, 1) for pidfd in pidfds]

    code, said = finish(up)
    assert gone == [True, True, True]
    assert code == 0, said
    assert scenario.states("p") == ["lost", "lost", "completed"]
    assert scenario.attempts("p")[1]["reason"] == "its keeper died without an outcome"
    scenario.check_completed()


def test_lane_whose_server_dies_before_its_command_runs_is_lost(scenario: Scenario) -> None:
    with held_up(scenario) as (up, keeper):
        server = children(keeper)[0]
        pidfd = os.pidfd_open(server)
        os.kill(server, signal.SIGKILL)
        assert readable(pidfd, 10)

    code, said = finish(up)
    assert code == 0, said
    second = scenario.attempts("p")[1]
    assert (second["state"], second["reason"]) == ("lost", UNSERVED)
    scenario.check_completed()


@pytest.mark.parametrize("is_stopped", [False, True])
@pytest.mark.parametrize("options", [(), ("--now",)])
def test_lane_that_is_not_there_yet_is_ended_on_request(
    scenario: Scenario, options: tuple[str, ...], is_stopped: bool
) -> None:
    with held_up(scenario) as (up, keeper):
        if is_stopped:
            os.kill(children(keeper)[1], signal.SIGSTOP)
        done = scenario.run("down", *options)

    assert done.returncode == 0, done.stderr
    finish(up)
    (_, second) = scenario.attempts("p")
    assert (second["state"], second["reason"]) == (
        "revoked",
        "ended on request, before its command ran",
    )
    scenario.check()
    scenario.check_gone()


@pytest.mark.parametrize("role", ["keeper", "preparer"])
def test_one_that_was_stopped_before_it_claimed_anything_is_ended_on_request(
    make: Make, role: str
) -> None:
    scenario = make(
        stand_in("a", "wait()") + phase("first") + phase("second", depends_on=["first"])
    )
    up = scenario.up()
    scenario.await_entry("waits", "first")
    (template,) = children(up.pid)
    lane = scenario.attempts("first")[0]["pid"]

    def spares() -> list[int]:
        return [pid for pid in children(template) if pid != lane and len(children(pid)) == 2]

    await_true(spares, "a spare keeper")
    (keeper,) = spares()
    os.kill(keeper if role == "keeper" else children(keeper)[1], signal.SIGSTOP)
    scenario.release("first")
    await_true(lambda: scenario.states("first") == ["completed"], "the end of the first")

    # `up` has given its order to the one that is stopped.
    time.sleep(0.5)
    done = scenario.run("down")

    assert done.returncode == 0, done.stderr
    finish(up)
    assert scenario.attempts("second") == []
    scenario.check_gone()


# Asked to end the moment that it has claimed.
ASKED = """
import os, signal, sys
from sandbox.probe import host
from supervisor.keeper import keeper
from supervisor.keeper.order import Order
from supervisor.keeper.withdrawal import heed

def ask(*_):
    os.kill(os.getpid(), signal.SIGTERM)

keeper.give_way = ask
state, top, sprint = sys.argv[1:]
order = Order(state=state, top=top, sprint=sprint, phase="p", n=1, agent="a")
heed()
print(keeper.keep(order, host.probe(state)).outcome.reason)
"""


def test_request_that_comes_with_the_claim_is_told_on_the_board(make: Make) -> None:
    scenario = make(stand_in("a", "") + phase("other") + phase("p"))
    assert scenario.run("run", "other", "--", "true").returncode == 0
    sprint = scenario.sprint()["id"]

    command = [sys.executable, "-P", "-c", ASKED, str(scenario.board), str(scenario.top), sprint]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.stdout.strip() == "ended on request, before its command ran", done.stderr
    assert scenario.states("p") == ["revoked"]


def test_keeper_that_has_no_room_for_what_it_is_given_says_so(scenario: Scenario) -> None:
    with held_up(scenario) as (up, keeper):
        limit = max(map(int, os.listdir(f"/proc/{keeper}/fd"))) + 6
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, (limit, limit))

    code, said = finish(up)
    assert code == 0, said
    assert scenario.states("p") == ["lost", "failed", "completed"]
    assert "Too many open files" in scenario.attempts("p")[1]["reason"]
    scenario.check_completed()


def test_what_hinders_the_preparation_is_told(make: Make) -> None:
    """It fails after the jail has begun, and before its command runs."""
    scenario = make(
        stand_in("a", "wait()") + phase("first") + phase("second", depends_on=["first"], restarts=0)
    )
    up = scenario.up()
    scenario.await_entry("waits", "first")
    cache = scenario.board / "sprints" / scenario.sprint()["id"] / "git"
    cache.rename(cache.with_name("aside"))
    cache.write_text("in the way")

    scenario.release("first")
    finish(up)

    (second,) = scenario.attempts("second")
    assert second["state"] == "failed"
    assert "git" in second["reason"], second
    assert "fault in nanosup" not in second["reason"]
    assert not scenario.log("second").read_bytes()
    scenario.check_gone()
