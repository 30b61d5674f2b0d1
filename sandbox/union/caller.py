"""Who asks for an operation: what FUSE does not say of the process is in its /proc/<pid>/status."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from sandbox.union.attributes import without_privilege


@dataclass(frozen=True, slots=True)
class Caller:
    """The process behind a request.

    Attributes:
        pid: in the server's own PID namespace, 0 if it has none there.
    """

    uid: int
    gid: int
    pid: int

    @property
    def is_privileged(self) -> bool:
        """Whether it may write without taking set-user-ID bits away (CAP_FSETID)."""
        return self.uid == 0

    def after_writing(self, mode: int, gid: int) -> int:
        """The mode of a file of group `gid` once this process has written to it."""
        if self.is_privileged:
            return mode
        is_outsider = locks_by_group(mode) and not self.is_in_group(gid)
        return without_privilege(mode, is_outsider=is_outsider)

    def is_in_group(self, gid: int) -> bool:
        """Whether `gid` is its group or one of its further groups."""
        if gid == self.gid:
            return True
        try:
            with open(f"/proc/{self.pid}/status", "rb") as status:
                for line in status:
                    if line.startswith(b"Groups:"):
                        return str(gid).encode() in line.split()[1:]
        except OSError:
            pass
        return False


def locks_by_group(mode: int) -> bool:
    """Whether the set-group-ID bit stands without permission to execute: it depends on who asks."""
    return stat.S_ISREG(mode) and mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID
