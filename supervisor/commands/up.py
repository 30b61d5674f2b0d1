"""`nanosup up`: runs the fleet."""

from __future__ import annotations

from supervisor.board import place
from supervisor.fleet.ask import Ask
from supervisor.fleet.template import Template, keeper_log


def run(ask: Ask) -> int:
    here = place.find()
    board = here.board
    template = Template(keeper_log(board.path), str(here.top))
    if not ask.detach:
        template.begin()  # it takes as long to import what it needs as we do
    try:
        from supervisor.fleet import begin

        return begin.run(here, template, ask)
    finally:
        template.dismiss()
