"""Signs of life: whether an agent still does anything, as seen from outside of its lane."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

from sandbox.jail.held import Held
from supervisor.model.phase import Sign

_SAMPLES = 4  # looks in each `stall_s`
_LONGEST_S = 15.0
_SUSPENDED_S = 0.5


class Pulse:
    """Tells a lane that is silent from one that works.

    Silence is what was seen by looking. Between two looks no more of it counts than the time that
    was meant to pass, so that the hours in which the keeper itself was stopped are nobody's
    silence; and where the host was suspended meanwhile, the count begins anew, since connections
    broke and the agent has to find that out.

    Args:
        stall_s: seconds of silence that make a stall.
        sample: anything that compares equal as long as there is no sign of life.
        now_s: seconds by a clock that only goes forward (CLOCK_MONOTONIC).
        suspended_s: seconds that the host has been suspended so far (CLOCK_BOOTTIME less that).
    """

    def __init__(
        self,
        stall_s: float,
        sample: Callable[[], object],
        now_s: float,
        suspended_s: float = 0.0,
    ) -> None:
        self._stall_s = stall_s
        self._interval_s = min(stall_s / _SAMPLES, _LONGEST_S)
        self._sample = sample
        self._seen = sample()
        self._silent_s = 0.0
        self._looked_s = now_s
        self._suspended_s = suspended_s

    @property
    def due_s(self) -> float:
        """When to look again."""
        return self._looked_s + min(self._interval_s, self._stall_s - self._silent_s)

    def has_stalled(self, now_s: float, suspended_s: float = 0.0) -> bool:
        """Looks, if it is time to, and says whether the silence has lasted too long."""
        if now_s < self.due_s:
            return False
        meant_s = self.due_s - self._looked_s
        seen = self._sample()
        if seen != self._seen or suspended_s - self._suspended_s > _SUSPENDED_S:
            self._silent_s = 0.0
        else:
            self._silent_s += meant_s
        self._seen, self._looked_s, self._suspended_s = seen, now_s, suspended_s
        return self._silent_s >= self._stall_s

    def begin_anew(self, now_s: float, suspended_s: float = 0.0) -> None:
        """Counts from now: what was before was no silence of the agent's."""
        self._seen = self._sample()
        self._silent_s, self._looked_s, self._suspended_s = 0.0, now_s, suspended_s


def of(
    signs: Collection[Sign],
    *,
    child: Held,
    logs: Iterable[int],
    operations: Callable[[], int],
    beat: str,
) -> Callable[[], object]:
    """What to compare for a running child.

    Args:
        logs: descriptors of its logs.
        operations: how many requests its file system has had.
        beat: path of the file whose touching is a beat. It is the agent's, and not opened.
    """
    fds = tuple(logs) if Sign.OUTPUT in signs else ()

    def sample() -> object:
        seen: list[object] = [os.fstat(fd).st_size for fd in fds]
        if Sign.CPU in signs:
            seen.append(child.cpu_s())
        if Sign.FS in signs:
            seen.append(operations())
        try:
            status = os.lstat(beat)
            seen.append((status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
        except OSError:
            seen.append(None)
        return seen

    return sample
