"""Attempts to get out of a jail, each with a look from outside at whether it got anywhere."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.jail.end import Exited, Signaled
from sandbox.jail.feature import Features
from tests.keep import Keeper, Who, keep
from tests.system.jailing import features as features
from tests.system.jailing import who as who

PYTHON = "/usr/bin/python3"
BOTH = pytest.mark.parametrize("filtered", [True, False], ids=["filtered", "unfiltered"])


def layered(features: Features, *, filtered: bool) -> Features:
    """Without the filter of system calls what is behind it has to hold alone."""
    return replace(features, seccomp=features.seccomp and filtered)


@pytest.fixture
def elevating() -> Iterator[Path]:
    """A program of the host that makes root of whoever runs it."""
    if os.getuid() != 0:
        pytest.skip("only root can make one")
    path = Path(f"/usr/local/lib/nanosup-test-{os.getpid()}")
    shutil.copy("/usr/bin/id", path)
    path.chmod(0o4755)
    yield path
    path.unlink()


def test_a_setuid_program_makes_nobody_root(who: Who, features: Features, elevating: Path) -> None:
    assert elevating.stat().st_mode & stat.S_ISUID
    _, out = keep(who, features, lambda kept: kept.run(str(elevating), "-u"))

    assert out.strip() != "0"


MOUNTS = """
mount -o remount,rw / ; mount -o remount,rw "$PWD" ; mount -o remount,bind,rw "$PWD"
umount "$PWD" ; umount -l "$PWD" ; umount /proc ; umount -l /run
mount -t tmpfs tmpfs "$PWD" ; mount --bind /tmp "$PWD" ; mount --move "$PWD" /tmp
mount -t proc proc /proc ; mount -t sysfs sysfs /sys ; mount -t overlay o -o lowerdir=/ /tmp
unshare -m true ; unshare -U true ; unshare -Urm sh -c 'mount -t tmpfs t /' ; unshare -p -f true
nsenter -t 1 -m true ; chroot / true ; pivot_root / /tmp ; mknod /tmp/sda b 8 0 ; swapoff -a
"""


@BOTH
def test_the_view_stays_as_it_was_mounted(who: Who, features: Features, *, filtered: bool) -> None:
    def act(kept: Keeper) -> tuple[str, str]:
        (kept.directory / "mnt" / "file").write_text("the view's")
        look = "cut -d' ' -f 3-6 /proc/self/mountinfo"
        script = f"{look} > /tmp/before; {MOUNTS} {look} > /tmp/after; cmp /tmp/before /tmp/after"
        script = f"({script}) 2>/dev/null && echo same; cat file; echo x > file"
        return kept.run("sh", "-c", script)[1], (kept.directory / "mnt" / "file").read_text()

    out, content = keep(who, layered(features, filtered=filtered), act)

    assert out.splitlines()[:1] == ["same"]
    assert "the view's" in out
    assert content == "the view's"


@BOTH
def test_signals_reach_nobody_outside(who: Who, features: Features, *, filtered: bool) -> None:
    script = """
import os, signal
for pid in (-1, 1, os.getppid(), *range(2, 400)):
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        if pid != os.getpid():
            try:
                os.kill(pid, number)
            except OSError:
                pass
print("done")
"""

    def act(kept: Keeper) -> tuple[object, object, str]:
        before = os.fstat(kept.log).st_size
        with kept.start(kept.spec("sleep", "1000")) as sibling:
            with kept.start(kept.spec(PYTHON, "-c", script)) as jailed:
                end = jailed.wait(30)
            alive = sibling.poll()
        return end, alive, os.pread(kept.log, 4096, before).decode()

    end, alive, out = keep(who, layered(features, filtered=filtered), act)

    assert (end, alive, out) == (Exited(0), None, "done\n")


TRACE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
    if pid == os.getpid():
        continue
    for how in (PTRACE_ATTACH, PTRACE_SEIZE):
        if libc.ptrace(how, pid, 0, 0) == 0:
            print("traced", pid)
    for name in ("mem", "environ"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                file.read(1)
            print("read", pid, name)
        except OSError:
            pass
"""


@BOTH
def test_the_jails_init_cannot_be_traced(who: Who, features: Features, *, filtered: bool) -> None:
    without = layered(features, filtered=filtered)
    end, out = keep(who, without, lambda kept: kept.run(PYTHON, "-c", TRACE))

    assert (end, out) == (Exited(0), "")


def test_another_jail_inside_of_this_one_cannot_be_built(who: Who, features: Features) -> None:
    command = ("bwrap", "--ro-bind", "/", "/", "--unshare-user", "true")
    end, out = keep(who, features, lambda kept: kept.run(*command))

    assert end == Exited(1)
    assert "bwrap: " in out


def test_a_command_that_kills_all_it_can_ends_its_own_lane_only(
    who: Who, features: Features
) -> None:
    """`kill -9 -1` from a child of the command: the command dies, the keeper reads how."""

    def act(kept: Keeper) -> object:
        receive, send = os.pipe()
        spec = kept.spec("sh", "-c", "read go; sh -c 'kill -9 -1'; read x")
        # Let go once its keeper has seen it: of who dies before, only the status is known.
        with os.fdopen(send, "wb", 0) as go, kept.start(spec, stdin=receive) as jailed:
            os.close(receive)
            go.write(b"\n")
            return jailed.wait(10)

    end = keep(who, features, act)

    assert end in (Signaled(signal.SIGKILL), Exited(137))


def test_the_entry_cannot_be_seen_or_reached_by_what_it_became(
    who: Who, features: Features
) -> None:
    script = "ls -l /proc/self/fd /proc/1/fd; readlink /proc/self/exe; cat /proc/self/maps"
    _, out = keep(who, features, lambda kept: kept.run("sh", "-c", script))

    assert "memfd" not in out
    assert "socket:" not in out
    assert "seccomp" not in out


def test_a_planted_linker_or_shell_is_not_what_the_entry_executes(
    who: Who, features: Features
) -> None:
    """PATH is searched as execvp(3) does, by the lane's PATH, and the loader is the host's."""

    def act(kept: Keeper) -> str:
        planted = kept.directory / "mnt" / "true"
        planted.write_text("#!/bin/sh\necho planted\n")
        planted.chmod(0o755)
        return kept.run("true")[1]

    assert keep(who, features, act) == ""
