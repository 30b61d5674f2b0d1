"""Removing what dead processes left half-made.

A `tmp.…` means nothing to any reader, so this is only for tidiness, and runs when somebody has
time: when `up` starts, and in `clean`. The name tells the maker; where it lives, or may live, what
it makes is left alone. A maker that cannot be judged (another boot, host or container) has a day.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from supervisor import clock
from supervisor.board import owner
from supervisor.board.board import Board
from supervisor.model.liveness import Liveness
from supervisor.model.name import is_tmp, tmp_maker
from supervisor.upkeep import removal

UNJUDGED_S = 24 * 3600.0


def sweep(board: Board, *, unjudged_s: float = UNJUDGED_S) -> int:
    """Removes what is half-made and abandoned. Returns how many files and directories that was.

    Raises:
        BoardError: a ticket of the writer's turn is damaged, or something cannot be removed.
    """
    board.queue.tidy()
    removed = 0
    for path in abandoned(board, unjudged_s=unjudged_s):
        removal.remove(path)
        removed += 1
    return removed


def abandoned(board: Board, *, unjudged_s: float = UNJUDGED_S) -> Iterator[str]:
    """The paths of what is half-made and abandoned."""
    for directory in _places(board):
        yield from _abandoned_in(directory, unjudged_s)


def tidy(directory: str) -> None:
    """Removes what is half-made and abandoned in one directory. Raises BoardError."""
    for path in _abandoned_in(directory, UNJUDGED_S):
        removal.remove(path)


def _abandoned_in(directory: str, unjudged_s: float) -> Iterator[str]:
    for entry in _entries(directory):
        if is_tmp(entry.name) and _is_abandoned(entry, unjudged_s):
            yield entry.path


def _places(board: Board) -> Iterator[str]:
    """Where half-made things can be."""
    yield board.path
    yield os.path.join(board.path, "blobs")
    yield os.path.join(board.path, "layers")
    yield board.key_path
    yield from _slot_places(board.turns.path)
    yield from _slot_places(board.queue.path)
    yield os.path.join(board.path, "sprints")
    for sprint_id in board.sprints():
        sprint = board.sprint(sprint_id).path
        yield sprint
        yield os.path.join(sprint, "pauses")
        yield os.path.join(sprint, "graph")
        yield from _slot_places(os.path.join(sprint, "driver"))
        for phase in _entries(os.path.join(sprint, "phases")):
            yield from _slot_places(phase.path)


def _slot_places(slot: str) -> Iterator[str]:
    yield os.path.join(slot, "resets")
    attempts = os.path.join(slot, "attempts")
    yield attempts
    for attempt in _entries(attempts):
        if not is_tmp(attempt.name):
            yield attempt.path


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


def _is_abandoned(entry: os.DirEntry[str], unjudged_s: float) -> bool:
    maker = tmp_maker(entry.name)
    liveness = owner.maker_liveness(maker) if maker is not None else Liveness.UNKNOWN
    if liveness is not Liveness.UNKNOWN:
        return liveness is Liveness.DEAD
    try:
        changed_s = entry.stat(follow_symlinks=False).st_ctime
    except OSError:
        return False
    return clock.wall_s() - changed_s > unjudged_s
