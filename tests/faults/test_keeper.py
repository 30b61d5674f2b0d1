"""SIGKILL of what keeps a lane: its keeper, and the server of its file system."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faultbox import Make, finish, phase, stand_in

# Writes all the time, and says what it wrote through; the next attempt has to find all of it.
WRITER = """
if n > 1:
    note("found", *sorted(f for f in os.listdir(".") if f.startswith("f")))
    sys.exit()
for i in range(20): save(f"f{i}", str(i) * 5000)
wait()
"""


def seconds_until_gone(pids: list[int], deadline_s: float = 10.0) -> float:
    """How long it takes until the last of these has ended."""
    began = time.monotonic()
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        left = deadline_s - (time.monotonic() - began)
        assert select.select([fd], [], [], max(left, 0))[0], "still there"
        os.close(fd)
    return time.monotonic() - began


def test_keeper_killed_under_a_writer(make: Make) -> None:
    scenario = make(stand_in("a", WRITER) + phase("p", access="write", backoff_s=0))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    first = scenario.json("status")["sprints"][-1]["phases"][0]["attempts"][0]
    lane = [first["child_pid"], first["server_pid"], *scenario.jailed()]

    os.kill(first["pid"], signal.SIGKILL)
    gone_s = seconds_until_gone(lane)
    code, said = finish(up)

    assert gone_s < 1
    assert code == 0, said
    assert scenario.states("p") == ["lost", "completed"]
    assert scenario.attempts("p")[0]["reason"] == "its keeper died without an outcome"
    (found,) = (e.words[1:] for e in scenario.ledger("p", 2) if e.words[0] == "found")
    assert set(found) == {f"f{i}" for i in range(20)}
    scenario.check_completed()


def test_server_killed_under_a_writer(make: Make) -> None:
    scenario = make(stand_in("a", WRITER) + phase("p", access="write", backoff_s=0))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    first = scenario.json("status")["sprints"][-1]["phases"][0]["attempts"][0]

    os.kill(first["server_pid"], signal.SIGKILL)
    gone_s = seconds_until_gone([first["child_pid"], first["pid"]])
    code, said = finish(up)

    assert gone_s < 2
    assert code == 0, said
    assert scenario.states("p") == ["lost", "completed"]
    assert "file system" in scenario.attempts("p")[0]["reason"]
    (found,) = (e.words[1:] for e in scenario.ledger("p", 2) if e.words[0] == "found")
    assert set(found) == {f"f{i}" for i in range(20)}
    scenario.check_completed()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts, which takes root")
def test_stale_mount_of_ours_is_removed_and_another_refused(make: Make) -> None:
    """As left by an nanosup of another kind, or by a person: a lane has its own namespace."""
    scenario = make(stand_in("a", "wait() if n == 1 else None") + phase("p", backoff_s=0))
    up = scenario.up()
    scenario.await_entry("waits", "p")
    place = scenario.lane("p") / "mnt"
    up.send_signal(signal.SIGTERM)
    finish(up)

    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
    subprocess.run(
        ["mount", "-i", "-t", "fuse.nanosup", "-o", options, "nanosup", place],
        check=True,
        pass_fds=[fuse],
    )
    # Nobody serves it, so whoever touches it waits for ever.
    assert scenario.run("status").returncode == 0
    done = scenario.run("up", "--plain")
    os.close(fuse)
    assert done.returncode == 0, done.stderr
    assert "removed a stale mount" in done.stderr
    assert str(place) not in Path("/proc/self/mountinfo").read_text()

    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        refused = scenario.run("up", "--plain")
    finally:
        subprocess.run(["umount", place], check=True)
    assert refused.returncode == 22
    assert str(place) in refused.stderr
