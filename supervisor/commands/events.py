"""`nanosup events`: what happened, in order, and as it happens."""

from __future__ import annotations

import json
import os
import sys

from supervisor.board import place
from supervisor.board.board import Board, SprintDir
from supervisor.board.journal import Event
from supervisor.views.views import event_document, event_line


def run(*, sprint_id: str | None, as_json: bool, follow: bool) -> int:
    board = place.find().board
    if not follow:
        sprint = place.choose(board, sprint_id)
        for event in sprint.journal.read():
            _print(sprint, event, as_json)
        return 0
    import anyio

    try:
        anyio.run(_follow, board, sprint_id, as_json)
    except KeyboardInterrupt:
        return 130
    return 0


async def _follow(board: Board, sprint_id: str | None, as_json: bool) -> None:
    from supervisor.board.watch import Watch

    watch = Watch()
    while sprint_id is None and not board.sprints():
        # None yet: whoever follows from before the first one misses nothing of it.
        watch.directory(_nearest(os.path.join(board.path, "sprints")))
        if not board.sprints():
            await watch.changed()
    sprint = place.choose(board, sprint_id)
    watch.file(sprint.journal.path)
    offset = 0
    while True:
        for event in sprint.journal.read(offset):
            offset = event.end
            _print(sprint, event, as_json)
            if event.event == "sprint.ended":
                return
        sys.stdout.flush()
        await watch.changed()


def _nearest(path: str) -> str:
    """`path`, or the nearest directory above it that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _print(sprint: SprintDir, event: Event, as_json: bool) -> None:
    if as_json:
        print(json.dumps(event_document(sprint.id, event), ensure_ascii=False))
    else:
        print(event_line(event))
