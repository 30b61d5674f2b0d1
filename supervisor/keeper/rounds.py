"""How often a keeper looks after its lane. No clock: times are given."""

from __future__ import annotations

OFTEN_S = 5.0
SELDOM_S = 20.0


class Rounds:
    """Every few seconds; where nothing happens less and less often, since to wake up costs
    milliseconds on a host that idles, and there may be a hundred keepers.

    Args:
        always: nothing may be missed: it is as often, whatever happens.

    Attributes:
        due_s: when to look next, by the same clock as `now_s`.
    """

    def __init__(self, now_s: float, *, always: bool = False) -> None:
        self._longest_s = OFTEN_S if always else SELDOM_S
        self._interval_s = OFTEN_S
        self.due_s = now_s + OFTEN_S

    def made(self, now_s: float, *, quiet: bool) -> None:
        """It was looked; `quiet`: nothing had happened since the time before."""
        self._interval_s = min(self._interval_s * 2, self._longest_s) if quiet else OFTEN_S
        self.due_s = now_s + self._interval_s

    def stir(self, now_s: float) -> None:
        """Something happens."""
        self._interval_s = OFTEN_S
        self.due_s = min(self.due_s, now_s + OFTEN_S)
