"""Beats: how a claim without a process of its own shows that it is still wanted.

`beat.json` in the attempt's directory is replaced by each beat (rename(2), the last wins). It is
not written through: one that a power cut takes was of another boot, and then the wall clock counts.
"""

from __future__ import annotations

import os

import msgspec

from supervisor import clock
from supervisor.board import disk, document
from supervisor.errors import BoardError

FILE = "beat.json"


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """When a lease was renewed.

    Attributes:
        boottime_s: CLOCK_BOOTTIME, which only processes of the same boot can compare with theirs.
        wall_s: seconds since 1970, for everyone else.
    """

    boot_id: str
    boottime_s: float
    wall_s: float


def now(boot_id: str) -> Beat:
    return Beat(boot_id=boot_id, boottime_s=clock.boottime_s(), wall_s=clock.wall_s())


def renew(directory: str, beat: Beat) -> None:
    """Replaces the beat of an attempt.

    Raises:
        BoardError: it cannot be written.
        NotFoundError: the attempt is gone.
    """
    disk.replace(os.path.join(directory, FILE), document.encode(beat))


def has_begun(directory: str) -> bool:
    """Whether an attempt has had a beat."""
    return os.path.lexists(os.path.join(directory, FILE))


def age_s(directory: str, boot_id: str) -> float | None:
    """Seconds since the last beat of an attempt; None where nothing tells.

    A beat that cannot be read still has a time of change, and the claim itself counts as the first.
    """
    path = os.path.join(directory, FILE)
    try:
        beat = document.read(path, Beat)
    except BoardError:
        beat = None
    if beat is not None and beat.boot_id == boot_id:
        return max(0.0, clock.boottime_s() - beat.boottime_s)
    if beat is not None:
        return max(0.0, clock.wall_s() - beat.wall_s)
    for name in (path, os.path.join(directory, "owner.json")):
        try:
            return max(0.0, clock.wall_s() - os.stat(name).st_mtime)
        except OSError:
            continue
    return None
