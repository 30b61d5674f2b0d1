"""Finds the git repository that lanes are made of, and says plainly what is wrong with it.

libgit2 is used in this process and git's command line is not: libgit2 runs no hooks, no
filters, no fsmonitor, and `GIT_DIR` and its like in the environment mean nothing to it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pygit2
from pygit2.enums import Option

from sandbox.errors import GitError

# git refuses the repositories of other users because their configuration may name programs to run
# (safe.directory, CVE-2022-24765). Nothing here runs what a configuration names, so there is
# nothing to protect; but root in a user's repository, or a CI job in a checkout made under another
# uid, would fail. What an untrusted repository can do is in its nanosup.toml, which no setting of
# git guards.
pygit2.option(Option.SET_OWNER_VALIDATION, 0)
# A partial clone with all objects of its commit is as good as any other.
pygit2.option(Option.SET_EXTENSIONS, ["partialclone"], 1)

_ALTERNATES_DEPTH = 5  # as git has it (object-file.c)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A git repository as it was when it was found.

    Attributes:
        root: top of the working tree, without symbolic links.
        git_dir: of this working tree (`.git`, or `.git/worktrees/<name>` of a linked one).
        common_dir: the git directory that all working trees share.
        object_dirs: the repository's object directory first, then its alternates.
        commit, tree: of HEAD, in hex.
        branch: name of the branch that HEAD is on, without refs/heads/; None where detached.
        shallow, partial: the clone lacks history, or may lack objects.
    """

    root: Path
    git_dir: Path
    common_dir: Path
    object_dirs: tuple[Path, ...]
    commit: str
    tree: str
    branch: str | None
    shallow: bool = False
    partial: bool = False

    @property
    def objects(self) -> Path:
        """The repository's own object directory."""
        return self.object_dirs[0]

    def open(self) -> pygit2.Repository:
        """libgit2's handle. Not to be shared between threads or kept over a fork."""
        try:
            return pygit2.Repository(str(self.git_dir))
        except pygit2.GitError as error:
            raise GitError(f"the repository {self.root} cannot be opened: {error}") from error


def alternates(objects: Path) -> tuple[Path, ...]:
    """An object directory and all that it borrows from, recursively (gitrepository-layout(5))."""
    found: dict[Path, None] = {}
    pending = [(objects, 0)]
    while pending:
        path, depth = pending.pop(0)
        path = Path(os.path.realpath(path))
        if path in found or not path.is_dir():
            continue
        found[path] = None
        if depth >= _ALTERNATES_DEPTH:
            continue
        try:
            lines = (path / "info/alternates").read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            if not line or line.startswith(b"#"):
                continue
            if line.startswith(b'"') and line.endswith(b'"'):
                line = line[1:-1].decode("unicode_escape").encode("latin-1")
            pending.append((path / os.fsdecode(line), depth + 1))
    return tuple(found)


def _common_dir(git_dir: Path) -> Path:
    try:
        text = (git_dir / "commondir").read_bytes().strip()
    except OSError:
        return git_dir
    return Path(os.path.realpath(git_dir / os.fsdecode(text)))


def _open(start: Path) -> pygit2.Repository:
    try:
        found = pygit2.discover_repository(str(start))
    except (KeyError, pygit2.GitError):
        found = None
    if found is None:
        raise GitError(
            f"{start} is not in a git repository", hint="run `git init` and commit, or go to one"
        )
    try:
        return pygit2.Repository(found)
    except pygit2.GitError as error:
        text = str(error)
        if "objectformat" in text or "object format" in text:
            raise GitError(
                f"the repository {found} uses SHA-256 object names, which are not supported",
                hint="convert it, or clone it into a SHA-1 repository",
            ) from error
        if "refstorage" in text:
            raise GitError(
                f"the repository {found} keeps its refs in a format that is not supported",
                hint="run `git refs migrate --ref-format=files`",
            ) from error
        raise GitError(f"the repository {found} cannot be opened: {text}") from error


def find(start: Path) -> Repository:
    """The repository that `start` is in, which may be a subdirectory or a symbolic link to one.

    Raises:
        GitError: there is none; it is bare, has no commit, is of an unsupported format, or lacks
            objects of its current commit.
    """
    repository = _open(Path(os.path.realpath(start)))
    if repository.is_bare or repository.workdir is None:
        raise GitError(
            f"the repository {repository.path} is bare: it has no working tree",
            hint="clone it and work in the clone",
        )
    root = Path(os.path.realpath(repository.workdir))
    if not root.is_dir():
        raise GitError(f"the working tree {root} of {repository.path} does not exist")
    if repository.head_is_unborn:
        raise GitError(
            f"the repository {root} has no commit on its current branch",
            hint="commit something first: `git add -A && git commit`",
        )
    git_dir = Path(os.path.realpath(repository.path))
    common_dir = _common_dir(git_dir)
    partial = any(
        ".promisor" in entry.name or ".partialclonefilter" in entry.name
        for entry in repository.config
        if entry.name.startswith("remote.") or entry.name == "extensions.partialclone"
    )
    try:
        commit = repository.head.peel(pygit2.Commit)
        tree = repository[commit.tree_id]
    except (KeyError, pygit2.GitError) as error:
        raise GitError(
            f"the repository {root} lacks objects of its current commit",
            hint="fetch them with `git fetch --refetch`" if partial else "run `git fsck`",
        ) from error
    detached = repository.head_is_detached
    name = repository.head.raw_name
    branch = None
    if not detached and name.startswith(b"refs/heads/"):
        branch = os.fsdecode(name.removeprefix(b"refs/heads/"))
    return Repository(
        root=root,
        git_dir=git_dir,
        common_dir=common_dir,
        object_dirs=alternates(common_dir / "objects"),
        commit=str(commit.id),
        tree=str(tree.id),
        branch=branch,
        shallow=(common_dir / "shallow").exists(),
        partial=partial,
    )


def is_ancestor(repo: Repository, ancestor: str, commit: str, *object_dirs: str) -> bool:
    """Whether `commit` is `ancestor`, or has it in its history. False where either is missing.

    Args:
        object_dirs: where else commits may be.
    """
    if ancestor == commit:
        return True
    handle = repo.open()
    try:
        for path in object_dirs:
            if os.path.isdir(path):
                handle.odb.add_disk_alternate(path)
        return bool(handle.descendant_of(commit, ancestor))
    except (KeyError, ValueError, pygit2.GitError):
        return False
