"""`nanosup next`: what an agent may pick up."""

from __future__ import annotations

import json

from supervisor.artifacts.refusal import observe_checked
from supervisor.board import place, turn
from supervisor.errors import NotFoundError
from supervisor.model.decide import view
from supervisor.views.views import next_document


def run(*, sprint_id: str | None, as_json: bool, agent: str | None, graph: str | None) -> int:
    here = place.find()
    try:
        phases = observe_checked(here.board, place.choose(here.board, sprint_id)).phases
    except NotFoundError:
        if sprint_id is not None:
            raise
        from supervisor.config import config

        # None yet: what whoever claims it would begin with.
        phases = view(config.load_graph(here.top, graph=graph).graph, {})
    document = next_document(phases.values(), agent, turn.hindrance(here.board))
    if as_json:
        print(json.dumps(document, ensure_ascii=False))
    elif document["next"] is not None:
        print(document["next"])
    return 0
