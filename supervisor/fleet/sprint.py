"""Beginning a sprint: everything is checked first, then it is put on the board in one step."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sandbox.repository.repository import Repository
from sandbox.repository.snapshot import snapshot
from supervisor import clock
from supervisor.board import disk
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import observe
from supervisor.board.place import working_on
from supervisor.config.config import Config
from supervisor.config.schema import Hooks
from supervisor.errors import BlockedError, ConfigError
from supervisor.fleet.stack import foundation, sealed
from supervisor.model import name
from supervisor.model.phase import Agent
from supervisor.model.record import Snapshot, Sprint

# git takes a file for possibly changed ("racy") when its time is not older than the index's. So
# what comes from the tree is shown as this much older than the sprint.
_SETTLED_S = 60


def begin(
    board: Board,
    repo: Repository,
    config: Config,
    *,
    goal: str,
    on: tuple[str, Snapshot] | None = None,
) -> SprintDir:
    """Puts a new sprint on the board.

    Args:
        on: the sprint that it is stacked on, and what that has sealed, to be its base.

    Raises:
        BoardError: the board cannot be written; nothing was.
        GitError: the snapshot cannot be made.
    """
    board.prepare()
    if on is None:
        commit, tree = snapshot(repo, config.workspace.snapshot, Path(board.objects_path))
    else:
        commit, tree = on[1].commit, on[1].tree
    now = clock.utc_now()
    record = Sprint(
        id=name.sprint_id(now, os.urandom(3)),
        goal=goal,
        created_at=now,
        base=Snapshot(
            commit=commit,
            tree=tree,
            base_tree=tree,
            epoch_ns=(int(time.time()) - _SETTLED_S) * 1_000_000_000,
        ),
        phases=config.graph.order,
        agents=config.agents,
        branch=repo.branch or "",
        max_lanes=config.workspace.max_lanes,
        mount=config.workspace.mount,
        require=config.workspace.require,
        stacked_on=on[0] if on else None,
    )
    sprint = board.create_sprint(record)
    sprint.journal.append(
        "sprint.created", goal=goal, commit=commit, tree=tree, stacked_on=record.stacked_on
    )
    return sprint


def current(
    board: Board, repo: Repository, wanted: Callable[[], Config], *, goal: str | None
) -> SprintDir:
    """The sprint that work by hand belongs to: the last one, or a new one where there is none.

    Args:
        wanted: reads the configuration; called only where a sprint has to be begun.
        goal: the last sprint of this goal that has not ended, or a new one for it.

    Raises:
        BlockedError: a new one is to be stacked on a sprint that has not sealed anything yet.
    """
    if (found := working_on(board, goal)) is not None:
        return found
    config = wanted()
    with beginning(board):
        # Agents that are started together are to work on one sprint, whoever comes first.
        if (found := working_on(board, goal)) is not None:
            return found
        return begin(board, repo, config, goal=goal or "", on=_on(board, repo, config))


@contextmanager
def beginning(board: Board) -> Iterator[None]:
    """Waits until nobody else looks which sprints there are to begin one. The kernel ends it for
    who dies.

    Raises:
        BoardError: the board cannot be written.
    """
    board.prepare()
    path = os.path.join(board.path, "begin.lock")
    with disk.explained(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with disk.explained(path):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _on(board: Board, repo: Repository, config: Config) -> tuple[str, Snapshot] | None:
    below = foundation(board, repo) if config.workspace.stack else None
    if below is None:
        return None
    base = sealed(observe(below))
    if base is None:
        raise BlockedError(
            f"sprint {below.id}, on which this one is to be stacked, is still being built",
            hint="wait for it, or begin with `nanosup up --no-stack --goal …`",
        )
    return below.id, base


def check_agents(agents: Mapping[str, Agent], top: Path) -> None:
    """Raises ConfigError for the first agent whose program is not on this host."""
    for agent in agents.values():
        if where := _missing(agent.command[0], top):
            raise ConfigError(
                f"agent {agent.name!r} is not installed: {where}",
                hint="install it, or name another agent for its phases",
            )


def check_hooks(hooks: Hooks, top: Path) -> None:
    """Raises ConfigError if the hook's program is not on this host."""
    if hooks.on_event and (where := _missing(hooks.on_event[0], top)):
        raise ConfigError(f"hooks.on_event: {where}", hint="install it, or take the hook away")


def _missing(program: str, top: Path) -> str:
    """Says that a program is not to be found; empty where it is."""
    if "/" not in program:
        return "" if shutil.which(program) is not None else f"{program!r} is not on PATH"
    found = os.access(top / program, os.X_OK)
    return "" if found else f"{program} is not there, or cannot be executed"
