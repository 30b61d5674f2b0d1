"""Publishes commits on refs of nanosup's own, refs/nanosup/…

Through libgit2: it takes the ref's lock as git does, and runs no hook (git's own command line
would run the repository's reference-transaction hook).
"""

from __future__ import annotations

import os

import pygit2
from pygit2.enums import Option, SortMode

from sandbox.errors import GitError
from sandbox.repository.repository import Repository

PREFIX = "refs/nanosup/"
_CLOCKS_DIFFER_S = 86400  # commits tell their own time, and hosts differ

# A ref that a crash leaves empty would make the repository complain for ever.
pygit2.option(Option.ENABLE_FSYNC_GITDIR, 1)


def resolve(repo: Repository, ref: str) -> str | None:
    """The commit that a ref names, in hex; None where there is no such ref."""
    try:
        return str(repo.open().lookup_reference(ref).resolve().target)
    except KeyError:
        return None
    except (ValueError, pygit2.GitError) as error:
        raise GitError(f"the ref {ref} cannot be read: {error}") from error


def publish(repo: Repository, ref: str, commit: str, expected_old: str | None) -> None:
    """Sets `ref` to `commit`, provided it is at `expected_old` (None: does not exist) or there
    already. Atomic, and no reflog is written.

    Raises:
        GitError: the ref is elsewhere, its name is not below refs/nanosup/ or not valid, or the
            repository cannot be written.
    """
    if not ref.startswith(PREFIX):
        raise GitError(f"nanosup publishes below {PREFIX} only, not {ref}")
    handle = repo.open()
    try:
        handle[commit]
        with handle.transaction() as transaction:
            transaction.lock_ref(ref)
            # Read under the lock, so that nobody comes between.
            try:
                current = str(handle.lookup_reference(ref).target)
            except KeyError:
                current = None
            if current == commit:
                return
            if current != expected_old:
                raise GitError(
                    f"the ref {ref} is at {current or 'nothing'}, not {expected_old or 'nothing'}",
                    hint="somebody else has moved it; look at it with `git log`",
                )
            transaction.set_target(ref, pygit2.Oid(hex=commit))
    except (KeyError, ValueError, OSError, pygit2.GitError) as error:
        raise GitError(f"the ref {ref} cannot be set: {error}") from error
    give_to_owner(repo, ref)


def prune(repo: Repository, prefix: str) -> tuple[list[str], list[str]]:
    """Removes the refs below `prefix` whose commits a ref outside of refs/nanosup/ has too.

    Returns (removed, kept): what is kept is the only name of its commits.

    Raises:
        GitError: `prefix` is not below refs/nanosup/, or the repository cannot be read or written.
    """
    if not prefix.startswith(PREFIX) or not prefix.endswith("/"):
        raise GitError(f"nanosup removes refs below {PREFIX} only, not {prefix}")
    handle = repo.open()
    try:
        mine = {
            name: handle.references[name].peel(pygit2.Commit)
            for name in handle.references
            if name.startswith(prefix)
        }
        reached = _reached(handle, list(mine.values())) if mine else set()
        removed, kept = [], []
        for name, commit in sorted(mine.items()):
            if commit.id in reached and _remove(handle, name, commit.id):
                removed.append(name)
            else:
                kept.append(name)
    except (KeyError, ValueError, OSError, pygit2.GitError) as error:
        raise GitError(f"the refs below {prefix} cannot be removed: {error}") from error
    return removed, kept


def _reached(handle: pygit2.Repository, wanted: list[pygit2.Commit]) -> set[pygit2.Oid]:
    """Those of some commits that refs of the user's lead to."""
    tips = [
        handle.references[name].peel(pygit2.Commit).id
        for name in handle.references
        if name.startswith(("refs/heads/", "refs/tags/", "refs/remotes/")) and _leads(handle, name)
    ]
    if not tips:
        return set()
    walker = handle.walk(tips[0], SortMode.TIME)
    for tip in tips[1:]:
        walker.push(tip)
    missing = {commit.id for commit in wanted}
    oldest_s = min(commit.commit_time for commit in wanted) - _CLOCKS_DIFFER_S
    found: set[pygit2.Oid] = set()
    for commit in walker:
        if commit.id in missing:
            missing.discard(commit.id)
            found.add(commit.id)
        if not missing or commit.commit_time < oldest_s:
            break
    return found


def _leads(handle: pygit2.Repository, name: str) -> bool:
    """Whether a ref leads to a commit: a tag may be of anything, and a ref may be broken."""
    try:
        handle.references[name].peel(pygit2.Commit)
    except (KeyError, ValueError, pygit2.GitError):
        return False
    return True


def _remove(handle: pygit2.Repository, name: str, commit: pygit2.Oid) -> bool:
    """False if the ref was moved since."""
    with handle.transaction() as transaction:
        transaction.lock_ref(name)
        if handle.lookup_reference(name).target != commit:
            return False
        transaction.remove(name)
    return True


def give_to_owner(repo: Repository, ref: str) -> None:
    """A repository of an ordinary user stays that user's when root works in it."""
    if os.geteuid() != 0:
        return
    owner = os.stat(repo.common_dir / "refs")
    for top in (repo.common_dir, repo.common_dir / "logs"):
        path = top
        for part in ref.split("/"):
            path = path / part
            try:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
            except FileNotFoundError:
                break
