"""What a server does for the first time, done before there is anything to serve."""

from __future__ import annotations

import gc
import mmap
import os

from sandbox.mount.express import Express
from sandbox.mount.fuse import Adapter
from sandbox.union.counter import Counter
from sandbox.union.overlay import Overlay
from sandbox.union.spec import MountSpec

_NOWHERE = -1  # no device


def rehearse(git_dir: str, tree: str) -> None:
    """Opens a tree as a server does, makes ready to answer, and lets go of all of it.

    The pages that this touches the process has of its own from then on; to get one takes
    microseconds.

    Raises:
        SandboxError, OSError: it cannot be done here.
    """
    spec = MountSpec(
        git_dir=git_dir,
        tree=tree,
        mountpoint="",
        epoch_ns=0,
        uid=os.getuid(),
        gid=os.getgid(),
        grafts=(".git",),
    )
    try:
        _prepare(spec)
    finally:
        gc.collect()  # an overlay refers to itself, and has files open


def _prepare(spec: MountSpec) -> None:
    counter = Counter()
    overlay = Overlay(spec, counts=counter.totals)
    try:
        overlay.children(overlay.root)
        adapter = Adapter(overlay, counter)
        Express(
            overlay,
            adapter.changes,
            adapter.handles,
            counter,
            mmap.mmap(-1, mmap.PAGESIZE),
            _NOWHERE,
            is_stateless=True,
            is_passing=False,
        )
    finally:
        overlay.close()
