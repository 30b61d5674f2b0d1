"""What follows from how attempts ended: try again, with whom, after how long, or give up. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.phase import Phase
from supervisor.record import AttemptState

_FAILURES = frozenset(
    {AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.STALLED, AttemptState.LOST}
)
_BACKOFF_START_S = 0.5
_BACKOFF_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Try:
    """Another attempt, by `agent`, no sooner than `delay_s` after the last one ended."""

    agent: str
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further attempt; `reason` is for people."""

    reason: str


def after(
    phase: Phase, history: Sequence[tuple[str, AttemptState]], *, seed: str = ""
) -> Try | GiveUp:
    """What comes after `history`, the (agent, end) of each attempt so far, oldest first.

    Each agent in `phase.agents` may fail `1 + phase.restarts` times before the next one takes
    over. Attempts that were revoked or released are nobody's failure.

    Args:
        seed: makes the jitter differ between phases; the same seed gives the same delays.
    """
    failures = [(agent, state) for agent, state in history if state in _FAILURES]
    budget = 1 + phase.restarts
    turn = len(failures) // budget
    if turn >= len(phase.agents):
        last = failures[-1][1]
        return GiveUp(f"{len(failures)} of {len(failures)} attempts failed, the last: {last}")
    streak = len(failures) % budget
    if not failures:
        return Try(phase.agents[turn])
    return Try(phase.agents[turn], backoff_s(max(streak, 1), f"{seed}{len(failures)}"))


def backoff_s(failures: int, seed: str) -> float:
    """Seconds to wait after the n-th failure in a row: exponential, half of it jitter."""
    full = min(_BACKOFF_LIMIT_S, _BACKOFF_START_S * 2.0 ** min(failures - 1, 16))
    # A digest of the seed rather than a random number: the same history gives the same answer.
    jitter = zlib.crc32(seed.encode()) / 0xFFFF_FFFF
    return full / 2 + full / 2 * jitter
