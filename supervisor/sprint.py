"""Beginning a sprint: everything is checked first, then it is put on the board in one step."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sandbox.repository import Repository
from sandbox.snapshot import snapshot
from supervisor import clock, name
from supervisor.board import Board, SprintDir
from supervisor.config import Config
from supervisor.decide import SprintState
from supervisor.errors import ConfigError
from supervisor.observe import observe
from supervisor.phase import Agent
from supervisor.record import Snapshot, Sprint

# git takes a file for possibly changed ("racy") when its time is not older than the index's. So
# what comes from the tree is shown as this much older than the sprint.
_SETTLED_S = 60
_ENDED = frozenset({SprintState.COMPLETED, SprintState.FAILED, SprintState.REJECTED})


def begin(board: Board, repo: Repository, config: Config, *, goal: str) -> SprintDir:
    """Puts a new sprint on the board.

    Raises:
        BoardError: the board cannot be written; nothing was.
        GitError: the snapshot cannot be made.
    """
    board.prepare()
    commit, tree = snapshot(repo, config.workspace.snapshot, Path(board.objects_path))
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
    )
    sprint = board.create_sprint(record)
    sprint.journal.append("sprint.created", goal=goal, commit=commit, tree=tree)
    return sprint


def current(
    board: Board, repo: Repository, wanted: Callable[[], Config], *, goal: str | None
) -> SprintDir:
    """The sprint that work by hand belongs to: the last one, or a new one where there is none.

    Args:
        wanted: reads the configuration; called only where a sprint has to be begun.
        goal: the last sprint of this goal that has not ended, or a new one for it.
    """
    for known in reversed(board.sprints()):
        found = board.sprint(known)
        if goal is None:
            return found
        if found.record.goal == goal and observe(found).state not in _ENDED:
            return found
    return begin(board, repo, wanted(), goal=goal or "")


def check_agents(agents: Mapping[str, Agent], top: Path) -> None:
    """Raises ConfigError for the first agent whose program is not on this host."""
    for agent in agents.values():
        program = agent.command[0]
        if "/" in program:
            found = os.access(top / program, os.X_OK)
            where = f"{program} is not there, or cannot be executed"
        else:
            found = shutil.which(program) is not None
            where = f"{program!r} is not on PATH"
        if not found:
            raise ConfigError(
                f"agent {agent.name!r} is not installed: {where}",
                hint="install it, or name another agent for its phases",
            )
