"""`nanosup batch`: what may run at once, in dependency order."""

from __future__ import annotations

import json

from supervisor.board import place
from supervisor.config import config


def run(*, graph: str | None) -> int:
    """One object a line: {"batch": 1, "type": "read|write|exclusive", "phases": […]}."""
    batches = config.load_graph(place.find().top, graph=graph).graph.batches()
    for number, (access, phases) in enumerate(batches, 1):
        print(json.dumps({"batch": number, "type": access.value, "phases": list(phases)}))
    return 0
