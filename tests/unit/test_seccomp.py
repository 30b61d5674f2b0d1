"""The filter program, run by an interpreter of classic BPF (what the kernel would answer)."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.jail import seccomp
from sandbox.jail.seccomp import ALLOW, KILL_PROCESS, MACHINES, NUMBERS, RULES, assemble, number_of

ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386, ARM = 0x40000003, 0x40000028
X32 = 0x40000000
INSTRUCTION = struct.Struct("=HBBI")

CLONE_VM, CLONE_THREAD, CLONE_NEWUSER, CLONE_NEWNS = 0x100, 0x10000, 0x10000000, 0x20000
TIOCSTI, TCGETS = 0x5412, 0x5401


def answer(program: bytes, number: int, *args: int, architecture: int) -> int:
    """Runs `program` on one system call (seccomp(2), struct seccomp_data)."""
    filled = [*args, *([0] * (6 - len(args)))]
    data = struct.pack(
        "=iIQ6Q", number - (1 << 32 if number >> 31 else 0), architecture, 0, *filled
    )
    code = list(INSTRUCTION.iter_unpack(program))
    position, accumulator = 0, 0
    while True:
        operation, then, otherwise, k = code[position]
        position += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x15:
                position += then if accumulator == k else otherwise
            case 0x25:
                position += then if accumulator > k else otherwise
            case 0x45:
                position += then if accumulator & k else otherwise
            case 0x06:
                return k
            case _:
                raise AssertionError(f"instruction {operation:#x} is not expected")


def ask(machine: str, name: str, *args: int) -> int:
    number = number_of(name, machine)
    assert number is not None
    return answer(assemble(machine), number, *args, architecture=ARCHITECTURE[machine])


def refused(code: int) -> int:
    return 0x50000 | code


@pytest.fixture(params=sorted(MACHINES))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_rule_without_a_condition_denies_its_call(machine: str) -> None:
    for rule in RULES:
        if rule.match is None and number_of(rule.name, machine) is not None:
            assert ask(machine, rule.name, 1, 2, 3) == refused(rule.error), rule.name


@given(number=st.integers(0, 469), argument=st.integers(0, 2**64 - 1))
def test_calls_that_no_rule_names_are_allowed(number: int, argument: int) -> None:
    for machine in MACHINES:
        if number not in {number_of(name, machine) for name in NUMBERS}:
            program = assemble(machine)
            architecture = ARCHITECTURE[machine]
            assert answer(program, number, argument, architecture=architecture) == ALLOW


@given(number=st.integers(470, 2**32 - 1))
def test_calls_newer_than_the_list_are_unknown(number: int) -> None:
    for machine, architecture in ARCHITECTURE.items():
        assert answer(assemble(machine), number, architecture=architecture) == refused(errno.ENOSYS)


@pytest.mark.parametrize("architecture", [I386, ARM, 0])
def test_programs_of_another_architecture_are_killed(machine: str, architecture: int) -> None:
    assert answer(assemble(machine), 0, architecture=architecture) == KILL_PROCESS


def test_x32_calls_are_unknown() -> None:
    got = answer(assemble("x86_64"), X32 | 101, architecture=ARCHITECTURE["x86_64"])

    assert got == refused(errno.ENOSYS)


def test_threads_and_forks_are_allowed_and_namespaces_are_not(machine: str) -> None:
    assert ask(machine, "clone", CLONE_VM | CLONE_THREAD) == ALLOW
    assert ask(machine, "clone", 17) == ALLOW
    assert ask(machine, "clone", 17 | CLONE_NEWUSER) == refused(errno.EPERM)
    assert ask(machine, "unshare", CLONE_NEWNS) == refused(errno.EPERM)
    assert ask(machine, "unshare", 0x80) == refused(errno.EPERM)
    assert ask(machine, "unshare", 0x400) == ALLOW
    assert ask(machine, "clone3") == refused(errno.ENOSYS)


@given(above=st.integers(0, 2**32 - 1))
def test_bits_that_the_kernel_ignores_do_not_let_an_ioctl_through(above: int) -> None:
    for machine in MACHINES:
        assert ask(machine, "ioctl", 0, above << 32 | TIOCSTI) == refused(errno.EPERM)
        assert ask(machine, "ioctl", 0, above << 32 | TCGETS) == ALLOW


def test_files_can_be_locked_and_not_leased(machine: str) -> None:
    assert ask(machine, "fcntl", 3, 1024, 0) == refused(errno.EPERM)  # F_SETLEASE
    for command in (2, 6, 1025, 1030):  # F_SETFD, F_SETLK, F_GETLEASE, F_DUPFD_CLOEXEC
        assert ask(machine, "fcntl", 3, command) == ALLOW


@pytest.mark.parametrize("family", [1, 2, 10, 16])
def test_ordinary_socket_families_are_allowed(machine: str, family: int) -> None:
    assert ask(machine, "socket", family) == ALLOW


@pytest.mark.parametrize("family", [17, 38, 40, 44])  # packet, alg, vsock, xdp
def test_other_socket_families_are_not(machine: str, family: int) -> None:
    assert ask(machine, "socket", family) == refused(errno.EAFNOSUPPORT)


def test_a_personality_may_be_asked_for_but_memory_may_not_be_made_executable(machine: str) -> None:
    assert ask(machine, "personality", 0xFFFFFFFF) == ALLOW
    assert ask(machine, "personality", 0x40000) == ALLOW
    assert ask(machine, "personality", 0x400000) == refused(errno.EPERM)  # READ_IMPLIES_EXEC
    assert ask(machine, "personality", 0x100000) == refused(errno.EPERM)  # MMAP_PAGE_ZERO


def test_programs_are_within_the_kernels_limit(machine: str) -> None:
    assert len(assemble(machine)) // INSTRUCTION.size <= 4096


@pytest.mark.parametrize(
    ("header", "column"),
    [("x86_64-linux-gnu/asm/unistd_64.h", 0), ("asm-generic/unistd.h", 1)],
)
def test_numbers_are_those_of_the_kernels_headers(header: str, column: int) -> None:
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    pattern = re.compile(r"#define __NR_(?:3264_)?(\w+)\s+(\d+)$")
    lines = map(pattern.match, path.read_text().splitlines())
    known = {match[1]: int(match[2]) for match in lines if match}
    ours = {name: numbers[column] for name, numbers in NUMBERS.items() if name in known}

    assert len(ours) > 40
    assert ours == {name: known[name] for name in ours}


def test_names_in_rules_are_unique() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES) == len(seccomp.NUMBERS)
