"""A full disk under the board: nothing is lost or started, and all goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faultbox import Scenario, await_true, finish, phase, stand_in

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs, which takes root")

SIZE_BYTES = 24 << 20


class SmallDisk(Scenario):
    """A scenario whose board is on a small disk of its own."""

    def __init__(self, path: Path, toml: str) -> None:
        super().__init__(path / "repo", toml)
        self.disk = path / "disk"
        self.disk.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", self.disk], check=True
        )
        self.env["NANOSUP_STATE"] = str(self.disk / "state")

    @property
    def board(self) -> Path:
        return self.disk / "state"

    def fill(self) -> None:
        with (self.disk / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass

    def empty(self) -> None:
        (self.disk / "ballast").unlink()

    def close(self) -> None:
        super().close()
        subprocess.run(["umount", "-l", self.disk], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[type[SmallDisk]]:
    made: list[SmallDisk] = []

    class Closing(SmallDisk):
        def __init__(self, toml: str) -> None:
            super().__init__(tmp_path, toml)
            made.append(self)

    yield Closing
    for disk in made:
        disk.close()


def test_running_lane_goes_on_nothing_new_starts_and_all_resumes_by_itself(
    small: type[SmallDisk],
) -> None:
    disk = small(
        stand_in("a", "save('f', 'x'); say('one'); wait()")
        + stand_in("b", "say('b')")
        + phase("p", access="write", agents=["a"], restarts=0)
        + phase("q", depends_on=["p"], agents=["b"], restarts=0)
    )
    up = disk.up()
    disk.await_entry("waits", "p")
    disk.fill()
    status = disk.json("status")
    assert status["disk"]["full"]
    assert "disk full" in disk.run("status").stdout

    disk.release("p")
    await_true(lambda: not disk.jailed(), "the agent's end")
    assert disk.states("p") == ["running"]  # its outcome waits for room
    assert disk.run("artifacts", "verify").returncode == 0  # the board is in order
    disk.empty()
    code, said = finish(up)

    assert code == 0, said
    assert disk.states("p") == ["completed"]
    assert disk.states("q") == ["completed"]
    assert not disk.json("status")["disk"]["full"]
    disk.check_completed()


def test_agent_that_fills_the_disk_burns_no_restart(small: type[SmallDisk]) -> None:
    script = (
        "if n == 1:\n  fd = os.open(outputs + '/big', os.O_WRONLY | os.O_CREAT)\n"
        "  while True: os.write(fd, b'x' * 65536)\n"
    )
    disk = small(stand_in("a", script) + phase("p", restarts=0))
    up = disk.up()
    disk.await_entry("starts", "p")
    await_true(lambda: not disk.jailed(), "the agent's end")
    time.sleep(1)  # the disk stays full for a while; there is no room to say anything in
    assert up.poll() is None
    assert disk.states("p") == ["running"]  # there is no room for its outcome

    (disk.lane("p") / "outputs/big").unlink()
    code, said = finish(up)

    assert code == 0, said
    first = disk.attempts("p")[0]
    assert (first["state"], first["trouble"]) == ("failed", "no_space")
    assert disk.states("p") == ["failed", "completed"]
    disk.check_completed()


def test_sprint_that_cannot_begin_says_so_and_leaves_the_board_as_it_was(
    small: type[SmallDisk],
) -> None:
    disk = small(stand_in("a", "say('x')") + phase("p"))
    disk.fill()

    done = disk.run("up", "--plain")

    assert done.returncode == 20, done.stderr
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert disk.sprints() == []
    disk.empty()
    assert disk.run("up", "--plain").returncode == 0
    disk.check_completed()
