"""Hooks that a lane has written. They would run outside of every lane, so they are not run unasked.

`[hooks]` is a user's own word in `nanosup.toml`, which is a file of the repository like any other:
an agent may change it in its lane, and what it sealed may be merged.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from typing import Any

import pygit2

from sandbox.repository.repository import Repository
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import observe
from supervisor.config.schema import Hooks, convert
from supervisor.errors import ConfigError, SupervisorError

FILE = "nanosup.toml"
TRUST = "NANOSUP_TRUST_HOOKS"


def check_hooks_are_no_lanes(board: Board, repo: Repository, hooks: Hooks) -> None:
    """Returns unless `hooks` are what an attempt of a sprint on this board has put into the file.

    Raises:
        ConfigError: they are; says whose.
    """
    if not hooks.on_event or os.environ.get(TRUST):
        return
    handle = repo.open()
    if os.path.isdir(board.objects_path):
        handle.odb.add_disk_alternate(board.objects_path)
    for sprint_id in board.sprints():
        for phase, before, after in _sealed(board.sprint(sprint_id)):
            found = _hooks(handle, after)
            if found == hooks and found != _hooks(handle, before):
                raise ConfigError(
                    f"{FILE}: [hooks] was written in a lane, by phase {phase!r} of sprint "
                    f"{sprint_id}, and would run outside of every lane",
                    hint=f"read it, and if you want it: {TRUST}=1 nanosup …",
                )


def _sealed(sprint: SprintDir) -> Iterator[tuple[str, str, str]]:
    """(phase, commit before, commit after) of what was sealed."""
    try:
        seen = observe(sprint)
    except SupervisorError:
        return  # whatever is damaged is told by who needs it
    for name, view in seen.phases.items():
        for attempt in view.attempts:
            sealed = attempt.outcome.sealed if attempt.outcome else None
            if sealed is not None:
                yield name, seen.record.base.commit, sealed.commit


def _hooks(handle: pygit2.Repository, commit: str) -> Hooks | None:
    """`[hooks]` of the file in a commit; None where there are none that are valid."""
    try:
        blob: Any = handle[commit].peel(pygit2.Tree)[FILE]
        table = tomllib.loads(blob.data.decode())["hooks"]
        return convert(table, Hooks, "hooks")
    except (KeyError, ValueError, AttributeError, ConfigError, pygit2.GitError):
        return None
