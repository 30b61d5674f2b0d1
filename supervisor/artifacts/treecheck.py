"""Whether what a sprint has sealed is still there, and still what was signed: git's objects, the
refs that name them, and the layers that lanes are mounted from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sandbox.errors import GitError
from sandbox.repository.reference import resolve
from sandbox.repository.repository import Repository
from sandbox.repository.seal import fold_again
from supervisor.artifacts.audit import Bad
from supervisor.artifacts.publish import ref_of
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board, SprintDir
from supervisor.model.lineage import maker_of
from supervisor.model.record import AttemptState, Snapshot


def check_trees(repo: Repository, board: Board, sprint: SprintDir) -> Iterator[Bad]:
    """Yields what is wrong with the trees of a sprint.

    Raises:
        BoardError: the board is damaged.
    """
    for phase in sprint.record.phases:
        attempts = sprint.slot(phase.name).attempts()
        sealed = [
            (attempt, attempt.outcome.sealed)
            for attempt in attempts
            if attempt.outcome is not None and attempt.outcome.sealed is not None
        ]
        for attempt, snapshot in sealed:
            if attempt.state is AttemptState.COMPLETED:
                yield from _check(repo, board, sprint, phase.name, attempt, snapshot)
        if sealed:
            known = [snapshot.commit for _, snapshot in sealed]
            ref = ref_of(sprint.id, phase.name)
            found = resolve(repo, ref)
            # None is no lie: a keeper may have been killed before it set the ref.
            if found is not None and found not in known:
                why = f"the ref {ref} is at {found}, which no attempt at {phase.name} has sealed"
                yield Bad(phase=phase.name, name=ref, expected=known[-1], actual=found, reason=why)


def _check(
    repo: Repository,
    board: Board,
    sprint: SprintDir,
    phase: str,
    attempt: Attempt,
    sealed: Snapshot,
) -> Iterator[Bad]:
    where = f"attempt {attempt.n} of {phase}"
    actual = _tree_of(repo, sealed.commit)
    if actual != sealed.tree:
        said = "is not in the repository" if actual is None else f"has tree {actual}"
        why = f"{where} has sealed tree {sealed.tree}, and its commit {sealed.commit} {said}"
        yield Bad(phase=phase, name="tree", expected=sealed.tree, actual=actual, reason=why)
        return
    objects = Path(board.objects_path)
    try:
        now = fold_again(
            repo,
            base_tree=sealed.base_tree,
            layers=[Path(_layer(board, sprint, layer)) for layer in sealed.layers],
            tree=sealed.tree,
            object_dirs=[objects] if objects.is_dir() else [],
        )
    except GitError as error:
        why = f"{where} has sealed tree {sealed.tree}, and {error.message}"
        yield Bad(phase=phase, name="layers", expected=sealed.tree, actual=None, reason=why)
        return
    if now != sealed.tree:
        why = f"{where} has sealed tree {sealed.tree}, and its layers now make {now}"
        yield Bad(phase=phase, name="layers", expected=sealed.tree, actual=now, reason=why)


def _tree_of(repo: Repository, commit: str) -> str | None:
    import pygit2

    try:
        return str(repo.open()[commit].peel(pygit2.Commit).tree_id)
    except (KeyError, ValueError, pygit2.GitError):
        return None


def _layer(board: Board, sprint: SprintDir, layer: str) -> str:
    """Where a layer is: among the sealed ones, or, of an attempt that failed, in its lane. That may
    be one of another phase: the writer before has sealed what its own failed attempts left, too."""
    published = board.layer_path(layer)
    if os.path.isdir(published):
        return published
    phase, attempt = maker_of(layer, sprint.id)
    return os.path.join(sprint.slot(phase).path, "attempts", attempt, "lane", "upper")
