"""`nanosup unstuck`: frees a phase whose holder is gone."""

from __future__ import annotations

from supervisor import conductor, place


def run(*, phase: str, sprint_id: str | None, force: bool) -> int:
    board = place.find().board
    print(conductor.unstuck(board, place.choose(board, sprint_id), phase, force=force))
    return 0
