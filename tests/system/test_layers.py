"""Layer upon layer: each round's upper directory is sealed and lies below the next round's."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mounting import (
    Stage,
    enter_private_namespace,
    fuse_overlayfs,
    kernel_overlay,
    served,
    staged,
)
from operation import Tree, apply
from view import assert_same, tree

_NAMES = ("a", "b", "c")
_PATHS = (
    *_NAMES,
    *(f"{x}/{y}" for x in _NAMES for y in _NAMES),
    *(f"{x}/{y}/{z}" for x in _NAMES for y in "ab" for z in "ab"),
)

_OPERATIONS = (
    *("create", "append", "rewrite", "truncate", "unlink", "rmdir", "mkdir", "symlink", "link"),
    *("create", "mkdir", "create", "mkdir", "chmod"),
    *("utime", "setxattr", "exchange", "rename", "rename", "rename", "rename"),
)


def _base(root: Path) -> None:
    for path in ("a/a", "a/b", "b/a", "c"):
        (root / path).mkdir(parents=True)
    for path in ("a/c", "a/a/a", "a/a/b", "a/b/a", "b/a/a", "b/b", "c/a"):
        (root / path).write_text(f"base {path}")
    (root / "b/c").symlink_to("../a")


def _operation(chosen: random.Random, there: list[str]) -> tuple[Any, ...]:
    """One of the operations, mostly on what is `there`."""
    one, other = chosen.choice(_PATHS), chosen.choice(_PATHS)
    name = chosen.choice(_OPERATIONS)
    if name not in ("create", "mkdir", "symlink") and there and chosen.random() < 0.8:
        one = chosen.choice(there)
    match name:
        case "create":
            return name, one, chosen.randbytes(20), 0o644
        case "append" | "rewrite":
            return name, one, chosen.randbytes(5)
        case "mkdir":
            return name, one, 0o755
        case "rename" | "exchange" | "link":
            return name, one, other
        case "symlink":
            # Not to itself: fuse-overlayfs 1.10 cannot list a directory over such a link (ENOMEM).
            return name, one, "nowhere"
        case "chmod":
            return name, one, chosen.choice((0o600, 0o750, 0o777))
        case "setxattr":
            return name, one, "user.x", chosen.randbytes(3)
        case "truncate":
            return name, one, chosen.choice((0, 3, 100))
        case _:
            return name, one


@pytest.mark.parametrize(("seed", "rounds"), [(1, 10), (2, 32)])
def test_what_layers_show_together_is_the_same_to_everybody(
    tmp_path: Path, seed: int, rounds: int
) -> None:
    enter_private_namespace()
    # The kernel takes one page of options: with long paths 32 layers would not fit.
    short = Path(f"/tmp/nanosup-{os.getpid()}-{seed}")
    short.mkdir()
    try:
        _stack_up(short, seed, rounds)
    finally:
        shutil.rmtree(short, ignore_errors=True)


def _stack_up(path: Path, seed: int, rounds: int) -> None:
    _base(path / "base")
    stage = staged(path)
    plain = path / "plain"
    subprocess.run(["cp", "-a", stage.checkout, plain], check=True)
    chosen = random.Random(seed)
    layers: list[str] = []
    done = renamed = 0
    for number in range(rounds):
        spec = replace(stage.writable(str(number)), layers=tuple(layers))
        assert spec.upper is not None
        with served(spec) as lane:
            ours, theirs = Tree(str(lane.mountpoint)), Tree(str(plain))
            for _ in range(40):
                there = [p for p in _PATHS if os.path.lexists(plain / p)]
                operation = _operation(chosen, there)
                expected = apply(theirs, *operation)
                found = apply(ours, *operation)
                assert found == expected, (number, operation)
                done += not (isinstance(found, tuple) and found[0] == "error")
                renamed += operation[0] == "rename" and found is None
            view = tree(lane.mountpoint)
            assert_same(view, tree(plain), f"round {number}")
        assert os.listdir(stage.directory(f"{number}/work")) == []
        layers.append(spec.upper)
    assert done > rounds * 8
    assert renamed > rounds
    _everybody_agrees(stage, layers, plain)


def _everybody_agrees(stage: Stage, layers: list[str], plain: Path) -> None:
    expected = tree(plain)
    lowers = [stage.checkout, *map(Path, layers)]
    with ExitStack() as stack:
        ours = stack.enter_context(served(stage.read_only(layers=tuple(layers))))
        assert_same(tree(ours.mountpoint), expected, "our mount")
        kernel = stack.enter_context(kernel_overlay(stage.directory("kernel"), lowers))
        assert_same(tree(kernel), expected, "the kernel's mount")
        fuse = stack.enter_context(fuse_overlayfs(stage.directory("fuse"), lowers))
        # Link counts are not its strength.
        assert_same(_without_links(tree(fuse)), _without_links(expected), "fuse-overlayfs")


def _without_links(view: dict[bytes, Any]) -> dict[bytes, object]:
    return {path: {**entry, "nlink": 0} for path, entry in view.items()}
