"""`nanosup reload`: an edited nanosup.toml takes hold in the sprint that runs."""

from __future__ import annotations

import json
import sys

from sandbox.repository import repository
from supervisor import clock
from supervisor.artifacts import amended
from supervisor.board import place
from supervisor.board.board import SprintDir
from supervisor.board.observe import SprintView, observe
from supervisor.commands import restart as restarting
from supervisor.config import config
from supervisor.errors import CompletedError
from supervisor.fleet import sprint
from supervisor.keeper.planted import check_hooks_are_no_lanes
from supervisor.model.amend import Amendment, amend
from supervisor.model.decide import PhaseState, SprintState


def run(
    *,
    sprint_id: str | None,
    agent: str | None,
    graph: str | None,
    restart: bool,
    check: bool,
    as_json: bool,
) -> int:
    """A file that is not valid, or would change what was begun, changes nothing."""
    here = place.find()
    chosen = place.choose(here.board, sprint_id)
    wanted = config.load(here.top, agent=agent, graph=graph)
    sprint.check_agents(wanted.agents, here.top)
    sprint.check_hooks(wanted.hooks, here.top)
    check_hooks_are_no_lanes(here.board, repository.find(here.top), wanted.hooks)
    seen = observe(chosen)
    if seen.state is SprintState.COMPLETED:
        raise CompletedError(
            f"sprint {chosen.id} is completed, and nothing in it can change any more",
            hint="`nanosup up` begins a new one with the file as it is",
        )
    change = amend(
        seen.record,
        wanted.graph.order,
        wanted.agents,
        wanted.workspace.max_lanes,
        begun=[name for name, view in seen.phases.items() if view.attempts],
        at=clock.utc_now(),
    )
    number = None
    if not check:
        number = None
        if change.changes:
            made = amended.signed(here.board, chosen, change.revision)
            number = chosen.revisions.append(made)
        # Told in any case: `up` reads its hooks again.
        chosen.journal.append(
            "sprint.reloaded",
            revision=number,
            changed=[f"{one.what} {one.kind}" for one in change.changes],
        )
    running = _running(seen, change)
    if restart and not check:
        for name in running:
            restarting.begin_anew(chosen, name)
    _tell(chosen, change, number, running, as_json=as_json, restarted=restart and not check)
    return 0


def _running(seen: SprintView, change: Amendment) -> list[str]:
    """The phases whose running attempt goes by what was before."""
    return [name for name in change.touched
            if name in seen.phases and seen.phases[name].state is PhaseState.RUNNING]  # fmt: skip


def _tell(
    chosen: SprintDir,
    change: Amendment,
    number: int | None,
    running: list[str],
    *,
    as_json: bool,
    restarted: bool,
) -> None:
    if as_json:
        changes = [
            {"what": one.what, "kind": one.kind, "keys": list(one.keys)} for one in change.changes
        ]
        document = {
            "sprint": chosen.id, "revision": number, "changes": changes,
            "running": running, "restarted": running if restarted else [],
        }  # fmt: skip
        print(json.dumps(document))
        return
    for one in change.changes:
        keys = f": {', '.join(one.keys)}" if one.keys else ""
        print(f"{one.what} {one.kind}{keys}")
    if not change.changes:
        print("the graph is as it was")
    for name in running:
        if restarted:
            print(f"{name} begins anew")
        else:
            print(
                f"nanosup: {name} runs on as it was begun; `nanosup restart {name}` applies it now",
                file=sys.stderr,
            )
