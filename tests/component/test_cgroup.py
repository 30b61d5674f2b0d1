"""Control groups: on this host where it has them, and on a likeness of a delegated version 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.errors import HostError
from sandbox.jail import cgroup
from sandbox.jail.cgroup import PREFIX, Hierarchy


@pytest.fixture
def hierarchy() -> Hierarchy:
    found = cgroup.find()
    if found is None or "pids" not in found.places:
        pytest.skip("no control group with pids can be made here")
    return found


NAME = f"test.{os.getpid()}"


def test_a_group_limits_who_enters_it(hierarchy: Hierarchy) -> None:
    script = """
import os, sys
for fd in sys.argv[1:]:
    os.write(int(fd), b"0")
count = 0
try:
    while True:
        if os.fork() == 0:
            os.read(0, 1)
            os._exit(0)
        count += 1
except BlockingIOError:
    print(count)
"""
    hold, release = os.pipe()
    with cgroup.made(hierarchy, NAME, [("pids", "pids.max", "5")]) as group:
        assert group is not None
        command = [sys.executable, "-c", script, *map(str, group.fds)]
        done = subprocess.Popen(command, stdin=hold, stdout=subprocess.PIPE, pass_fds=group.fds)
        os.close(hold)
        assert done.stdout is not None
        with done.stdout:
            said = done.stdout.readline()
            os.close(release)  # all of them end
            done.wait()
            done.stdout.read()

    assert said == b"4\n"


def test_a_group_is_removed_when_it_is_done_with(hierarchy: Hierarchy) -> None:
    with cgroup.made(hierarchy, NAME, [("pids", "pids.max", "5")]) as group:
        assert group is not None
        (directory,) = group.directories
        assert Path(directory, "pids.max").read_text() == "5\n"

    assert not Path(directory).exists()


def test_what_a_killed_keeper_left_is_removed_by_the_next(hierarchy: Hierarchy) -> None:
    left = Path(hierarchy.places["pids"], f"{PREFIX}left.{os.getpid()}")
    left.mkdir()
    with cgroup.made(hierarchy, NAME, [("pids", "pids.max", "5")]):
        assert not left.exists()


def test_a_group_that_is_in_use_is_not_removed_though_it_is_empty(hierarchy: Hierarchy) -> None:
    settings = [("pids", "pids.max", "5")]
    with (
        cgroup.made(hierarchy, NAME, settings) as first,
        cgroup.made(hierarchy, f"{NAME}.other", settings),
    ):
        assert first is not None
        assert Path(first.directories[0]).exists()


def test_a_group_that_is_just_being_made_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker takes the lock and looks whether it is still there."""
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    locked: list[bool] = []

    def remove(directory: str) -> None:
        with_lock = subprocess.run(["flock", "--nonblock", directory, "true"])
        locked.append(with_lock.returncode != 0)

    monkeypatch.setattr(cgroup, "_remove", remove)
    place = {"pids": str(tmp_path)}
    (tmp_path / f"{PREFIX}x").mkdir()  # ends it early: this is about what comes before
    with pytest.raises(HostError), cgroup.made(Hierarchy(1, place), "x", [("pids", "a", "5")]):
        pass

    assert locked
    assert all(locked)


def test_a_setting_that_is_refused_is_an_error(hierarchy: Hierarchy) -> None:
    with (
        pytest.raises(HostError, match=r"pids\.max"),
        cgroup.made(hierarchy, NAME, [("pids", "pids.max", "nonsense")]),
    ):
        pass
    assert not Path(hierarchy.places["pids"], f"{PREFIX}{NAME}").exists()


def delegated(tmp_path: Path, *, own: str) -> Path:
    """A likeness of /proc/self and of a mounted hierarchy of version 2."""
    mounted = tmp_path / "cgroup"
    place = mounted / own.lstrip("/")
    place.mkdir(parents=True)
    (place / "cgroup.controllers").write_text("cpu memory pids io\n")
    (place / "cgroup.subtree_control").write_text("")
    (place / "cgroup.procs").write_text("")
    (place / "cgroup.type").write_text("domain\n")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(f"0::{own}\n")
    (proc / "mountinfo").write_text(f"30 23 0:26 / {mounted} rw - cgroup2 cgroup2 rw\n")
    return place


def test_a_delegated_group_of_version_2_is_found(tmp_path: Path) -> None:
    place = delegated(tmp_path, own="/user.slice/a.scope")
    found = cgroup.find(str(tmp_path / "proc"))

    assert found == Hierarchy(2, dict.fromkeys(("memory", "pids", "cpu"), str(place)))


def test_a_group_that_is_divided_already_is_found_from_below(tmp_path: Path) -> None:
    place = delegated(tmp_path, own="/a.scope")
    (place / "nanosup-keepers").mkdir()
    (tmp_path / "proc/cgroup").write_text("0::/a.scope/nanosup-keepers\n")

    found = cgroup.find(str(tmp_path / "proc"))

    assert found is not None
    assert set(found.places.values()) == {str(place)}


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_group_that_is_not_delegated_is_not_found(tmp_path: Path) -> None:
    place = delegated(tmp_path, own="/a.scope")
    (place / "cgroup.subtree_control").chmod(0o444)

    assert cgroup.find(str(tmp_path / "proc")) is None


def test_processes_move_down_before_their_group_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No internal processes: with any in it, memory cannot be handed on (EBUSY), and what can be
    makes of it a threaded group, with nothing below that a process could enter."""
    place = delegated(tmp_path, own="/a.scope")
    procs, control = place / "cgroup.procs", place / "cgroup.subtree_control"
    procs.write_text("11\n12\n")
    (place / "nanosup-keepers").mkdir()
    (place / "nanosup-keepers/cgroup.procs").write_text("")
    moved: list[str] = []

    def write(path: str, text: str) -> None:
        if path == str(control) and procs.read_text():
            (place / "cgroup.type").write_text("domain threaded\n")
        if path.endswith("nanosup-keepers/cgroup.procs"):
            moved.append(text)
            procs.write_text("".join(f"{pid}\n" for pid in ("11", "12") if pid not in moved))
            return
        Path(path).write_text(text)
        if Path(path).parent != place:
            (Path(path).parent / "cgroup.procs").touch()

    monkeypatch.setattr(cgroup, "_write", write)
    with cgroup.made(Hierarchy(2, {"pids": str(place)}), "x", [("pids", "pids.max", "5")]) as made:
        assert made is not None
        assert moved == ["11", "12"]
        assert control.read_text() == "+pids"
        assert (place / "cgroup.type").read_text() == "domain\n"
        assert (place / f"{PREFIX}x/pids.max").read_text() == "5"
