"""Which phases are to stand still, from what was asked for in order. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class PauseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A pause, or the end of one, as it is on the board.

    Attributes:
        phase: None = every phase of the sprint, those to come included.
        at: shown only.
    """

    paused: bool
    at: str
    phase: str | None = None


class Standstill(msgspec.Struct, frozen=True):
    """What is paused.

    Attributes:
        everything: what holds for a phase that nobody has named since.
        named: what holds for those that were.
    """

    everything: bool = False
    named: dict[str, bool] = {}

    def covers(self, phase: str) -> bool:
        """Whether `phase` is paused."""
        return self.named.get(phase, self.everything)


def standstill(asked: Iterable[PauseRecord]) -> Standstill:
    """What follows from all that was asked for: the last word about a phase holds."""
    result = Standstill()
    for record in asked:
        if record.phase is None:
            result = Standstill(record.paused)
        else:
            result = Standstill(result.everything, {**result.named, record.phase: record.paused})
    return result
