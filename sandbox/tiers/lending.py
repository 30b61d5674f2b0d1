"""Object stores shown to a uid that cannot reach them, where nothing can be mounted.

As root the agent's uid owns nothing, so it cannot traverse e.g. /root. What git in its lane borrows
is therefore linked, file by file, to a place that it can: objects and packs never change.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

_KEPT = (".pack", ".idx", ".rev")


def is_reachable(path: Path) -> bool:
    """Whether everybody may traverse the directories above `path`, and `path` itself."""
    return all(os.stat(place).st_mode & stat.S_IXOTH for place in (path, *path.parents))


def lend(stores: Sequence[Path], target: Path) -> None:
    """Makes `target` an object directory that has all of `stores`; what is there already stays.

    Raises OSError.
    """
    for directory in (target, target / "pack"):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory.chmod(0o755)
    for store in stores:
        for entry in os.scandir(store):
            if len(entry.name) == 2 and entry.is_dir():
                _mirror(Path(entry.path), target / entry.name)
            elif entry.name == "pack":
                _mirror(Path(entry.path), target / "pack", packs=True)


def _mirror(source: Path, target: Path, *, packs: bool = False) -> None:
    target.mkdir(mode=0o755, exist_ok=True)
    target.chmod(0o755)
    there = set(os.listdir(target))
    found = [e for e in os.scandir(source) if e.name not in there and e.is_file()]
    # git takes a pack for existing when its .idx does, so that one comes last.
    for entry in sorted(found, key=lambda entry: entry.name.endswith(".idx")):
        if entry.name.startswith("tmp_") or (packs and not entry.name.endswith(_KEPT)):
            continue
        temporary = target / f"tmp_{os.getpid()}"
        temporary.unlink(missing_ok=True)
        if entry.stat().st_mode & stat.S_IROTH:
            try:
                os.link(entry.path, temporary)
            except OSError:
                _copy(entry.path, temporary)
        else:
            _copy(entry.path, temporary)
        os.rename(temporary, target / entry.name)


def _copy(source: str, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o444)
