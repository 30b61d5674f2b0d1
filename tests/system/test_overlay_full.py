"""A full disk under the upper directory: ENOSPC to who asks, and nothing half done."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mounting import enter_private_namespace, served, staged
from operation import Tree, apply
from view import assert_same, tree

from sandbox.syscalls import MNT_DETACH, mount, umount2

_PATHS = [f"{a}/{b}" for a in "abcd" for b in "abcdef"] + list("abcd")

_OPERATIONS = (
    *("mkdir", "mkdir", "symlink", "link", "rename", "rename", "exchange", "unlink", "rmdir"),
    *("chmod", "setxattr", "utime", "truncate", "mkfifo"),
)


def _base(root: Path) -> None:
    for number, path in enumerate(_PATHS[:24]):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"%d" % number * 3000)


def _operation(chosen: random.Random) -> tuple[Any, ...]:
    one, other = chosen.choice(_PATHS), chosen.choice(_PATHS)
    name = chosen.choice(_OPERATIONS)
    match name:
        case "mkdir":
            return name, one, 0o755
        case "symlink":
            return name, one, "nowhere"
        case "link" | "rename" | "exchange":
            return name, one, other
        case "chmod":
            return name, one, 0o600
        case "setxattr":
            return name, one, "user.x", b"v" * 100
        case "truncate":
            return name, one, 10
        case _:
            return name, one


@pytest.mark.parametrize("limits", ["nr_inodes=18", "size=40k"])
def test_what_fails_on_a_full_disk_has_changed_nothing(tmp_path: Path, limits: str) -> None:
    enter_private_namespace()
    _base(tmp_path / "base")
    stage = staged(tmp_path)
    small = stage.directory("small")
    mount("none", str(small), "tmpfs", 0, limits)
    try:
        for name in ("upper", "work"):
            (small / name).mkdir()
        spec = replace(stage.writable(), upper=f"{small}/upper", work=f"{small}/work")
        plain = tmp_path / "plain"
        subprocess.run(["cp", "-a", stage.checkout, plain], check=True)
        chosen = random.Random(3)
        refused = done = 0
        with served(spec) as lane:
            ours, theirs = Tree(str(lane.mountpoint)), Tree(str(plain))
            for _ in range(2500):
                operation = _operation(chosen)
                found = apply(ours, *operation)
                if found == ("error", errno.ENOSPC):
                    refused += 1
                    continue
                assert found == apply(theirs, *operation), operation
                done += not (isinstance(found, tuple) and found[0] == "error")
            assert_same(tree(lane.mountpoint), tree(plain), "what is left")
        assert refused > 20
        assert done > 100
        with served(spec) as again:
            assert_same(tree(again.mountpoint), tree(plain), "mounted again")
        assert os.listdir(small / "work") == []
    finally:
        umount2(str(small), MNT_DETACH)
