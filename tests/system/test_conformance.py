"""The same calls on our mount, on the kernel's overlayfs and on a plain directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import case_content
import case_kind
import case_name
import case_right
import pytest
from mounting import Stage, enter_private_namespace, kernel_overlay, served, staged
from probe import Probe, stamps_finely
from test_overlay_user import ORDINARY_UID, as_ordinary_user

CASES = {**case_kind.CASES, **case_name.CASES, **case_right.CASES, **case_content.CASES}
BORN, LOWER = "born", "lower"

Transcript = list[tuple[str, Any]]

# Where the mount answers otherwise than a plain directory: (case, answer), as docs/overlay.md
# has them with their reasons. A line that no answer matches any more fails too.
DIVERGENCES = (
    # Device nodes cannot be opened: the mount is `nodev`, as the jail is.
    (r"calls on (null|block)", r"open (r|w|rw|creat|trunc|nofollow|noatime|excl|direct): 'EACCES'"),
    # The VFS keeps what a mapping wrote behind the end of a FUSE file.
    (r"mapping", r"after growing: b'xyz.* != b'\\x00\\x00\\x00\\x00\\x00'"),
    # Opening a lower file to change it copies it up, and nothing sets a change time.
    (r"first opened", r"open: times of '(to write|to append|for both)': 'c' != ''"),
    # Data that passes a FIFO does not pass the file system.
    (r"opening", r"through: times of 'pipe': '' != 'mc'"),
    # Whoever does not own the file: the kernel does not say that it is chown(2).
    (r"losing privilege", r"(member|other): \d+ chown none: 'done' != 'EPERM'"),
)


class Trees:
    """Three trees with the same in them: ours, the kernel's, a plain directory."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        (path / "base").mkdir()
        (path / "base/from-git").write_text("x")
        self.stage: Stage = staged(path)
        layer = self.stage.directory("layer")
        for name, (prepare, _act) in CASES.items():
            (layer / name).mkdir()
            (layer / name).chmod(0o777)
            prepare(layer / name)
        (layer / BORN).mkdir()
        spec = replace(self.stage.writable(), layers=(str(layer),))
        stack.enter_context(served(spec))
        kernel = self.stage.directory("kernel/mnt")
        upper, work = self.stage.directory("kernel/upper"), self.stage.directory("kernel/work")
        stack.enter_context(kernel_overlay(kernel, [self.stage.checkout, layer], upper, work))
        plain = self.stage.directory("plain")
        subprocess.run(["cp", "-a", f"{layer}/.", f"{plain}/"], check=True)
        self.waits = not stamps_finely(plain)
        self.roots = {"ours": Path(spec.mountpoint), "kernel": kernel, "plain": plain}


@pytest.fixture(scope="module")
def trees() -> Iterator[Trees]:
    enter_private_namespace()
    path = Path(tempfile.mkdtemp(prefix="nanosup-conformance-"))
    path.chmod(0o755)
    here = os.getcwd()
    try:
        with ExitStack() as stack:
            yield Trees(path, stack)
    finally:
        os.chdir(here)
        shutil.rmtree(path, ignore_errors=True)


def transcript(trees: Trees, kind: str, name: str, variant: str) -> Transcript:
    """What that tree answered."""
    prepare, _act = CASES[name]
    directory = trees.roots[kind] / name
    if variant == BORN:
        directory = trees.roots[kind] / BORN / name
        directory.mkdir()
        directory.chmod(0o777)
        prepare(directory)
    return acted(directory, name, waits=trees.waits)


def acted(directory: Path, name: str, *, waits: bool) -> Transcript:
    """What the case is answered in a directory that was prepared for it."""
    old = os.umask(0o022)
    os.chdir(directory)
    probe = Probe(waits=waits)
    try:
        CASES[name][1](probe)
    finally:
        probe.close()
        os.chdir("/")
        os.umask(old)
    return probe.transcript


def differences(ours: Transcript, theirs: Transcript) -> list[str]:
    """One line for each answer that differs."""
    assert [label for label, _ in ours] == [label for label, _ in theirs]
    return [
        f"{label}: {mine!r} != {his!r}"
        for (label, mine), (_label, his) in zip(ours, theirs, strict=True)
        if mine != his
    ]


def unknown(name: str, ours: Transcript, plain: Transcript) -> list[str]:
    """The differences that are not in the list of divergences."""
    unexpected = []
    for line in differences(ours, plain):
        known = [d for d in DIVERGENCES if re.fullmatch(d[0], name) and re.match(d[1], line)]
        _matched.update(known)
        if not known:
            unexpected.append(line)
    return unexpected


_matched: set[tuple[str, str]] = set()


@pytest.mark.parametrize("variant", [BORN, LOWER])
@pytest.mark.parametrize("name", CASES)
def test_it_answers_as_a_plain_directory_does(trees: Trees, name: str, variant: str) -> None:
    plain = transcript(trees, "plain", name, variant)
    unexpected = unknown(name, transcript(trees, "ours", name, variant), plain)
    if unexpected:
        kernel = set(differences(transcript(trees, "kernel", name, variant), plain))
        marked = [x + (" (the kernel's too)" if x in kernel else "") for x in unexpected]
        pytest.fail("\n".join([f"{len(unexpected)} of {len(plain)}:", *marked]))


def test_every_divergence_that_is_allowed_was_seen(trees: Trees) -> None:
    """Runs last. A divergence that is gone has to go from the list, and from the page."""
    if len(_matched) and len(_matched) < len(DIVERGENCES):
        missing = [d for d in DIVERGENCES if d not in _matched]
        pytest.fail(f"no longer seen: {missing}")


# What root alone prepares, or what changes users, is left out.
OF_A_USER = [
    *(f"calls on {kind}" for kind in case_kind.KINDS if kind not in case_kind.DEVICES),
    *case_name.CASES,
    *(name for name in case_content.CASES if name != "times"),
]


def test_an_ordinary_users_server_answers_so_too() -> None:
    place = Path(tempfile.mkdtemp(prefix="nanosup-user-", dir="/tmp"))
    place.chmod(0o755)
    if os.geteuid() == 0:
        os.chmod("/dev/fuse", 0o666)
        os.chown(place, ORDINARY_UID, ORDINARY_UID)

    def act() -> None:
        (place / "base").mkdir()
        (place / "base/from-git").write_text("x")
        stage = staged(place)
        layer, plain = stage.directory("layer"), stage.directory("plain")
        for name in OF_A_USER:
            (layer / name).mkdir()
            CASES[name][0](layer / name)
        subprocess.run(["cp", "-a", f"{layer}/.", f"{plain}/"], check=True)
        waits = not stamps_finely(plain)
        failures = []
        with served(replace(stage.writable(), layers=(str(layer),))) as lane:
            for name in OF_A_USER:
                theirs = acted(plain / name, name, waits=waits)
                ours = acted(lane.mountpoint / name, name, waits=waits)
                failures += [f"{name}: {line}" for line in unknown(name, ours, theirs)]
        assert not failures, "\n".join(failures)

    try:
        as_ordinary_user(act)
    finally:
        shutil.rmtree(place, ignore_errors=True)
