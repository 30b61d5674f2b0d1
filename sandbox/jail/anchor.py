"""Checks that what a jail mounts over is what it seems to be.

mount(2) follows symbolic links. A link at a path that is mounted over, committed to a repository by
an earlier agent for instance, would put the mount elsewhere: an empty scratch directory over the
very sources that a reviewer is to see.
"""

from __future__ import annotations

import os
import stat

from sandbox.errors import JailError
from sandbox.jail.jail import Bind, JailSpec, operations


def check_anchors(spec: JailSpec) -> None:
    """Raises JailError where a target in `spec` is reached through a symbolic link, or is one,
    inside of what another of its binds shows.

    To be called when all sources are in their places and nothing runs that could change them.
    """
    ordered = operations(spec)
    binds = [operation for operation in ordered if isinstance(operation, Bind)]
    for operation in ordered:
        above = [bind for bind in binds if operation.target.startswith(bind.target + "/")]
        if above:
            inside = operation.target[len(above[-1].target) + 1 :]
            _check(above[-1].source, inside, operation.target)


def _check(directory: str, inside: str, target: str) -> None:
    path = directory
    for name in inside.split("/"):
        path = os.path.join(path, name)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return  # bubblewrap makes it, or says why it cannot
        if stat.S_ISLNK(mode):
            raise JailError(
                f"{target} cannot be mounted over: {name} is a symbolic link "
                f"to {os.readlink(path)}",
                hint="remove the link from the repository, or take the path out of the "
                "configuration (scratch, share, home_read)",
            )
