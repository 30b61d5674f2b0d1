"""Whether there is room on the disk, and waiting for it.

The kernel tells nobody when a disk has room again, so who waits has to look.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

LOOK_S = 2.0

_LEAST_BYTES = 16 << 20
_LEAST_SHARE = 16  # of a small disk: a sixteenth
_LEAST_INODES = 64
_WANT = (errno.ENOSPC, errno.EDQUOT)

_Result = TypeVar("_Result")


def free_bytes(path: str) -> int:
    """What this user may still write on the file system of `path`."""
    seen = os.statvfs(path)
    return (seen.f_bfree if os.geteuid() == 0 else seen.f_bavail) * seen.f_frsize


def is_full(path: str) -> bool:
    """Whether there is too little room on the file system of `path` to start anything."""
    try:
        seen = os.statvfs(path)
    except OSError:
        return False
    least = min(_LEAST_BYTES, seen.f_blocks * seen.f_frsize // _LEAST_SHARE)
    # Some file systems (btrfs) have no fixed number of inodes, and say 0.
    return free_bytes(path) < least or (seen.f_files > 0 and seen.f_ffree < _LEAST_INODES)


def disk_document(path: str) -> dict[str, Any]:
    """The file system of `path`, for `status --json`."""
    try:
        return {"full": is_full(path), "free_bytes": free_bytes(path)}
    except OSError:  # there is no board yet
        return {"full": False, "free_bytes": None}


def is_wanting(error: BaseException | None) -> bool:
    """Whether it was for want of room that something failed."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _WANT:
            return True
        # libgit2 has only words.
        if os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def forgiving() -> Iterator[None]:
    """Goes on without what could not be written for want of room."""
    try:
        yield
    except Exception as error:
        if not is_wanting(error):
            raise


def patiently(act: Callable[[], _Result], waiting: Callable[[], None]) -> _Result:
    """What `act` returns, once there is room for it. Raises as `act`, but for want of room.

    Args:
        waiting: called once, before the first wait.
    """
    has_waited = False
    while True:
        try:
            return act()
        except Exception as error:
            if not is_wanting(error):
                raise
        if not has_waited:
            waiting()
            has_waited = True
        time.sleep(LOOK_S)
