"""`nanosup status`: how the phases stand."""

from __future__ import annotations

import json

from supervisor.artifacts.refusal import observe_checked
from supervisor.board import place, room
from supervisor.board.board import Board
from supervisor.board.footing import footings
from supervisor.board.observe import SprintView, observe
from supervisor.board.pulse import pulses
from supervisor.errors import BoardError, NotFoundError
from supervisor.model.decide import SprintState
from supervisor.views.views import status_document


def run(*, sprint_id: str | None, as_json: bool, watch: bool, everything: bool) -> int:
    here = place.find()
    if watch:
        import anyio

        try:
            anyio.run(_watch, here.board, sprint_id)
        except KeyboardInterrupt:
            return 130
        return 0
    hurt: list[BoardError] = []
    seen = _observe(here.board, sprint_id, everything or as_json, hurt)
    _show(here.board, seen, as_json=as_json)
    for error in hurt:
        raise error  # the others were shown; the first that is damaged is named
    return 0


def _show(board: Board, seen: list[SprintView], *, as_json: bool) -> None:
    if as_json:
        found = {
            (s.record.id, name, a.n): pulses(board, s.record.id, name, a.n)
            for s in seen
            for name, view in s.phases.items()
            for a in view.attempts
        }
        print(
            json.dumps(
                status_document(seen, found, footings(board, seen), room.disk_document(board.path)),
                ensure_ascii=False,
            )
        )
        return
    if not seen:
        print("no sprint yet: begin one with `nanosup up`")
        return
    from supervisor.views import console

    under = footings(board, seen)
    for sprint in seen:
        console.show(sprint, board, under.get(sprint.record.id))


def _observe(
    board: Board, sprint_id: str | None, everything: bool, hurt: list[BoardError]
) -> list[SprintView]:
    """The sprints to show. Of all of them, those that are damaged go to `hurt`."""
    if sprint_id is None and everything:
        seen = []
        for known in board.sprints():
            try:
                seen.append(observe_checked(board, board.sprint(known)))
            except NotFoundError:
                continue  # removed by a clean-up since we have listed it
            except BoardError as error:
                if known in board.sprints():
                    hurt.append(error)
        return seen
    try:
        return [observe_checked(board, place.choose(board, sprint_id))]
    except NotFoundError:
        if sprint_id is not None:
            raise
        return []


async def _watch(board: Board, sprint_id: str | None) -> None:
    from supervisor.board.watch import Watch
    from supervisor.views.live import Live

    sprint = place.choose(board, sprint_id)
    watch = Watch()
    watch.file(sprint.journal.path)
    with Live(board, sprint) as live:
        while True:
            live.update()
            if observe(sprint).state is not SprintState.RUNNING:
                return
            await watch.changed(1.0)
