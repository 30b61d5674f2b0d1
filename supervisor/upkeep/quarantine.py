"""Putting aside what is damaged: nothing of it is guessed, mended or deleted.

    quarantine/<what it was>-<noise>/

A sprint goes whole, since its attempts' numbers must not be given out again. The writer's turn and
the line for it go only while nobody works: then no number of theirs means anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from supervisor.board import disk
from supervisor.board.board import Board
from supervisor.errors import BoardError, HeldError, NewerError
from supervisor.upkeep import inventory


def kept(board: Board) -> list[str]:
    """The paths of what was put aside."""
    directory = os.path.join(board.path, "quarantine")
    try:
        return [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
    except FileNotFoundError:
        return []


def damaged(board: Board) -> list[str]:
    """The paths of what is damaged and can be put aside: not what is of a newer format.

    Raises:
        HeldError: that is the writer's turn, and somebody works.
    """
    items = inventory.take(board)
    paths = [
        item.path
        for item in items
        if item.damage is not None and not isinstance(item.damage, NewerError)
    ]
    slots = damaged_slots(board)
    running = [item.running for item in items if item.running]
    if slots and running:
        raise HeldError(
            f"{', '.join(slots)} cannot be put aside: {running[0]}", hint="wait until nobody works"
        )
    return [*paths, *slots]


def damaged_slots(board: Board) -> dict[str, BoardError]:
    """What is wrong with the writer's turn and the line for it: path → damage."""
    found: dict[str, BoardError] = {}
    looks: list[tuple[str, Callable[[], object]]] = [
        (board.turns.path, board.turns.latest),
        (board.queue.path, board.queue.waiting),
    ]
    for path, look in looks:
        try:
            look()
        except BoardError as error:
            found[path] = error
    return found


def put_aside(board: Board, paths: Iterable[str]) -> list[str]:
    """Moves directories of the board into its quarantine. Returns where they are now.

    Raises:
        BoardError: one cannot be moved.
    """
    moved = []
    top = os.path.join(board.path, "quarantine")
    for path in paths:
        aside = os.path.join(top, f"{os.path.basename(path)}-{os.urandom(4).hex()}")
        with disk.explained(top):
            disk.make_directories(top)
            try:
                disk.publish_directory(path, aside)
            except FileNotFoundError:
                continue  # another was quicker
            disk.sync_published(top)
        moved.append(aside)
    return moved
