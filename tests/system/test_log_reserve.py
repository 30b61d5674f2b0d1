"""Blocks behind the end of a log: an agent may take some, for as long as it runs, within `disk`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.syscalls import FALLOC_FL_KEEP_SIZE, fallocate
from supervisor.keeper.log import Log, open_log, reserved_bytes
from tests.fleetbox import Fleet, phase

RESERVE = """
import ctypes, time
libc = ctypes.CDLL(None)
print("said", flush=True)
assert libc.fallocate(1, 1, ctypes.c_long(3 << 20), ctypes.c_long(64 << 20)) == 0
"""


def agent(name: str, script: str) -> str:
    return f"[agents.{name}]\ncommand = ['/usr/bin/python3', '-c', '''{script}''']\n"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(
        tmp_path / "repo",
        agent("ends", RESERVE)
        + agent("stays", RESERVE + "time.sleep(100)\n")
        + "limits = { disk = '16M' }\n\n"
        + phase("short", agents=["ends"], restarts=0)
        + phase("long", agents=["stays"], restarts=0),
    )
    yield made
    made.close()


def test_what_a_lane_has_reserved_counts_and_does_not_outlive_it(fleet: Fleet) -> None:
    fleet.run("up", "--plain")

    assert fleet.states("short") == ["completed"]
    (ended,) = fleet.attempts("long")
    assert ended["state"] == "failed"
    assert "disk" in ended["reason"]
    for name in ("short", "long"):
        log = fleet.lane(name).parent / "stdout.log"
        assert log.read_text() == "said\n"
        assert reserved_bytes(log.stat()) == 0


def test_what_is_printed_is_kept_when_the_rest_is_given_back(tmp_path: Path) -> None:
    path = str(tmp_path / "stdout.log")
    log = Log(path, open_log(path), 1 << 20)
    os.write(log.fd, b"x" * 5000)
    fallocate(log.fd, FALLOC_FL_KEEP_SIZE, 0, 8 << 20)
    assert reserved_bytes(os.fstat(log.fd)) > 7 << 20

    log.release()
    status = os.fstat(log.fd)
    assert status.st_blocks * 512 <= 8192
    assert Path(log.path).read_bytes() == b"x" * 5000
    os.close(log.fd)
