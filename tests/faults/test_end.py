"""How agents end, and what they leave behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faultbox import Make, await_true, finish, phase, stand_in

DAEMON = """
def daemon(name):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sh", [name, "-c", "while :; do sleep 1; done"])
        os._exit(0)
    os.wait()
"""
ENDS = {
    # An agent's script, and its exit.
    "daemon": (DAEMON + "daemon('x'); time.sleep(0.3)", {"code": 0}),
    "closes": ("os.close(1); os.close(2); time.sleep(0.5); note('lived')", {"code": 0}),
    "holder": ("subprocess.Popen(['sleep', '1000']); say('x')", {"code": 0}),
    "words": ("os.write(2, b'w' * 160_000); os.kill(os.getpid(), signal.SIGABRT)", {"signal": 6}),
    # Not as fast as it can: some machines print more than a log may take.
    "chatter": (
        DAEMON + "daemon('x')\nwhile True: say('x' * 1000); time.sleep(0.0005)",
        {"signal": 15},
    ),
}


def test_nothing_that_an_agent_leaves_outlives_its_lane(make: Make) -> None:
    scenario = make(
        "[workspace]\nmax_lanes = 9\n\n"
        + "".join(stand_in(name, script) for name, (script, _) in ENDS.items())
        + "".join(phase(name, agents=[name], restarts=0, timeout_s=6) for name in ENDS)
    )

    finish(scenario.up())

    for name, (_, end) in ENDS.items():
        (attempt,) = scenario.attempts(name)
        assert (name, attempt["exit"]) == (name, end), attempt
    left = {e["phase"]: e["processes"] for e in scenario.journal() if e["event"] == "attempt.left"}
    assert {name.split()[0] for name in left["daemon"]} == {"sh", "sleep"}
    assert {name.split()[0] for name in left["holder"]} == {"sleep"}
    assert "chatter" in left  # its daemon was still there when TERM had ended it
    assert "closes" not in left
    assert scenario.log("words", name="stderr.log").stat().st_size == 160_000
    scenario.check()
    scenario.check_gone()


def test_agent_taken_by_the_oom_killer_is_recorded_as_such(make: Make) -> None:
    """In a memory cgroup of its own, as a container would have it."""
    group = Path("/sys/fs/cgroup/memory")
    if os.geteuid() != 0 or not os.access(group / "cgroup.procs", os.W_OK):
        pytest.skip("takes root and a memory cgroup (version 1) to put an agent into")
    group = group / f"nanosup-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(24 << 20))
        scenario = make(
            stand_in("a", "wait()\nif n == 1: x = b'x' * (256 << 20)")
            + phase("p", backoff_s=0, restarts=1)
        )
        up = scenario.up()
        scenario.await_entry("waits", "p")
        for pid in scenario.jailed():
            (group / "cgroup.procs").write_text(str(pid))
        scenario.release("p")
        scenario.release("p", 2)

        assert finish(up)[0] == 0
        first = scenario.attempts("p")[0]
        assert (first["state"], first["exit"]) == ("failed", {"signal": 9})
        assert first["trouble"] == "out_of_memory"
        assert "OOM killer" in first["reason"]
    finally:
        await_true(lambda: not (group / "cgroup.procs").read_text(), "an empty cgroup")
        group.rmdir()


def test_sigkill_from_outside_is_no_shortage_of_memory(make: Make) -> None:
    scenario = make(stand_in("a", "wait()") + phase("p", restarts=0))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    (agent,) = scenario.jailed()
    os.kill(agent, signal.SIGKILL)

    assert finish(up)[0] == 1
    (attempt,) = scenario.attempts("p")
    assert (attempt["exit"], attempt["trouble"]) == ({"signal": 9}, None)
    assert attempt["reason"] == "killed by SIGKILL"
