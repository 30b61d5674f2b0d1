from __future__ import annotations

import errno
import resource
from dataclasses import replace

import pytest

from sandbox.jail import elf
from sandbox.jail.entry import Entry, Failure, entry_of, has_begun, read_report, writable
from sandbox.jail.feature import Features
from sandbox.jail.jail import Bind, JailSpec, Mask

HOST = Features(bwrap="/usr/bin/bwrap", seccomp=True, landlock_abi=7)
PLAIN = JailSpec(argv=("cmd",), cwd="/", uid=1000, gid=1000, env={"PATH": "/one:/two::/one"})
READY, NOT_EXECUTED = elf.REPORT.pack(0, 0), elf.REPORT.pack(0, 1)


def names(spec: JailSpec = PLAIN, features: Features = HOST, **limits: int) -> tuple[str, ...]:
    kinds = {getattr(resource, f"RLIMIT_{kind}"): limit for kind, limit in limits.items()}
    return entry_of(spec, features, limits=kinds, filter_program=b"\6\0\0\0\0\0\xff\x7f").names


def report(*records: tuple[int, int]) -> bytes:
    return b"".join(elf.REPORT.pack(*record) for record in records)


def test_only_what_the_mounts_leave_writable_is_writable() -> None:
    spec = replace(
        PLAIN,
        binds=(Bind("/a", "/home/u", writable=True), Bind("/b", "/home/u/p")),
        masks=(Mask("/tmp", writable=True), Mask("/run")),
    )

    assert writable(spec) == ("/tmp", "/home/u", "/dev/shm", "/dev/mqueue")


def test_the_filter_comes_last_before_the_command_which_is_looked_for_as_execvp_does() -> None:
    assert names()[-7:] == (
        "the filter of system calls",
        "report",
        "answer",
        "/one/cmd",
        "/two/cmd",
        "./cmd",
        "report",
    )


def test_a_command_with_a_slash_is_not_looked_for() -> None:
    assert names(replace(PLAIN, argv=("./cmd",)))[-4:] == ("report", "answer", "./cmd", "report")


def test_limits_are_set_first() -> None:
    assert names(NOFILE=64)[0] == f"limit {resource.RLIMIT_NOFILE} of 64"


@pytest.mark.parametrize("abi", [0, 1])
def test_there_are_no_rules_where_landlock_cannot_keep_them(abi: int) -> None:
    assert not any("landlock" in name for name in names(features=replace(HOST, landlock_abi=abi)))


ENTRY = Entry(b"", ("limit", "landlock: /tmp", "report", "/one/cmd", "/two/cmd", "report"))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (b"", None),
        (READY, None),
        (READY + report((4, errno.ENOENT)), None),
        (report((2, errno.EACCES)), Failure(False, errno.EACCES, "landlock: /tmp")),
        (
            READY + report((4, errno.ENOENT), (5, errno.ENOTDIR)) + NOT_EXECUTED,
            Failure(True, errno.ENOENT, ""),
        ),
        (
            READY + report((4, errno.EACCES), (5, errno.ENOENT)) + NOT_EXECUTED,
            Failure(True, errno.EACCES, ""),
        ),
        (READY + NOT_EXECUTED, Failure(True, errno.ENOENT, "")),
    ],
)
def test_reports_are_read_as_execvp_would_tell(told: bytes, expected: Failure | None) -> None:
    assert read_report(told, ENTRY) == expected


def test_an_entry_has_begun_when_it_says_so() -> None:
    assert has_begun(READY)
    assert not has_begun(report((2, errno.EACCES)))
    assert not has_begun(b"")


def test_a_program_is_made_for_either_machine() -> None:
    sizes = {
        len(entry_of(PLAIN, replace(HOST, machine=machine), limits={}, filter_program=None).program)
        for machine in elf.MACHINES
    }

    assert len(sizes) == 2
    assert max(sizes) < 16384
