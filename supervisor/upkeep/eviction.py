"""What lanes of the lower tiers leave beside a board: rooms, and checkouts that nothing needs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from supervisor.board.board import Board
from supervisor.keeper.lodging import rooms_path

CHECKOUTS = "checkouts"
_TREES, _FILES, _MANIFEST = "trees", "files", ".manifest"


def rooms_left(board: Board) -> list[str]:
    """Rooms of lanes whose sprint is not there any more."""
    top = rooms_path(board.path)
    names = [name for name in _listed(top) if name not in (CHECKOUTS, "objects")]
    # Asked only now: whoever makes a room has made its sprint before.
    known = [f"{sprint}-" for sprint in board.sprints()]
    return [os.path.join(top, name) for name in names if not name.startswith(tuple(known))]


def trees_left(board: Board) -> list[str]:
    """Checkouts of trees that no sprint starts from, with their manifests.

    Raises:
        BoardError: a sprint cannot be read, so nobody knows what it needs.
    """
    tops = [os.path.join(base, _TREES) for base in _bases(board)]
    found = [os.path.join(top, name) for top in tops for name in _listed(top)]
    needed = {board.sprint(sprint).record.base.base_tree for sprint in board.sprints()}
    return [path for path in found if os.path.basename(path).removesuffix(_MANIFEST) not in needed]


@contextmanager
def files_left(board: Board) -> Iterator[list[str]]:
    """Files of checkouts' stores that no checkout and no reader's directory has any more. While it
    lasts, nobody makes a checkout of them."""
    with ExitStack() as stack:
        found = []
        for base in _bases(board):
            try:
                fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
            top = os.path.join(base, _FILES)
            for part in _listed(top):
                for name in _listed(os.path.join(top, part)):
                    path = os.path.join(top, part, name)
                    if os.lstat(path).st_nlink == 1:
                        found.append(path)
        yield found


def _bases(board: Board) -> tuple[str, ...]:
    rooms = rooms_path(board.path)
    return os.path.join(board.path, CHECKOUTS), os.path.join(rooms, CHECKOUTS)


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
