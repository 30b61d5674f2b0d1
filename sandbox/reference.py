"""Publishes commits on refs of nanosup's own, refs/nanosup/…

Through libgit2: it takes the ref's lock as git does, and runs no hook (git's own command line
would run the repository's reference-transaction hook).
"""

from __future__ import annotations

import os

import pygit2
from pygit2.enums import Option

from sandbox.errors import GitError
from sandbox.repository import Repository

PREFIX = "refs/nanosup/"

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
