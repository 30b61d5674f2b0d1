"""What follows from how attempts ended: try again, with whom, after how long, or give up. Pure."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence

import msgspec

from supervisor.model.phase import Phase
from supervisor.model.record import AttemptState, Trouble

_FAILURES = frozenset(
    {AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.STALLED, AttemptState.LOST}
)
_BACKOFF_LIMIT_S = 60.0
_PARK_START_S = 60.0
_PARK_LIMIT_S = 3600.0
_NO_SPACE_S = 2.0


class Past(msgspec.Struct, frozen=True, gc=False):
    """An attempt that has ended, as far as it matters here.

    Attributes:
        age_s: seconds since its end; infinite where nobody knows.
        retry_s: seconds after its end before which its agent is not to be tried again.
    """

    agent: str
    state: AttemptState
    age_s: float = float("inf")
    trouble: Trouble | None = None
    retry_s: float | None = None


class Reset(msgspec.Struct, frozen=True):
    """A person asked to begin anew: nothing of what was before counts any more.

    Attributes:
        after: the number of the last attempt at that time; 0 = none.
        agent: takes the first turn, whoever is the first choice else.
    """

    after: int
    agent: str | None = None


class Try(msgspec.Struct, frozen=True):
    """Another attempt, by `agent`, in `wait_s` seconds from now.

    Attributes:
        why: what is waited for, in words; empty where there is nothing to wait for.
    """

    agent: str
    wait_s: float = 0.0
    why: str = ""


class GiveUp(msgspec.Struct, frozen=True):
    """No further attempt; `reason` is for people."""

    reason: str


class _Tally(msgspec.Struct):
    """What counts for or against one agent.

    Attributes:
        failures: ages of those that count, oldest first.
        spent: it failed too often.
        barred: it cannot work before a person has done something.
        parks: how many times in a row its provider let it wait.
        ready_s: seconds from now until its provider lets it go on.
    """

    failures: deque[float] = msgspec.field(default_factory=deque)
    spent: bool = False
    barred: bool = False
    parks: int = 0
    ready_s: float = 0.0

    @property
    def is_out(self) -> bool:
        return self.spent or self.barred


def after(
    phase: Phase, history: Sequence[Past], *, resets: Sequence[Reset] = (), seed: str = ""
) -> Try | GiveUp:
    """What comes after `history`, the attempts so far, oldest first.

    An agent that fails more than `phase.restarts` times within `phase.window_s` (the intensity of
    a supervisor in OTP) is out, and the next one takes over. Attempts that were revoked or
    released, or failed for want of disk space, are nobody's failure. An agent whose provider lets
    it wait is passed over until then, and one that is not logged in is out.

    Args:
        resets: in the order in which they were asked for.
        seed: makes the jitter differ between phases; the same seed gives the same delays.
    """
    order = phase.agents
    tallies = {agent: _Tally() for agent in order}
    wait_s = 0.0
    failed = 0
    asked = {reset.after: reset for reset in resets}  # the last one at a number holds
    for n, past in enumerate((None, *history)):
        if past is not None:
            last = n == len(history)  # of all others it does not matter how long to wait
            wait_s = _count(phase, order, tallies, past, f"{seed}{n}" if last else None)
            failed += past.state in _FAILURES
        if (reset := asked.get(n)) is not None:
            first = () if reset.agent is None else (reset.agent,)
            order = tuple(dict.fromkeys((*first, *phase.agents)))
            tallies = {agent: _Tally() for agent in order}
            wait_s, failed = 0.0, 0
    if not order:
        return GiveUp("no agent is named for it")
    usable = [agent for agent in order if not tallies[agent].is_out]
    if not usable:
        return GiveUp(_epitaph(tallies, failed, history[-1].state))
    ready = next((agent for agent in usable if tallies[agent].ready_s <= 0), None)
    if ready is None:
        soonest = min(usable, key=lambda agent: tallies[agent].ready_s)
        return Try(soonest, tallies[soonest].ready_s, f"{soonest} is rate limited")
    return Try(ready, wait_s, "backing off" if wait_s else "")


def _count(
    phase: Phase, order: Sequence[str], tallies: dict[str, _Tally], past: Past, seed: str | None
) -> float:
    """Enters one attempt into the tallies. Returns how long everybody has to wait after it; without
    a seed not how long to back off."""
    agent = past.agent
    if agent not in tallies:  # by hand: it counts against whose turn it was
        agent = next((name for name in order if not tallies[name].is_out), agent)
    tally = tallies.setdefault(agent, _Tally())
    if past.state not in _FAILURES:
        return 0.0
    if past.trouble is Trouble.NO_SPACE:
        return max(0.0, _NO_SPACE_S - past.age_s)
    if past.trouble is Trouble.NOT_LOGGED_IN:
        tally.barred = True
        return 0.0
    if past.trouble is Trouble.RATE_LIMITED:
        tally.parks += 1
        tally.ready_s = _park_s(past, tally.parks) - past.age_s
        return 0.0
    tally.parks = 0
    _forget(tally.failures, past.age_s, phase.window_s)
    tally.failures.append(past.age_s)
    if len(tally.failures) > phase.restarts:
        tally.spent = True
        return 0.0  # the next agent has not failed yet
    if seed is None:
        return 0.0
    delay_s = backoff_s(len(tally.failures), seed, start_s=phase.backoff_s)
    return max(0.0, delay_s - past.age_s)


def _forget(failures: deque[float], age_s: float, window_s: float | None) -> None:
    """Drops the failures that were longer than the window before the one of `age_s`."""
    # Of two whose time nobody knows the difference is no number, and no comparison holds.
    while window_s is not None and failures and failures[0] - age_s > window_s:
        failures.popleft()


def _park_s(past: Past, times: int) -> float:
    if past.retry_s is not None:
        return past.retry_s
    return min(_PARK_LIMIT_S, _PARK_START_S * 2.0 ** min(times - 1, 16))


def _epitaph(tallies: dict[str, _Tally], failed: int, last: AttemptState) -> str:
    barred = [agent for agent, tally in tallies.items() if tally.barred]
    if barred:
        who = ", ".join(barred)
        return f"not logged in: {who}; log in, then `nanosup restart` the phase"
    return f"{failed} of {failed} attempts failed, the last: {last}"


def backoff_s(failures: int, seed: str, *, start_s: float = 0.5) -> float:
    """Seconds to wait after the n-th failure in a row: exponential, half of it jitter."""
    full = min(max(_BACKOFF_LIMIT_S, start_s), start_s * 2.0 ** min(failures - 1, 16))
    # A digest of the seed rather than a random number: the same history gives the same answer.
    jitter = zlib.crc32(seed.encode()) / 0xFFFF_FFFF
    return full / 2 + full / 2 * jitter
