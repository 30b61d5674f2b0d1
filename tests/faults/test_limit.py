"""What `nanosup up` itself may be short of, and what it must not use up."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faultbox import Make, Scenario, await_true, finish, phase, stand_in
from tests.fleetbox import NANOSUP


def limit(pid: int, kind: int, soft: int) -> None:
    resource.prlimit(pid, kind, (soft, resource.prlimit(pid, kind)[1]))


def template_of(scenario: Scenario, up: int) -> int:
    (pid,) = (
        pid
        for pid in scenario.processes()
        if b"supervisor.fleet.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
        and parent(pid) == up
    )
    return pid


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def usage(pid: int) -> dict[str, int]:
    """What a process holds."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
        "zombies": sum(is_zombie(int(child)) for child in children),
        "kilobytes": int(status["VmRSS"].split()[0]),
        "sleeps": int(status["voluntary_ctxt_switches"]),
    }


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return False


def test_out_of_descriptors_it_waits_and_goes_on_when_there_are_some(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p") + phase("q", depends_on=["p"]))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    enough = resource.prlimit(up.pid, resource.RLIMIT_NOFILE)[0]

    limit(up.pid, resource.RLIMIT_NOFILE, len(os.listdir(f"/proc/{up.pid}/fd")) - 2)
    scenario.release("p")
    await_true(lambda: scenario.states("p") == ["completed"], "p, which needs no `up`")
    with pytest.raises(AssertionError):
        await_true(lambda: up.poll() is not None, "an end of `up`", patience_s=1.5)
    limit(up.pid, resource.RLIMIT_NOFILE, enough)
    scenario.release("q")

    code, said = finish(up)
    assert code == 0, said
    scenario.check_completed()


def test_where_nothing_can_be_forked_it_waits_and_burns_no_restart(make: Make) -> None:
    # There may be a spare keeper already: one of the two has to be forked.
    after = {"depends_on": ["p"], "restarts": 0}
    scenario = make(
        stand_in("a", "wait()") + phase("p") + phase("q", **after) + phase("r", **after)
    )
    # A limit of processes (ulimit -u) is none for root, so fork(2) is made to say what it would.
    with scenario.doomed("template", 0):
        scenario.env["NANOSUP_TEST_NO_FORK"] = str(scenario.top.parent / "no-fork")
        up = scenario.up()
        scenario.await_entry("waits", "p")

    (scenario.top.parent / "no-fork").touch()
    scenario.release("p")
    await_true(lambda: any(e["event"] == "up.waits" for e in scenario.journal()), "it to say so")
    (scenario.top.parent / "no-fork").unlink()
    scenario.release("q")
    scenario.release("r")

    code, said = finish(up)
    assert code == 0, said
    assert "Resource temporarily unavailable" in said
    assert scenario.states("q") == scenario.states("r") == ["completed"]
    scenario.check_completed()


@pytest.mark.parametrize("times", [30, pytest.param(10_000, marks=pytest.mark.long)])
@pytest.mark.timeout(7200)
def test_restarts_leave_nothing_behind_in_up(make: Make, times: int) -> None:
    scenario = make(
        "[workspace]\nmax_lanes = 2\n"
        + stand_in("a", "sys.exit(1)") + stand_in("b", "wait()")
        + phase("p", agents=["a"], restarts=times, backoff_s=0) + phase("q", agents=["b"])
    )  # fmt: skip
    up = scenario.up()
    await_true(lambda: scenario.sprints(), "the sprint")
    attempts = scenario.lane("p").parent.parent

    def await_attempts(number: int) -> None:
        # Neither asks nanosup, which would read thousands of them each time.
        await_true(
            lambda: (time.sleep(times / 10_000), (attempts / f"{number:04d}").exists())[1],
            f"attempt {number}", patience_s=7200,
        )  # fmt: skip

    await_attempts(1 + times // 3)
    template = template_of(scenario, up.pid)
    before = {pid: usage(pid) for pid in (up.pid, template)}

    await_attempts(1 + times)

    for pid, was in before.items():
        # For a moment it has more: it looks whether there is room for those of a lane.
        most = was["descriptors"] + 3
        await_true(lambda p=pid, most=most: usage(p)["descriptors"] <= most, f"{most} descriptors")
        now = usage(pid)
        assert now["threads"] == was["threads"]
        assert now["zombies"] <= 1
        # The history that the policy goes by: below two kilobytes for each attempt.
        assert now["kilobytes"] <= was["kilobytes"] + 2048 + 2 * times
    scenario.run("down", "--now")
    finish(up)
    scenario.check_gone()


@pytest.mark.parametrize(
    ("lanes", "seconds"), [(3, 3.0), pytest.param(100, 10.0, marks=pytest.mark.long)]
)
def test_idle_lanes_wake_up_nobody(make: Make, lanes: int, seconds: float) -> None:
    scenario = make(
        f"[workspace]\nmax_lanes = {lanes}\n" + stand_in("a", "say('x')\nsignal.pause()")
        + "".join(phase(f"p{n}") for n in range(lanes))
    )  # fmt: skip
    up = scenario.up()
    for n in range(lanes):
        scenario.await_entry("said", f"p{n}")
    pids = {up.pid: "up", template_of(scenario, up.pid): "template"}
    pids |= {scenario.attempts(f"p{n}")[0]["pid"]: "keeper" for n in range(lanes)}
    time.sleep(1)  # what has just started has still to do
    before = {pid: usage(pid)["sleeps"] for pid in pids}
    time.sleep(seconds)  # how often they wake up meanwhile is what is measured

    woken = {pid: (usage(pid)["sleeps"] - was) / seconds for pid, was in before.items()}

    # Keepers show every few seconds how their lanes do; nobody polls.
    assert {who: rate for pid, who in pids.items() if (rate := woken[pid]) > 3} == {}
    assert scenario.run("down", "--now").returncode == 0
    finish(up)
    scenario.check_gone()


def test_lanes_start_where_nanosup_itself_may_have_fewer_processes_than_a_lane(make: Make) -> None:
    scenario = make(stand_in("a", "say('x')") + phase("p"))
    command = ["prlimit", "--nproc=2000:2000", NANOSUP, "up", "--plain"]

    done = subprocess.run(
        command, cwd=scenario.top, env=scenario.env, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr
    scenario.check_completed()


def test_out_of_descriptors_it_says_so_and_still_ends_when_asked_to(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p"))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    resource.prlimit(up.pid, resource.RLIMIT_NOFILE, (32, 32))
    os.kill(up.pid, signal.SIGCONT)
    assert scenario.run("restart", "p").returncode == 0  # something changes
    await_true(lambda: any(e["event"] == "up.waits" for e in scenario.journal()), "it to say so")

    up.send_signal(signal.SIGTERM)

    assert finish(up)[0] == 143
    scenario.check_gone()
