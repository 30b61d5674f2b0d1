"""Holding a lane still while its phase is paused."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.jail.freezer import Freezer


class Halt:
    """Whether a lane stands still, and since when.

    Args:
        is_paused: what the board says.
        noted: told once the lane stands still, and once it goes on.
    """

    def __init__(
        self,
        is_paused: Callable[[], bool],
        freezer: Freezer,
        noted: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._is_paused = is_paused
        self._freezer = freezer
        self._noted = noted
        self._since_s: float | None = None

    @property
    def is_on(self) -> bool:
        return self._since_s is not None

    def look(self, now_s: float) -> float:
        """Does what the board says. Returns for how many seconds the lane stood still, if that
        has just ended; else 0.

        Args:
            now_s: seconds by a monotonic clock.
        """
        if not self._is_paused():
            return self.lift(now_s)
        self._freezer.freeze()  # again too: somebody may have continued a process by hand
        if self._since_s is None:
            self._since_s = now_s
            self._noted(True)
        return 0.0

    def lift(self, now_s: float) -> float:
        """Lets the lane go on, whatever the board says. Returns as `look`."""
        if self._since_s is None:
            return 0.0
        self._freezer.thaw()
        stood_s, self._since_s = now_s - self._since_s, None
        self._noted(False)
        return stood_s

    def close(self) -> None:
        self._freezer.close()
