"""`nanosup up`: runs the fleet."""

from __future__ import annotations

from supervisor.board import place
from supervisor.fleet.template import Template, keeper_log


def run(
    *,
    goals: tuple[str, ...],
    agent: str | None,
    graph: str | None,
    stack: bool | None,
    detach: bool,
    plain: bool,
    as_json: bool,
) -> int:
    here = place.find()
    board = here.board
    template = Template(keeper_log(board.path), str(here.top))
    if not detach:
        template.begin()  # it takes as long to import what it needs as we do
    try:
        from supervisor.fleet import begin

        return begin.run(
            here,
            template,
            goals=goals,
            agent=agent,
            graph=graph,
            stack=stack,
            detach=detach,
            plain=plain,
            as_json=as_json,
        )
    finally:
        template.dismiss()
