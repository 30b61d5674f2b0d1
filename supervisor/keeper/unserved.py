"""A lane's view that no process of ours serves: there is nobody to die under it, or to ask."""

from __future__ import annotations

import os


class Unserved:
    """What `overlaid.Overlaid` and `plain.Plain` are of `mount.Mount` without doing anything."""

    def __init__(self) -> None:
        self._never, self._held_open = os.pipe()

    def fileno(self) -> int:
        """Never readable: no process of ours can die under this view."""
        return self._never

    def operations(self) -> int:
        """Nobody counts."""
        return 0

    def counters(self) -> dict[str, int]:
        """Nobody counts."""
        return {}

    def kill(self) -> None:
        """There is nobody to kill."""

    def _close(self) -> None:
        os.close(self._never)
        os.close(self._held_open)
