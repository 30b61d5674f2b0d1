"""A rehearsal: what every keeper would do for the first time, done once before they are forked.

Decoders are made when first used, libcrypto reads its tables, the interpreter rewrites the
functions that it runs. In the template it is done for all: a fifth of a lane's start, and pages
that stay shared.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from sandbox.errors import SandboxError
from sandbox.jail import launch, namespace, survey, view
from sandbox.jail.feature import Features
from sandbox.jail.jail import Bind
from sandbox.mount import rehearsal as mount
from sandbox.repository import gitdir, repository
from supervisor import clock
from supervisor.artifacts import provenance
from supervisor.artifacts.refusal import require
from supervisor.board import disk
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import observe
from supervisor.board.owner import stamp, this_process
from supervisor.errors import SupervisorError
from supervisor.keeper.lane import CHANGES, LaneDir
from supervisor.model import lineage, name
from supervisor.model.phase import Access, Agent, Phase
from supervisor.model.record import AttemptState, Outcome, Snapshot, Sprint
from supervisor.upkeep import sweep

_NO_OBJECT = "0" * 40
_MEMORY = "/dev/shm"


def rehearse(
    state: str, top: str, features: Features, *, enough: Callable[[], bool] = lambda: False
) -> None:
    """Takes a sprint of two phases to its end, on a board of its own that is then removed, and
    looks at the repository at `top`. What does not work here will be told by who needs it.

    Args:
        state: where the board is to be if there is no file system in memory.
        enough: whether to leave it at what was done so far; asked now and then.
    """
    try:
        place = disk.tmp_path(_stage() or state)
        try:
            for act in _acts(Path(place), Path(top), features):
                if enough():
                    break
                act()
        finally:
            shutil.rmtree(place, ignore_errors=True)  # or `sweep` does, where we are killed
    except (OSError, SandboxError, SupervisorError):
        pass


def rehearse_mount(top: str) -> None:
    """Opens the repository at `top` as the server of a lane does. As `rehearse`."""
    try:
        repo = repository.find(Path(top))
        mount.rehearse(str(repo.common_dir), repo.tree)
    except (OSError, SandboxError):
        pass


def _stage() -> str | None:
    """A directory in memory: what is written there need not reach a disk. None: there is none."""
    path = f"{_MEMORY}/nanosup.{os.getuid()}"
    try:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return None  # somebody else's
    sweep.tidy(path)
    return path


def _acts(directory: Path, top: Path, features: Features) -> Iterator[Callable[[], None]]:
    board = Board(directory)
    base = Snapshot(commit=_NO_OBJECT, tree=_NO_OBJECT, base_tree=_NO_OBJECT, epoch_ns=0)
    first = Phase(name="first", agents=("agent",), access=Access.READ)
    second = Phase(name="second", agents=("agent",), depends_on=("first",), access=Access.READ)
    now = clock.utc_now()
    board.prepare()
    sprint = board.create_sprint(
        Sprint(
            id=name.sprint_id(now, os.urandom(3)),
            goal="",
            created_at=now,
            base=base,
            phases=(first, second),
            agents={"agent": Agent(name="agent", command=("true",))},
        )
    )
    for phase in (first, second):
        yield partial(_attempt, board, sprint, phase)
    yield partial(_prepare, directory / "lane", top, features)


def _prepare(place: Path, top: Path, features: Features) -> None:
    """All that goes before a lane's jail, and starts nothing."""
    repo = repository.find(top)
    uid, gid = namespace.lane_ids()
    lane = LaneDir(str(place))
    lane.make(Phase(name="first", agents=("agent",), access=Access.READ), uid=uid, gid=gid)
    stores = [(path, str(path)) for path in repo.object_dirs]
    gitdir.make(
        Path(lane.git),
        repo,
        commit=repo.commit,
        alternates=stores,
        uid=uid,
        gid=gid,
        changes=CHANGES,
    )
    ground = survey.survey(uid=uid, targets=[str(top)], environment=os.environ, home_read=[])
    seen = view.Lane(
        argv=("true",),
        uid=uid,
        gid=gid,
        repository=str(top),
        mount=lane.mount,
        home=lane.home,
        git_dir=lane.git,
        objects=tuple(Bind(str(path), seen_at) for path, seen_at in stores),
        tmp=lane.tmp,
        inputs=lane.inputs,
        outputs=lane.outputs,
    )
    launch.plan(view.jail_of(seen, ground), features, limits={})


def _attempt(board: Board, sprint: SprintDir, phase: Phase) -> None:
    seen = observe(sprint)
    require(board, sprint, seen, phase, contents=False)
    slot = sprint.slot(phase.name)
    owner = msgspec.structs.replace(
        this_process().owner("agent", clock.utc_now()),
        snapshot=lineage.snapshot_for(seen.record, seen.graph, phase, seen.phases),
        inputs=lineage.inputs_for(seen.graph, phase, seen.phases),
        after=lineage.after_for(seen.graph, phase, seen.phases),
    )
    attempt = slot.claim(1, owner)
    sprint.journal.note("attempt.claimed", phase=phase.name, attempt=attempt.n)
    outcome = Outcome(state=AttemptState.COMPLETED, ended_at=clock.utc_now(), ended=stamp())
    slot.finish(attempt, provenance.attest(board, sprint, phase, attempt, outcome))
