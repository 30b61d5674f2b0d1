"""What a lane does that tries to use up its host, with limits: it ends, and the host is spared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.jail import cgroup
from tests.fleetbox import Fleet

TOML = """
[agents.run]
command = ["true"]

[[phase]]
name = "work"
access = "write"
network = "none"
limits = { memory = "300M", pids = 40, cpu = 1, disk = "12M", open_files = 64 }
"""

FORKS = """
import os, signal
children = []
try:
    while True:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except BlockingIOError:
    print("forked", len(children))
"""
OPENS = """
opened = []
try:
    while True:
        opened.append(open("/dev/null"))
except OSError as error:
    print("opened", len(opened), error.strerror)
"""
WRITES = """
import os
for place in (".", os.environ["HOME"]):
    total = 0
    try:
        with open(f"{place}/file", "wb", buffering=0) as file:
            while total < 100 << 20:
                total += file.write(bytes(1 << 20))
    except OSError as error:
        print(place == ".", total >> 20, error.strerror)
raise SystemExit(3)  # nothing is to be sealed
"""
INODES = """
count = 0
try:
    while count < 100_000:
        open(f"f{count}", "w").close()
        count += 1
except OSError as error:
    print("made", count, error.strerror)
raise SystemExit(3)  # nothing is to be sealed
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("limits") / "repo", TOML)
    yield made
    made.close()


def run(fleet: Fleet, script: str) -> tuple[int, str]:
    """A Python script in a new sprint's lane: its status, and what it printed."""
    goal = f"goal {os.urandom(4).hex()}"
    done = fleet.run("run", "work", "--goal", goal, "--", "/usr/bin/python3", "-c", script)
    return done.returncode, done.stdout


def test_a_fork_bomb_ends_at_its_limit(fleet: Fleet) -> None:
    status, out = run(fleet, FORKS)

    assert status == 0
    assert 30 <= int(out.split()[1]) <= 41


def test_descriptors_end_at_their_limit(fleet: Fleet) -> None:
    assert run(fleet, OPENS) == (0, "opened 61 Too many open files\n")


def test_a_full_lane_says_so_to_who_writes_and_its_home_holds_no_larger_file(fleet: Fleet) -> None:
    status, out = run(fleet, WRITES)

    assert status == 3
    assert out.splitlines() == ["True 11 No space left on device", "False 13 File too large"]


def test_inodes_end_as_well(fleet: Fleet) -> None:
    _, out = run(fleet, INODES)

    made, count, *why = out.split()
    assert made == "made"
    assert int(count) <= (12 << 20) // 4096
    assert " ".join(why) == "No space left on device"


def test_memory_ends_and_the_outcome_says_why(fleet: Fleet) -> None:
    hierarchy = cgroup.find()
    if hierarchy is None or "memory" not in hierarchy.places:
        pytest.skip("no control group with memory can be made here")
    status, _ = run(fleet, "x = bytearray(600 << 20)")

    assert status == 137
    assert "out of memory" in fleet.attempts("work")[-1]["reason"]


def test_shared_memory_is_the_lanes_memory(fleet: Fleet) -> None:
    _, out = run(fleet, "import os; s = os.statvfs('/dev/shm'); print(s.f_blocks * s.f_frsize)")

    assert int(out) == 150 << 20


def test_nothing_of_a_lane_is_left_among_control_groups(fleet: Fleet) -> None:
    run(fleet, "pass")
    hierarchy = cgroup.find()
    sprint = fleet.sprint()["id"]

    for place in hierarchy.places.values() if hierarchy else ():
        assert not list(Path(place).glob(f"*{sprint}*"))


def test_what_is_required_and_cannot_be_had_is_refused(fleet: Fleet) -> None:
    """Without namespaces there is no control group; the tier is chosen to be such a host's."""
    toml = TOML.replace("open_files = 64", 'required = ["cpu"]')
    fleet.configure(f'[workspace]\nmount = "landlock"\n{toml}')
    try:
        done = fleet.run("up", "--goal", "refused")
    finally:
        fleet.configure(TOML)

    assert done.returncode == 18
    assert "limits.cpu is required and cannot be enforced here" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
