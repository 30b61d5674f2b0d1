"""`nanosup next`: what an agent may pick up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from supervisor.artifacts.refusal import observe_checked
from supervisor.board import place, turn
from supervisor.errors import NotFoundError
from supervisor.model.decide import PhaseView, view
from supervisor.views.views import next_document


def run(
    *, sprint_id: str | None, as_json: bool, agent: str | None, waits: bool, graph: str | None
) -> int:
    here = place.find()
    board = here.board

    def found(phases: Mapping[str, PhaseView]) -> dict[str, Any]:
        return next_document(phases.values(), agent, turn.hindrance(board))

    try:
        sprint = place.choose(board, sprint_id)
        document = found(observe_checked(board, sprint).phases)
        if waits and document["next"] is None:
            from supervisor.board.patience import await_change

            await_change(board, sprint, lambda seen: found(seen.phases)["next"] is not None)
            document = found(observe_checked(board, sprint).phases)
    except NotFoundError:
        if sprint_id is not None:
            raise
        from supervisor.config import config

        # None yet: what whoever claims it would begin with.
        document = found(view(config.load_graph(here.top, graph=graph).graph, {}))
    if as_json:
        print(json.dumps(document, ensure_ascii=False))
    elif document["next"] is not None:
        print(document["next"])
    return 0
