"""What the probes say of hosts that lack something. Each poorer host is made around a child."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import syscalls
from sandbox.errors import HostError
from sandbox.jail import namespace
from sandbox.jail.feature import Features, Mechanism, Row
from sandbox.jail.seccomp import assemble
from sandbox.probe import host
from tests.keep import Keeper, Who, dwelling, keep
from tests.ordinary import ordinary_user, why_not

NOTHING = Features(bwrap="")


@pytest.fixture(scope="module")
def enforced() -> Features:
    found = host.probe()
    try:
        host.require(found)
    except HostError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    return found


@pytest.fixture
def root() -> object:
    if os.getuid() != 0:
        pytest.skip("not run as root")
    with dwelling("root", 0, 0) as who:
        yield who


@pytest.fixture
def user() -> object:
    if reason := why_not():
        pytest.skip(reason)
    with ordinary_user() as made, dwelling(made.name, made.uid, made.uid) as who:
        yield who


def on_poorer_host(who: Who, make_poorer: Callable[[], None]) -> Features:
    def act(_kept: Keeper) -> Features:
        make_poorer()
        return host.probe()

    return keep(who, NOTHING, act)


def required(features: Features) -> HostError:
    with pytest.raises(HostError) as caught:
        host.require(features)
    return caught.value


def test_this_host_has_what_is_needed_for_root_and_user_alike(
    root: Who, user: Who, enforced: Features
) -> None:
    for who in (root, user):
        found = on_poorer_host(who, lambda: None)
        host.require(found)
        assert [row.mechanism for row in found.rows if row.needed and not row.ok] == []


def test_probing_takes_as_long_as_starting_a_few_programs(
    enforced: Features, tmp_path: Path
) -> None:
    def seconds(act: Callable[[], object]) -> float:
        begun = time.monotonic()
        act()
        return time.monotonic() - begun

    start = [sys.executable, "-c", "import msgspec"]
    rounds = [
        (seconds(lambda: host.probe(str(tmp_path))), seconds(lambda: subprocess.run(start)))
        for _ in range(3)
    ]

    assert min(probe_s for probe_s, _ in rounds) < 8 * min(start_s for _, start_s in rounds)


def test_a_missing_fuse_device_is_noticed(root: Who, user: Who) -> None:
    for who in (root, user):
        found = on_poorer_host(who, lambda: syscalls.mount("none", "/dev", "tmpfs", 0))
        error = required(found)

        assert error.message == "there is no /dev/fuse"
        assert "--device /dev/fuse" in error.hint


def test_a_fuse_device_of_root_alone_is_noticed(user: Who, tmp_path: Path) -> None:
    barred = tmp_path / "fuse"
    barred.touch(0o600)

    pid_says = _in_child(
        lambda: (
            syscalls.unshare(syscalls.CLONE_NEWNS),
            syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE),
            syscalls.mount(str(barred), "/dev/fuse", None, syscalls.MS_BIND),
            os.setresuid(user.uid, user.uid, user.uid),
        ),
    )

    assert pid_says == "/dev/fuse may not be opened by this user|chmod 666 /dev/fuse"


def _in_child(prepare: Callable[[], object]) -> str:
    """What the FUSE probe says in a process that `prepare` has run in."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            row = host._fuse()
            os.write(send, f"{row.detail}|{row.fix}".encode())
        finally:
            os._exit(0)
    os.close(send)
    with open(receive, encoding="utf-8") as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EPERM, "this container may not open /dev/fuse"),
        (errno.ENODEV, "no driver"),
        (errno.EIO, "cannot be opened"),
    ],
)
def test_each_refusal_of_the_device_is_explained(
    monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    row = host._fuse()

    assert not row.ok
    assert words in row.detail
    assert row.fix


def test_a_missing_bubblewrap_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    row = host.probe().row(Mechanism.BUBBLEWRAP)

    assert not row.ok
    assert "not installed" in row.detail
    assert "apt install bubblewrap" in row.fix


@pytest.mark.parametrize(
    ("script", "words"),
    [("echo bubblewrap 0.4.1", "0.4.1, 0.8.0 is needed"), ("exit 1", "does not run")],
)
def test_a_bubblewrap_that_does_not_do_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, words: str
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert words in host.probe().row(Mechanism.BUBBLEWRAP).detail


def test_a_limit_of_no_user_namespaces_is_noticed(user: Who, enforced: Features) -> None:
    def forbid() -> None:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")

    error = required(on_poorer_host(user, forbid))

    assert "namespace" in error.message
    assert error.hint == "sysctl -w user.max_user_namespaces=15000"


def test_a_filter_that_forbids_namespaces_is_noticed(enforced: Features) -> None:
    """As under docker's default profile."""
    program = os.memfd_create("filter")
    os.write(program, assemble(os.uname().machine))
    os.lseek(program, 0, os.SEEK_SET)
    script = """
from sandbox.probe import host
for row in host.probe().rows:
    if row.needed and not row.ok:
        print(row.mechanism, row.detail, row.fix, sep="|")
"""
    bwrap = ["bwrap", "--dev-bind", "/", "/", "--seccomp", str(program), "--"]
    done = subprocess.run(
        [*bwrap, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        pass_fds=[program],
        cwd=Path(__file__).resolve().parents[2],
    )
    os.close(program)
    failed = dict(line.split("|", 1) for line in done.stdout.splitlines())

    assert set(failed) == {"mount_namespace", "fuse_mount", "jail"}, done.stderr
    assert "Operation not permitted" in failed["mount_namespace"]
    assert "--security-opt" in failed["mount_namespace"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EOPNOTSUPP, "no user extended attributes"),
        (errno.EACCES, "cannot be written"),
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
    ],
)
def test_a_state_directory_that_cannot_hold_layers_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, words: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "setxattr", refuse)
    row = host._layer_format(str(tmp_path / "not" / "yet"))

    assert not row.ok
    assert words in row.detail
    assert list(tmp_path.iterdir()) == []


def test_the_first_thing_missing_is_the_one_that_is_named() -> None:
    rows = (
        Row(mechanism=Mechanism.CGROUPS, ok=False, needed=False, detail="not needed"),
        Row(mechanism=Mechanism.FUSE, ok=False, needed=True, detail="first", fix="mend it"),
        Row(mechanism=Mechanism.JAIL, ok=False, needed=True, detail="second"),
    )
    error = required(Features(bwrap="", rows=rows))

    assert (error.message, error.hint, error.exit_code) == ("first", "mend it", 18)


def test_lane_ids_are_ones_own_or_ones_that_nobody_has() -> None:
    uid, gid = namespace.lane_ids()

    if os.getuid() != 0:
        assert (uid, gid) == (os.getuid(), os.getgid())
    else:
        assert uid == gid
        assert uid in namespace.LANE_UIDS
        assert namespace.lane_ids() == (uid, gid)
        with pytest.raises(HostError, match="no user id"):
            namespace.lane_ids([0])
