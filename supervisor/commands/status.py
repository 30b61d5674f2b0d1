"""`nanosup status`: how the phases stand."""

from __future__ import annotations

import json

from supervisor import place, room
from supervisor.board import Board
from supervisor.decide import SprintState
from supervisor.errors import NotFoundError
from supervisor.footing import footings
from supervisor.observe import SprintView, observe
from supervisor.pulse import pulses
from supervisor.refusal import observe_checked
from supervisor.views import status_document


def run(*, sprint_id: str | None, as_json: bool, watch: bool, everything: bool) -> int:
    here = place.find()
    if watch:
        import anyio

        try:
            anyio.run(_watch, here.board, sprint_id)
        except KeyboardInterrupt:
            return 130
        return 0
    seen = _observe(here.board, sprint_id, everything or as_json)
    if as_json:
        found = {
            (s.record.id, name, a.n): pulses(here.board, s.record.id, name, a.n)
            for s in seen
            for name, view in s.phases.items()
            for a in view.attempts
        }
        print(
            json.dumps(
                status_document(
                    seen, found, footings(here.board, seen), room.disk_document(here.board.path)
                ),
                ensure_ascii=False,
            )
        )
        return 0
    if not seen:
        print("no sprint yet: begin one with `nanosup up`")
        return 0
    from supervisor import console

    under = footings(here.board, seen)
    for sprint in seen:
        console.show(sprint, here.board, under.get(sprint.record.id))
    return 0


def _observe(board: Board, sprint_id: str | None, everything: bool) -> list[SprintView]:
    if sprint_id is None and everything:
        return [observe_checked(board, board.sprint(known)) for known in board.sprints()]
    try:
        return [observe_checked(board, place.choose(board, sprint_id))]
    except NotFoundError:
        if sprint_id is not None:
            raise
        return []


async def _watch(board: Board, sprint_id: str | None) -> None:
    from supervisor.live import Live
    from supervisor.watch import Watch

    sprint = place.choose(board, sprint_id)
    watch = Watch()
    watch.file(sprint.journal.path)
    with Live(board, sprint) as live:
        while True:
            live.update()
            if observe(sprint).state is not SprintState.RUNNING:
                return
            await watch.changed(1.0)
