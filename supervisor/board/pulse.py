"""`pulse.json`: what a keeper says of the processes of its lane, for people and for `status`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec

from supervisor.board import disk, document
from supervisor.board.board import Board
from supervisor.errors import BoardError

FILE = "pulse.json"


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of a lane.

    Attributes:
        child_pid: the jail, as the host numbers it.
        server_pid: the FUSE server, or what stands for it in the other tiers.
        ready_ms: from being asked for until the child ran.
        mount: what the lane's file system was asked for, and how it answered: operations, bytes,
            cache hits by kind.
        tier: what the lane is held by (`sandbox.tiers.tier.Tier`).
    """

    child_pid: int
    server_pid: int
    ready_ms: float
    mount: dict[str, int] = {}
    tier: str = ""


def write(attempt_path: str, pulse: Pulse) -> None:
    """Replaces the pulse of an attempt. Not written through: it means nothing after a crash."""
    disk.replace(os.path.join(attempt_path, FILE), document.encode(pulse))


class LanePulse:
    """Keeps the pulse of a running lane fresh.

    Args:
        first: as it was written.
        counters: what the lane's file system has counted by now.
    """

    def __init__(
        self, attempt_path: str, first: Pulse, counters: Callable[[], dict[str, int]]
    ) -> None:
        self._path = attempt_path
        self._counters = counters
        self._pulse = first

    def refresh(self) -> None:
        """Writes the pulse anew if anything has been counted since. A full disk is no matter."""
        fresh = msgspec.structs.replace(self._pulse, mount=self._counters())
        if fresh == self._pulse:
            return
        try:
            write(self._path, fresh)
        except BoardError:
            return
        self._pulse = fresh


def pulses(board: Board, sprint: str, phase: str, n: int) -> dict[str, Any]:
    """The pulse of an attempt; empty where there is none."""
    path = os.path.join(
        board.path, "sprints", sprint, "phases", phase, "attempts", f"{n:04d}", FILE
    )
    try:
        pulse = document.read(path, Pulse)
    except BoardError:
        return {}
    return msgspec.structs.asdict(pulse) if pulse else {}
