"""Signs of life: whether an agent still does anything, as seen from outside of its lane."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from sandbox.child import Child

_SAMPLES = 4  # looks in each `stall_s`
_LONGEST_S = 15.0


class Pulse:
    """Tells a lane that is silent from one that works.

    Signs of life are bytes in its logs and CPU time in its jail. Where the keeper itself was not
    running (stopped, or the host suspended), the silence meanwhile was not the agent's.

    Args:
        stall_s: seconds of silence that make a stall.
        sample: anything that compares equal as long as there is no sign of life.
        now_s: seconds by a monotonic clock.
    """

    def __init__(self, stall_s: float, sample: Callable[[], object], now_s: float) -> None:
        self._stall_s = stall_s
        self._interval_s = min(stall_s / _SAMPLES, _LONGEST_S)
        self._sample = sample
        self._seen = sample()
        self._alive_s = now_s
        self._looked_s = now_s

    @property
    def due_s(self) -> float:
        """When to look again."""
        return self._looked_s + self._interval_s

    def has_stalled(self, now_s: float) -> bool:
        """Looks, if it is time to, and says whether the silence has lasted too long."""
        if now_s < self.due_s:
            return False
        gap_s = now_s - self._looked_s
        seen = self._sample()
        if seen != self._seen or gap_s > 2 * self._interval_s + 1:
            self._alive_s = now_s
        self._seen, self._looked_s = seen, now_s
        return now_s - self._alive_s >= self._stall_s


def of(child: Child, logs: Iterable[int]) -> Callable[[], object]:
    """What to compare for a running child: the sizes of its logs, and its CPU time."""
    fds = tuple(logs)

    def sample() -> object:
        return (*(os.fstat(fd).st_size for fd in fds), child.cpu_s())

    return sample
