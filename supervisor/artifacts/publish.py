"""Refs for what was sealed: refs/nanosup/<sprint>/<phase>.

A ref only repeats what an outcome on the board says. So it is set after the outcome is written, and
whoever finds it missing or behind (the keeper was killed in between) sets it again.
"""

from __future__ import annotations

from sandbox.repository.reference import publish, resolve
from sandbox.repository.repository import Repository
from supervisor.board.observe import SprintView
from supervisor.model.decide import PhaseView


def ref_of(sprint: str, phase: str) -> str:
    """The ref at which what `phase` sealed is found."""
    return f"refs/nanosup/{sprint}/{phase}"


def publish_all(repo: Repository, seen: SprintView) -> None:
    """Makes every ref of the sprint what its phase's completed attempt says. Idempotent.

    Raises:
        GitError: a ref cannot be written.
    """
    for name, view in seen.phases.items():
        done = view.completed
        if done is None or done.outcome is None or done.outcome.sealed is None:
            continue
        ref, commit = ref_of(seen.record.id, name), done.outcome.sealed.commit
        current = resolve(repo, ref)
        # Whoever looked at the board before a later attempt was completed must not undo its ref.
        if current in (None, *_earlier(view, done.n)):
            publish(repo, ref, commit, current)


def _earlier(view: PhaseView, n: int) -> list[str]:
    """What earlier attempts at the phase have sealed."""
    return [
        attempt.outcome.sealed.commit
        for attempt in view.attempts
        if attempt.n < n and attempt.outcome is not None and attempt.outcome.sealed is not None
    ]
