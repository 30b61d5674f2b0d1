"""Programs that are put together from system calls, executed."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
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
)
from sandbox.jail.encoding import program

NOWHERE = 999  # a descriptor that is not open
CLONE_THREAD_ALONE = 0x1_0000  # without what it needs (clone(2))


@dataclass(frozen=True)
class Machine:
    """Where programs are executed: here, or emulated (qemu-user passes system calls on)."""

    name: str
    emulator: tuple[str, ...] = ()
    write: int = field(init=False)
    clone: int = field(init=False)

    def __post_init__(self) -> None:
        write, clone = {"x86_64": (1, 56), "aarch64": (64, 220)}[self.name]
        object.__setattr__(self, "write", write)
        object.__setattr__(self, "clone", clone)

    def written(self, text: str) -> Call:
        return Call(self.write, (1, Constant(text.encode()), len(text.encode())))

    def run(
        self, path: Path, steps: Sequence[Step], *arguments: str, report_fd: int, fds: Sequence[int]
    ) -> subprocess.CompletedProcess[bytes]:
        path.write_bytes(program(self.name, steps, report_fd=report_fd))
        path.chmod(0o755)
        return subprocess.run(
            [*self.emulator, path, *arguments],
            capture_output=True,
            pass_fds=fds,
            env={"NAME": "value"},
        )


@pytest.fixture(params=sorted(MACHINES))
def machine(request: pytest.FixtureRequest) -> Machine:
    if request.param == platform.machine():
        return Machine(request.param)
    emulator = shutil.which(f"qemu-{request.param}-static") or shutil.which(f"qemu-{request.param}")
    if emulator is None:
        pytest.skip(f"neither is this {request.param}, nor is qemu-{request.param} here")
    return Machine(request.param, (emulator,))


class Ran:
    """How a program ended, what it printed, and what it reported."""

    def __init__(
        self, machine: Machine, path: Path, *steps: Step, arguments: tuple[str, ...] = ()
    ) -> None:
        receive, send = os.pipe()
        done = machine.run(path, steps, *arguments, report_fd=send, fds=[send])
        os.close(send)
        with open(receive, "rb") as reports:
            self.reports = list(REPORT.iter_unpack(reports.read()))
        self.status, self.out = done.returncode, done.stdout.decode()


def test_steps_are_carried_out_in_their_order(machine: Machine, tmp_path: Path) -> None:
    ran = Ran(
        machine,
        tmp_path / "p",
        machine.written("one "),
        machine.written("two "),
        machine.written("one "),
    )

    assert (ran.status, ran.out, ran.reports) == (FAILED, "one two one ", [])


def test_what_a_call_returns_can_be_given_to_the_next(machine: Machine, tmp_path: Path) -> None:
    text = Constant(b"12345678")
    first = Call(machine.write, (1, text, 3), into=31)
    ran = Ran(machine, tmp_path / "p", first, Call(machine.write, (1, text, Slot(31))))

    assert ran.out == "123123"


def test_a_slot_can_be_pointed_to(machine: Machine, tmp_path: Path) -> None:
    ran = Ran(
        machine,
        tmp_path / "p",
        Put(7, int.from_bytes(b"of eight", "little")),
        Call(machine.write, (1, Slot(7, address=True), 8)),
    )

    assert ran.out == "of eight"


def test_a_step_that_fails_is_reported_and_the_last(machine: Machine, tmp_path: Path) -> None:
    wrong = Call(machine.write, (NOWHERE, Constant(b"x"), 1))
    ran = Ran(machine, tmp_path / "p", machine.written("a"), wrong, machine.written("b"))

    assert (ran.status, ran.out, ran.reports) == (FAILED, "a", [(2, 9)])


def test_a_step_that_may_fail_is_not_reported(machine: Machine, tmp_path: Path) -> None:
    wrong = Call(machine.write, (NOWHERE, Constant(b"x"), 1), may_fail=True)
    ran = Ran(machine, tmp_path / "p", wrong, machine.written("b"))

    assert (ran.out, ran.reports) == ("b", [])


def test_the_command_gets_arguments_and_environment(machine: Machine, tmp_path: Path) -> None:
    script = 'echo "$0,$1,$NAME"; exit 7'
    ran = Ran(
        machine, tmp_path / "p", Exec(b"/bin/sh"), arguments=("sh", "-c", script, "me", "you")
    )

    assert (ran.status, ran.out, ran.reports) == (7, "me,you,value\n", [])


def test_every_place_that_a_command_is_not_at_is_reported(machine: Machine, tmp_path: Path) -> None:
    places = (b"/nowhere/echo", b"/etc/passwd", b"/usr")
    ran = Ran(machine, tmp_path / "p", *map(Exec, places), arguments=("echo",))

    assert (ran.status, ran.reports) == (FAILED, [(1, 2), (2, 13), (3, 13)])


def test_what_is_no_program_is_for_the_shell(machine: Machine, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $0 $@")
    script.chmod(0o755)
    ran = Ran(machine, tmp_path / "p", Exec(os.fsencode(script)), arguments=("script", "a", "b"))

    assert (ran.status, ran.out) == (0, f"{script} a b\n")


def test_a_fork_goes_on_in_the_child_and_tells_its_pid(machine: Machine, tmp_path: Path) -> None:
    receive, send = os.pipe()
    steps = (Fork(machine.clone, signal.SIGCHLD, send), machine.written("child"))

    done = machine.run(tmp_path / "p", steps, report_fd=2, fds=[send])
    os.close(send)
    with open(receive, "rb") as pids:
        told = pids.read()

    assert done.returncode == 0  # the parent's; what is read up to its end is the child's
    assert done.stdout == b"child"
    assert PID.unpack(told)[0] > 1


def test_a_fork_that_is_refused_is_reported(machine: Machine, tmp_path: Path) -> None:
    ran = Ran(
        machine,
        tmp_path / "p",
        Fork(machine.clone, CLONE_THREAD_ALONE, NOWHERE),
        machine.written("b"),
    )

    assert (ran.status, ran.out, ran.reports) == (FAILED, "", [(1, errno.EINVAL)])


@pytest.mark.parametrize(("returned", "out"), [(1, "a"), (2, "ab")])
def test_what_a_call_returns_can_be_the_end(
    machine: Machine, tmp_path: Path, returned: int, out: str
) -> None:
    first = Call(machine.write, (1, Constant(b"a"), 1), last=returned)
    ran = Ran(machine, tmp_path / "p", first, machine.written("b"))

    assert (ran.status, ran.out, ran.reports) == (FAILED, out, [])


def test_each_of_six_arguments_has_its_place(machine: Machine, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("0123456789")
    target.write_text("..........")
    copy = {"x86_64": 326, "aarch64": 285}[machine.name]  # copy_file_range(2)
    with source.open("rb") as read, target.open("r+b") as write:
        given = (read.fileno(), Slot(30, address=True), write.fileno(), Slot(31, address=True))
        steps = (Put(30, 3), Put(31, 5), Call(copy, (*given, 4, 0)), Call(copy, (*given, 1, -1)))
        receive, send = os.pipe()
        fds = [send, read.fileno(), write.fileno()]
        machine.run(tmp_path / "p", steps, report_fd=send, fds=fds)
        os.close(send)
    with open(receive, "rb") as reports:
        assert REPORT.unpack(reports.read()) == (4, errno.EINVAL)  # for its flags

    assert target.read_text() == ".....3456."
