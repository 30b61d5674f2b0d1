"""The attempts at the phases of a sprint, and which of them still count. Pure.

An attempt goes on from one attempt at each phase further up (`Owner.after`). It is *superseded*
once one of those is no longer the last completed one, or is superseded itself: then it is about
something that is not there any more. Nothing is written down when that happens; it follows.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from supervisor.model.graph import Graph
from supervisor.model.record import AttemptState, Outcome, Owner, Verdict


class AttemptView(msgspec.Struct, frozen=True, gc=False):
    """An attempt as observed.

    Attributes:
        state: RUNNING only while its owner is alive; an owner that died without an outcome makes
            it LOST, and `outcome` None.
        age_s: seconds since its end; infinite where nobody knows.
    """

    n: int
    owner: Owner
    outcome: Outcome | None
    state: AttemptState
    age_s: float = float("inf")

    @property
    def verdict(self) -> Verdict | None:
        return self.outcome.verdict if self.outcome else None

    @property
    def is_completed(self) -> bool:
        return self.state is AttemptState.COMPLETED


Attempts = tuple[AttemptView, ...]


def last_completed(tried: Attempts) -> AttemptView | None:
    """The newest attempt that was completed, whatever came after it."""
    return next((attempt for attempt in reversed(tried) if attempt.is_completed), None)


def current(graph: Graph, attempts: Mapping[str, Attempts]) -> dict[str, AttemptView]:
    """The completed attempt of each phase that counts, where there is one."""
    found: dict[str, AttemptView] = {}
    for phase in graph.order:
        done = last_completed(attempts.get(phase.name, ()))
        if done is not None and goes_on_from(done, graph.ancestors(phase.name), found):
            found[phase.name] = done
    return found


def goes_on_from(
    attempt: AttemptView, ancestors: tuple[str, ...], found: Mapping[str, AttemptView]
) -> bool:
    """Whether an attempt goes on from the attempts that count now."""
    after = attempt.owner.after
    if after is None or not ancestors:
        return True
    return all(name in found and found[name].n == after.get(name) for name in ancestors)


def round_of(attempt: AttemptView, tried: Attempts, attempts: Mapping[str, Attempts]) -> int:
    """The round that an attempt belongs to: how often it, or what it goes on from, was made.

    Args:
        tried: the attempts at its own phase.
    """
    own = sum(other.is_completed for other in tried if other.n < attempt.n)
    upstream = [
        sum(other.is_completed for other in attempts.get(name, ()) if other.n <= n)
        for name, n in (attempt.owner.after or {}).items()
    ]
    return max(1 + own, *upstream) if upstream else 1 + own
