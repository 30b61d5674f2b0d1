"""Programs that are put together from system calls, executed."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
from pathlib import Path

import pytest

from sandbox.jail.elf import (
    FAILED,
    MACHINES,
    PID,
    REPORT,
    Call,
    Constant,
    Exec,
    Fork,
    Put,
    Slot,
    Step,
    program,
)

MACHINE = platform.machine()
pytestmark = pytest.mark.skipif(MACHINE not in MACHINES, reason=f"no encodings for {MACHINE}")

WRITE = {"x86_64": 1, "aarch64": 64}.get(MACHINE, 0)
NOWHERE = 999  # a descriptor that is not open
CLONE_THREAD_ALONE = 0x1_0000  # without what it needs (clone(2))


class Ran:
    """How a program ended, what it printed, and what it reported."""

    def __init__(self, path: Path, *steps: Step, arguments: tuple[str, ...] = ()) -> None:
        receive, send = os.pipe()
        path.write_bytes(program(MACHINE, steps, report_fd=send))
        path.chmod(0o755)
        env = {"NAME": "value"}
        done = subprocess.run([path, *arguments], capture_output=True, pass_fds=[send], env=env)
        os.close(send)
        with open(receive, "rb") as reports:
            self.reports = list(REPORT.iter_unpack(reports.read()))
        self.status, self.out = done.returncode, done.stdout.decode()


def written(text: str) -> Call:
    return Call(WRITE, (1, Constant(text.encode()), len(text.encode())))


def test_steps_are_carried_out_in_their_order(tmp_path: Path) -> None:
    ran = Ran(tmp_path / "p", written("one "), written("two "), written("one "))

    assert (ran.status, ran.out, ran.reports) == (FAILED, "one two one ", [])


def test_what_a_call_returns_can_be_given_to_the_next(tmp_path: Path) -> None:
    text = Constant(b"12345678")
    first = Call(WRITE, (1, text, 3), into=31)
    ran = Ran(tmp_path / "p", first, Call(WRITE, (1, text, Slot(31))))

    assert ran.out == "123123"


def test_a_slot_can_be_pointed_to(tmp_path: Path) -> None:
    ran = Ran(
        tmp_path / "p",
        Put(7, int.from_bytes(b"of eight", "little")),
        Call(WRITE, (1, Slot(7, address=True), 8)),
    )

    assert ran.out == "of eight"


def test_a_step_that_fails_is_reported_and_the_last(tmp_path: Path) -> None:
    wrong = Call(WRITE, (NOWHERE, Constant(b"x"), 1))
    ran = Ran(tmp_path / "p", written("a"), wrong, written("b"))

    assert (ran.status, ran.out, ran.reports) == (FAILED, "a", [(2, 9)])


def test_a_step_that_may_fail_is_not_reported(tmp_path: Path) -> None:
    wrong = Call(WRITE, (NOWHERE, Constant(b"x"), 1), may_fail=True)
    ran = Ran(tmp_path / "p", wrong, written("b"))

    assert (ran.out, ran.reports) == ("b", [])


def test_the_command_gets_arguments_and_environment(tmp_path: Path) -> None:
    script = 'echo "$0,$1,$NAME"; exit 7'
    ran = Ran(tmp_path / "p", Exec(b"/bin/sh"), arguments=("sh", "-c", script, "me", "you"))

    assert (ran.status, ran.out, ran.reports) == (7, "me,you,value\n", [])


def test_every_place_that_a_command_is_not_at_is_reported(tmp_path: Path) -> None:
    places = (b"/nowhere/echo", b"/etc/passwd", b"/usr")
    ran = Ran(tmp_path / "p", *map(Exec, places), arguments=("echo",))

    assert (ran.status, ran.reports) == (FAILED, [(1, 2), (2, 13), (3, 13)])


def test_what_is_no_program_is_for_the_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $0 $@")
    script.chmod(0o755)
    ran = Ran(tmp_path / "p", Exec(os.fsencode(script)), arguments=("script", "a", "b"))

    assert (ran.status, ran.out) == (0, f"{script} a b\n")


def test_a_fork_goes_on_in_the_child_and_tells_its_pid(tmp_path: Path) -> None:
    clone = {"x86_64": 56, "aarch64": 220}[MACHINE]
    receive, send = os.pipe()
    path = tmp_path / "p"
    steps = (Fork(clone, signal.SIGCHLD, send), written("child"))
    path.write_bytes(program(MACHINE, steps, report_fd=2))
    path.chmod(0o755)

    done = subprocess.run([path], capture_output=True, pass_fds=[send])
    os.close(send)
    with open(receive, "rb") as pids:
        told = pids.read()

    assert done.returncode == 0  # the parent's; what is read up to its end is the child's
    assert done.stdout == b"child"
    assert PID.unpack(told)[0] > 1


def test_a_fork_that_is_refused_is_reported(tmp_path: Path) -> None:
    clone = {"x86_64": 56, "aarch64": 220}[MACHINE]
    ran = Ran(tmp_path / "p", Fork(clone, CLONE_THREAD_ALONE, NOWHERE), written("b"))

    assert (ran.status, ran.out, ran.reports) == (FAILED, "", [(1, errno.EINVAL)])


@pytest.mark.parametrize(("returned", "out"), [(1, "a"), (2, "ab")])
def test_what_a_call_returns_can_be_the_end(tmp_path: Path, returned: int, out: str) -> None:
    first = Call(WRITE, (1, Constant(b"a"), 1), last=returned)
    ran = Ran(tmp_path / "p", first, written("b"))

    assert (ran.status, ran.out, ran.reports) == (FAILED, out, [])
