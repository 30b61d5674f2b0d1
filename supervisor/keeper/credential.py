"""Credentials: an agent's own, copied into its lane's HOME before each attempt."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def copy(paths: Iterable[str], home: Path, lane_home: Path, *, uid: int, gid: int) -> None:
    """Copies files and directories from below `home` to the same place below `lane_home`.

    Copies, not binds: an agent may refresh or corrupt its own, and never the user's. What is not
    there is left out (the agent may be logged in by a variable), and links are not followed.

    Raises:
        OSError: a file that is there cannot be copied.
    """
    for path in paths:
        source = home / path
        if source.is_symlink() or not source.exists():
            continue
        target = lane_home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=_special)
        else:
            shutil.copyfile(source, target)
            target.chmod(0o600)
    if os.getuid() != uid:
        for directory, _, files in os.walk(lane_home):
            for name in (directory, *(os.path.join(directory, file) for file in files)):
                os.chown(name, uid, gid, follow_symlinks=False)


def _special(directory: str, names: list[str]) -> list[str]:
    """What is no file, directory or link: copying a socket or a FIFO would block or fail."""
    return [
        name
        for name in names
        if not (
            os.path.isfile(os.path.join(directory, name))
            or os.path.isdir(os.path.join(directory, name))
        )
    ]
