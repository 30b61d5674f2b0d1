"""Seals what an agent did: layers become a git tree, and a commit on the snapshot's.

Nothing of the lane is executed, and no configuration of the lane is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import GitError
from sandbox.git.gitobject import FormatError, Kind, build_commit
from sandbox.git.store import Store
from sandbox.git.tracked import TrackedTree
from sandbox.repository.fold import Fold, count_differences
from sandbox.repository.history import HistoryRefused, bring
from sandbox.repository.note import Notes
from sandbox.repository.reference import publish
from sandbox.repository.repository import Repository
from sandbox.repository.setting import read_setting
from sandbox.union.strata import open_strata

__all__ = ["Sealed", "fold_again", "publish", "seal"]


@dataclass(frozen=True, slots=True)
class Sealed:
    """What came of a lane.

    Attributes:
        tree, commit: in hex. The commit is the parent itself where nothing changed.
        notes: what was left out or stored otherwise than the agent may expect, for people.
        changed: number of paths that differ from the parent.
    """

    tree: str
    commit: str
    notes: tuple[str, ...]
    changed: int


def seal(
    repo: Repository,
    *,
    parent: str,
    layers: Sequence[Path],
    message: str,
    author: str,
    when_s: int,
    below: Sequence[Path] = (),
    lane_git: Path | None = None,
    object_dirs: Sequence[Path] = (),
    destination: Path | None = None,
) -> Sealed:
    """Makes a commit of `parent`'s tree with the changes in `layers`, as `git add -A` would.

    The layers, bottom to top, lie over `below`, sealed layers whose tracked content `parent` has
    already. Files that git ignores stay out unless they are tracked in `parent` or in what the
    agent committed. The agent's own commits in `lane_git` become the history where they are sound
    and grow from `parent`; a commit by `author` ("Name <mail>") at `when_s` (seconds since 1970)
    goes on top where the view differs from them. All objects, and those of `parent` that are in
    `object_dirs` alone, are durable in `destination` (by default the repository's own objects)
    when this returns.

    Raises:
        GitError: the host's repository lacks objects, or cannot be written (disk full); a layer
            cannot be read. Never for anything that an agent can put into a lane.
    """
    store = Store((*repo.object_dirs, *object_dirs), destination or repo.objects)
    try:
        return _seal(store, repo, parent, layers, below, lane_git, message, author, when_s)
    except (OSError, FormatError) as error:
        raise GitError(f"the lane cannot be sealed: {error}") from error
    finally:
        store.abandon()


def fold_again(
    repo: Repository,
    *,
    base_tree: str,
    layers: Sequence[Path],
    tree: str,
    object_dirs: Sequence[Path] = (),
) -> str:
    """The tree, in hex, that layers over `base_tree` make now; `tree` if they are what they were
    when that was sealed. Writes nothing.

    Raises:
        GitError: the repository lacks objects, or a layer cannot be read.
    """
    store = Store((*repo.object_dirs, *object_dirs), None)
    try:
        with open_strata(layers, ()) as level:
            fold = Fold(store, read_setting(repo), notes=Notes())
            # What ignore rules keep out counts where the sealed tree has it.
            tracked = TrackedTree(store, bytes.fromhex(tree))
            return fold.run(level, bytes.fromhex(base_tree), tracked).hex()
    except (OSError, KeyError, FormatError) as error:
        raise GitError(f"the layers of tree {tree} cannot be read: {error}") from error


def _seal(
    store: Store,
    repo: Repository,
    parent: str,
    layers: Sequence[Path],
    below: Sequence[Path],
    lane_git: Path | None,
    message: str,
    author: str,
    when_s: int,
) -> Sealed:
    notes = Notes()
    start = bytes.fromhex(parent)
    store.copy_commit(start)
    base = store.tree_of(start)
    head = None
    if lane_git is not None:
        try:
            head = bring(store, repo, lane_git, start)
        except HistoryRefused as refused:
            notes.say(f"the agent's own commits are not kept: {refused}")
    tip = head or start
    tracked = store.tree_of(tip)
    with open_strata(layers, below) as level:
        fold = Fold(store, read_setting(repo), notes=notes)
        tree = fold.run(level, base, TrackedTree(store, tracked))
    commit = tip
    if tree != tracked:
        data = build_commit(
            tree=tree, parents=(tip,), author=author, when_s=when_s, message=message
        )
        commit = store.put(Kind.COMMIT, data)
    changed = count_differences(store, base, tree)
    store.flush()
    return Sealed(tree.hex(), commit.hex(), notes.lines(), changed)
