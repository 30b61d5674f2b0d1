"""What the tests of the board share: documents to write, and processes that race."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisor import clock
from supervisor.board import owner
from supervisor.board.board import Board, SprintDir
from supervisor.model import name
from supervisor.model.phase import Phase
from supervisor.model.record import AttemptState, Outcome, Owner, Snapshot, Sprint

SNAPSHOT = Snapshot(commit="c" * 40, tree="7" * 40, base_tree="7" * 40)


def sprint_record(*phases: str, sprint_id: str = "") -> Sprint:
    return Sprint(
        id=sprint_id or name.sprint_id(clock.utc_now(), os.urandom(2)),
        goal="test",
        created_at=clock.utc_now(),
        base=SNAPSHOT,
        phases=tuple(Phase(name=phase) for phase in phases or ("build", "review")),
        agents={},
    )


def new_sprint(state: Path | str, *phases: str) -> SprintDir:
    return Board(state).create_sprint(sprint_record(*phases))


def me(agent: str = "claude") -> Owner:
    return owner.this_process().owner(agent, clock.utc_now())


def ended(state: AttemptState = AttemptState.FAILED, reason: str = "") -> Outcome:
    return Outcome(state=state, ended_at=clock.utc_now(), reason=reason)


def tree(top: Path | str) -> dict[str, bytes]:
    """Every file and directory below `top`, with contents: what must not change."""
    found: dict[str, bytes] = {}
    for path in sorted(Path(top).rglob("*")):
        found[str(path.relative_to(top))] = path.read_bytes() if path.is_file() else b"/"
    return found


def leftovers(top: Path | str) -> list[str]:
    return [path for path in tree(top) if "tmp." in path]


class Child:
    """A forked process that runs a function; its result, or its failure, comes back by pipe."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self._read, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        status = 1
        try:
            os.close(self._read)
            try:
                answer = (True, run())
            except BaseException:
                answer = (False, traceback.format_exc())
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(answer, pipe)
            status = 0
        finally:
            os._exit(status)

    def result(self) -> Any:
        with os.fdopen(self._read, "rb") as pipe:
            data = pipe.read()
        os.waitpid(self.pid, 0)
        ok, value = pickle.loads(data)
        assert ok, value
        return value

    def forget(self) -> None:
        os.close(self._read)
