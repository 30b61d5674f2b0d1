"""Mounts in the way of lanes: those that a dead nanosup left, and those of somebody else.

A lane's mount is in a namespace of its own and dies with it. Where that could not be had (a mount
made by fusermount3, an older nanosup) one can be left on the host; whoever touches it may wait for
ever, since nobody answers. So nothing here does: what is mounted is read from /proc/self/mountinfo
(proc_pid_mountinfo(5)), and it is detached without being looked into (umount2(2), MNT_DETACH).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from sandbox import syscalls
from sandbox.errors import MountError
from supervisor.board.board import Board
from supervisor.board.owner import liveness
from supervisor.errors import NotFoundError
from supervisor.model.liveness import Liveness
from supervisor.model.name import attempt_number

_NAME = "nanosup"
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """A line of mountinfo. `is_ours`: nanosup made it."""

    path: str
    kind: str
    source: str

    @property
    def is_ours(self) -> bool:
        return self.source == _NAME or self.kind == f"fuse.{_NAME}"


def parse(line: bytes) -> Mounted:
    """Reads a line: the fields after the hyphen follow a variable number of others."""
    before, _, after = line.partition(b" - ")
    kind, source, *_ = after.split(b" ")
    return Mounted(
        *(os.fsdecode(_unescape(field)) for field in (before.split(b" ")[4], kind, source))
    )


def remove_stale(board: Board) -> list[str]:
    """Detaches the mounts that dead lanes have left on the board, and returns where they were.

    Raises:
        MountError: something that is not ours is mounted there, or ours cannot be removed.
    """
    sprints = os.path.join(os.path.realpath(board.path), "sprints") + "/"
    removed = []
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = [parse(line) for line in file]
    # The one mounted last is on top.
    for mount in reversed(mounts):
        if not mount.path.startswith(sprints):
            continue
        if not mount.is_ours:
            raise MountError(
                f"{mount.path} is a mount point ({mount.kind}) that nanosup has not made",
                hint=f"find out whose it is, then: umount {mount.path}",
            )
        if not _is_alive(board, mount.path.removeprefix(sprints)):
            _detach(mount.path)
            removed.append(mount.path)
    return removed


def _is_alive(board: Board, inside: str) -> bool:
    """Whether the lane that a path below `sprints/` belongs to is alive."""
    match inside.split("/"):
        case [sprint, "phases", phase, "attempts", number, "lane", *_]:
            try:
                attempt = board.sprint(sprint).slot(phase).attempt(attempt_number(number) or 0)
            except (NotFoundError, ValueError):
                return False
            return not attempt.has_ended and liveness(attempt) is not Liveness.DEAD
    return False


def _detach(path: str) -> None:
    try:
        syscalls.umount2(path, syscalls.MNT_DETACH)
        return
    except PermissionError:
        command = ["fusermount3", "-u", "-q", "-z", path]
        try:
            if os.spawnvp(os.P_WAIT, command[0], command) == 0:
                return
        except FileNotFoundError:
            pass
        why = "this user may not unmount it"
    except OSError as error:
        why = str(error.strerror)
    raise MountError(
        f"a dead lane's mount on {path} cannot be removed: {why}", hint=f"umount {path}"
    )


def _unescape(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
