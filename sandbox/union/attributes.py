"""What stat(2) says of a node."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple


class Attributes(NamedTuple):
    """The fields of stat(2) that a mount answers; times in nanoseconds since the epoch."""

    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class Change(NamedTuple):
    """What chmod(2), chown(2), truncate(2) and utimensat(2) change; None leaves a field."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


def from_status(
    status: os.stat_result,
    *,
    nlink: int | None = None,
    owner: tuple[int, int] | None = None,
    is_sealed: bool = False,
) -> Attributes:
    """Attributes from a stat result, with link count or owner replaced where given.

    `is_sealed`: the access time is that of the last change, since whoever else reads the file
    moves its own.
    """
    uid, gid = owner if owner is not None else (status.st_uid, status.st_gid)
    return Attributes(
        status.st_mode,
        status.st_nlink if nlink is None else nlink,
        uid,
        gid,
        status.st_rdev,
        status.st_size,
        status.st_blocks,
        status.st_mtime_ns if is_sealed else status.st_atime_ns,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def without_privilege(mode: int, *, is_outsider: bool = False) -> int:
    """The mode after an ordinary user has written to the file (write(2), chown(2)).

    The set-group-ID bit of a file that its group may not execute means mandatory locking, and
    stays if the writer is in that group.
    """
    if not stat.S_ISREG(mode):
        return mode
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP or is_outsider:
        mode &= ~stat.S_ISGID
    return mode
