"""How many lanes the sprints that one process runs may have together."""

from __future__ import annotations

from collections.abc import Callable


class Quota:
    """Shared by the fleets of a process. Each says how many lanes it has; one that gives some up
    wakes the others, who may have waited for them."""

    def __init__(self) -> None:
        self._lanes: dict[str, int] = {}
        self._wake: dict[str, Callable[[], None]] = {}

    def join(self, sprint: str, wake: Callable[[], None]) -> None:
        self._lanes[sprint] = 0
        self._wake[sprint] = wake

    def leave(self, sprint: str) -> None:
        self.note(sprint, 0)
        self._lanes.pop(sprint, None)
        self._wake.pop(sprint, None)

    def note(self, sprint: str, lanes: int) -> None:
        """Says how many lanes a sprint has now."""
        fewer = lanes < self._lanes.get(sprint, 0)
        self._lanes[sprint] = lanes
        if fewer:
            for other, wake in self._wake.items():
                if other != sprint:
                    wake()

    def others(self, sprint: str) -> int:
        """How many lanes the other sprints have."""
        return sum(lanes for other, lanes in self._lanes.items() if other != sprint)
