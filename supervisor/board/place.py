"""Where a command was called: the repository it is about, and its board.

Finds them by git's own rules (gitrepository-layout(5)) without a git library, which would cost
agents that only ask `nanosup next` a tenth of a second.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from sandbox.errors import GitError
from supervisor.board.board import Board, SprintDir
from supervisor.errors import NotFoundError


class Place(msgspec.Struct, frozen=True):
    """A repository and its board.

    Attributes:
        top: top of the working tree, without symbolic links.
        state: the board's directory; need not exist yet.
    """

    top: Path
    state: Path

    @property
    def board(self) -> Board:
        """Raises BoardError where it is damaged, or of a newer format."""
        return Board(self.state)


def find(start: Path | None = None) -> Place:
    """The place that `start` (the working directory) is in.

    Raises:
        GitError: it is in no git working tree.
    """
    here = Path(os.path.realpath(start or Path.cwd()))
    for directory in (here, *here.parents):
        entry = directory / ".git"
        if entry.is_dir() and (entry / "HEAD").is_file():
            return _place(directory, entry)
        if entry.is_file() and (git_dir := _pointed_to(entry)) is not None:
            return _place(directory, git_dir)
    if (here / "HEAD").is_file() and (here / "objects").is_dir():
        raise GitError(
            f"the repository {here} is bare: it has no working tree",
            hint="clone it and work in the clone",
        )
    raise GitError(
        f"{here} is not in a git repository", hint="run `git init` and commit, or go to one"
    )


def choose(board: Board, sprint_id: str | None) -> SprintDir:
    """The sprint that a command is about: the one named, else the one that was begun last.

    Raises:
        NotFoundError: there is none.
    """
    if sprint_id is not None:
        return board.sprint(sprint_id)
    known = board.sprints()
    if not known:
        raise NotFoundError("there is no sprint here yet", hint="begin one with `nanosup up`")
    return board.sprint(known[-1])


def working_on(board: Board, goal: str | None) -> SprintDir | None:
    """The sprint that work by hand belongs to: the last; with a goal the last of it that has not
    ended. None: one is to be begun.

    Raises:
        BoardError: a sprint is damaged.
    """
    from supervisor.board.observe import ENDED, observe

    for known in reversed(board.sprints()):
        found = board.sprint(known)
        if goal is None:
            return found
        if found.record.goal == goal and observe(found).state not in ENDED:
            return found
    return None


def _place(top: Path, git_dir: Path) -> Place:
    named = os.environ.get("NANOSUP_STATE")
    state = Path(os.path.abspath(named)) if named else _common_dir(git_dir) / "nanosup"
    return Place(top, state)


def _pointed_to(entry: Path) -> Path | None:
    """What a `.git` file names (a linked worktree, a submodule)."""
    try:
        text = entry.read_bytes()
    except OSError:
        return None
    if not text.startswith(b"gitdir:"):
        return None
    path = Path(os.path.realpath(entry.parent / os.fsdecode(text[7:].strip())))
    return path if path.is_dir() else None


def _common_dir(git_dir: Path) -> Path:
    try:
        text = (git_dir / "commondir").read_bytes().strip()
    except OSError:
        return git_dir
    return Path(os.path.realpath(git_dir / os.fsdecode(text)))
