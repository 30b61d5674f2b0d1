"""Stopping a tree of processes that forks all the time, and letting it go on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.jail import census, freezer
from sandbox.jail.freezer import Freezer, Means


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A shell that starts one process after the other, and the file that grows meanwhile."""
    log = tmp_path / "log"
    script = f"while :; do echo x >> {log}; /bin/true; done"
    process = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    try:
        await_growth(log)
        yield process.pid, log
    finally:
        process.kill()
        process.wait()


def await_growth(log: Path) -> None:
    before = log.stat().st_size if log.exists() else 0
    deadline = time.monotonic() + 20
    while not log.exists() or log.stat().st_size <= before:
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.001)


@pytest.mark.parametrize("means", list(Means))
def test_frozen_is_frozen_until_thawed(
    busy: tuple[int, Path], means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, log = busy
    if means is Means.SIGNAL:
        monkeypatch.setattr(freezer, "_make_cgroup", lambda pid: None)
    held = Freezer(lambda: census.descend(pid))

    found = held.freeze()
    if found is not means:
        held.thaw()
        held.close()
        pytest.skip(f"no cgroup v2 can be made here: {found}")
    size = log.stat().st_size
    time.sleep(0.2)  # a while in which it would have grown

    assert log.stat().st_size == size
    held.thaw()
    await_growth(log)
    held.close()


@pytest.mark.parametrize("means", list(Means))
def test_frozen_still_dies_of_sigkill(
    busy: tuple[int, Path], means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, _ = busy
    if means is Means.SIGNAL:
        monkeypatch.setattr(freezer, "_make_cgroup", lambda pid: None)
    held = Freezer(lambda: census.descend(pid))
    held.freeze()

    for process in tuple(census.descend(pid)):
        os.kill(process.pid, 9)

    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == 9
    held.close()


def test_none_of_many_children_is_overlooked() -> None:
    """Their list is longer than a page."""
    script = (
        "import os, signal, sys\n"
        "for _ in range(1500):\n"
        "    if os.fork() == 0: signal.pause()\n"
        "print(flush=True); sys.stdin.read(); os.killpg(0, signal.SIGKILL)"
    )
    command = ["python3", "-S", "-E", "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        found = census.children(parent.pid)
        parent.communicate()

    assert len(found) == 1500
