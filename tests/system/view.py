"""What a tree looks like to a process, as a value that can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
import time

# Times after this are "now": different in two trees that were changed alike.
RECENT_S = 100_000


def entry(path: bytes, *, with_times: bool = True) -> dict[str, object]:
    """All that lstat, readlink, read and xattrs say of one file."""
    status = os.lstat(path)
    mode = status.st_mode
    found: dict[str, object] = {
        "mode": oct(mode),
        "owner": (status.st_uid, status.st_gid),
        "rdev": status.st_rdev,
    }
    if with_times:
        recent = status.st_mtime > time.time() - RECENT_S
        found["mtime"] = "now" if recent else status.st_mtime_ns
    if not stat.S_ISDIR(mode):
        found["size"] = status.st_size
        found["nlink"] = status.st_nlink
    if stat.S_ISLNK(mode):
        found["target"] = os.readlink(path)
    elif stat.S_ISREG(mode):
        with open(path, "rb") as file:
            found["content"] = hashlib.sha1(file.read()).hexdigest()
    if not stat.S_ISLNK(mode):
        names = [n for n in os.listxattr(path) if not n.startswith("user.overlay.")]
        found["xattrs"] = {name: os.getxattr(path, name) for name in sorted(names)}
    return found


def tree(root: os.PathLike[str] | str, *, with_times: bool = True) -> dict[bytes, object]:
    """The whole tree, by path."""
    top = os.fsencode(root)
    found: dict[bytes, object] = {b".": entry(top, with_times=with_times)}
    pending = [b""]
    while pending:
        directory = pending.pop()
        for name in sorted(os.listdir(os.path.join(top, directory))):
            path = os.path.join(directory, name)
            found[path] = entry(os.path.join(top, path), with_times=with_times)
            full = os.path.join(top, path)
            if stat.S_ISDIR(os.lstat(full).st_mode):
                pending.append(path)
    return found


def difference(left: dict[bytes, object], right: dict[bytes, object]) -> list[str]:
    """One line for each path that differs."""
    return [
        f"{os.fsdecode(path)}: {left.get(path)} != {right.get(path)}"
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    ]


def assert_same(left: dict[bytes, object], right: dict[bytes, object], what: str) -> None:
    """Fails with one line for each path that differs."""
    lines = difference(left, right)
    assert not lines, "\n".join([f"{what}: {len(lines)} differ", *lines[:10]])
