"""Makes the git directory of a lane.

It is the lane's own, throughout: nothing in it is shared with the host by hard link or is ever
executed or trusted by the host. Objects of the host are borrowed through `info/alternates`, by
the paths at which the jail binds the host's object directories.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pygit2

from sandbox.errors import GitError
from sandbox.repository.repository import Repository

# Attributes whose conversions the mount does not do: files are shown as the blobs are, so git in
# the lane must not convert them back. info/attributes outranks every other attributes file.
_ATTRIBUTES = b"* !filter !working-tree-encoding\n"

_CONFIG = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
\tcheckStat = minimal
\ttrustctime = false
\tautocrlf = {autocrlf}
{fsmonitor}[gc]
\tauto = 0
\tautoDetach = false
[maintenance]
\tauto = false
[advice]
\tdetachedHead = false
"""


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ").replace("\0", "")
    return f'"{escaped}"'


def identity(repo: Repository) -> tuple[str, str]:
    """The user's name and mail address as git's configuration has them, or nanosup's."""
    config = repo.open().config
    values = []
    for key, default in (("user.name", "nanosup"), ("user.email", "nanosup@localhost")):
        try:
            values.append(str(config[key]))
        except (KeyError, pygit2.GitError, UnicodeDecodeError):
            values.append(default)
    return values[0], values[1]


# What git runs, in a shell, to learn what has changed: a file of the mount that is named after the
# token that git has. In any other working tree that uses this configuration (`git worktree add`)
# the mount knows nothing; nor is there an answer in the first version of the protocol (git before
# 2.26). "/" then stands for all. The last character hides git's own arguments.
_FSMONITOR = """\
\tfsmonitor = {hook}
\tfsmonitorHookVersion = 2
\tuntrackedCache = true
"""
_HOOK = (
    'case "$1" in 2) [ . -ef {top} ] && exec cat {changes}/"${{2:-nanosup}}";'
    " printf 'nanosup\\0/\\0';; *) printf '/\\0';; esac #"
)


def _config(repo: Repository, changes: str | None, location: str) -> bytes:
    name, mail = identity(repo)
    try:
        autocrlf = str(repo.open().config["core.autocrlf"]).lower()
    except (KeyError, pygit2.GitError):
        autocrlf = "false"
    # The mount shows files as committed, without CRLF put in; `true` would put it in on checkout.
    converts = autocrlf in {"true", "input", "1", "yes", "on"}
    text = _CONFIG.format(
        autocrlf="input" if converts else "false", fsmonitor=_fsmonitor(location, changes)
    )
    text += f"[user]\n\tname = {_quoted(name)}\n\temail = {_quoted(mail)}\n"
    return text.encode("utf-8", "surrogateescape")


def _fsmonitor(location: str, changes: str | None) -> str:
    if changes is None or "\n" in location:
        return ""
    hook = _HOOK.format(top=shlex.quote(location), changes=shlex.quote(changes))
    return _FSMONITOR.format(hook=_quoted(hook))


def replace(path: Path, content: bytes) -> None:
    """Puts a file that all may read in the place of the one that is there, if any."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def record_refs(repo: Repository, path: Path) -> None:
    """Writes the host's branches, remote branches and tags as a packed-refs file, if not there.

    Done once a snapshot, so that all its lanes see the same refs whatever moves on the host
    meanwhile, and no lane's start depends on how many refs there are. nanosup's own are left out.
    """
    if path.exists():
        return
    handle = repo.open()
    lines = []
    for name in handle.raw_listall_references():
        if not name.startswith((b"refs/heads/", b"refs/tags/", b"refs/remotes/")):
            continue
        try:
            reference = handle.lookup_reference(os.fsdecode(name)).resolve()
        except (KeyError, ValueError, pygit2.GitError):
            continue  # a dangling symbolic ref, as origin/HEAD may be
        lines.append((name, str(reference.target).encode()))
    content = b"# pack-refs with: sorted \n"
    content += b"".join(b"%s %s\n" % (target, name) for name, target in sorted(lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, content)


def _copy(source: Path, target: Path) -> bool:
    """Content only, no mode and no symbolic link. False where there is nothing to copy."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as reader, open(target, "wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        done = 0
        try:
            # Shares the blocks where the file system can.
            while done < size:
                count = os.copy_file_range(reader.fileno(), writer.fileno(), size - done)
                if count == 0:
                    break
                done += count
        except OSError:
            reader.seek(done)
            writer.seek(done)
            shutil.copyfileobj(reader, writer)
    return True


def make(
    path: Path,
    repo: Repository,
    *,
    commit: str,
    alternates: Mapping[Path, str] | Sequence[tuple[Path, str]],
    index: Path | None = None,
    refs: Path | None = None,
    uid: int | None = None,
    gid: int | None = None,
    changes: str | None = None,
    location: str | None = None,
) -> None:
    """Makes the git directory `path` for a lane at `commit`, on a branch of the host's name.

    `alternates` gives for each object directory of the host (repo.object_dirs and nanosup's own)
    the path at which the jail binds it, read-only. `index` is what `index.record` wrote, `refs`
    what `record_refs` wrote. All is given to `uid`:`gid`, without which git in the lane would
    refuse it (safe.directory). `changes` is where git in the lane finds the mount's own `.git`,
    which says what has changed (`sandbox.mount.witness`); `location` where the working tree is
    there, by default where it is on the host. Read lanes bind `path` read-only. Its cost
    does not grow with the repository but for the copy of the index.

    Raises:
        GitError: `path` exists and is not empty, or cannot be written.
    """
    pairs = list(alternates.items() if isinstance(alternates, Mapping) else alternates)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise GitError(f"the lane's git directory {path} is in use already")
        for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info", "hooks"):
            (path / name).mkdir(parents=True)
        if repo.branch is None:
            (path / "HEAD").write_text(f"{commit}\n")
        else:
            head = path / "refs/heads" / repo.branch
            head.parent.mkdir(parents=True, exist_ok=True)
            head.write_text(f"{commit}\n")
            (path / "HEAD").write_bytes(b"ref: refs/heads/%s\n" % os.fsencode(repo.branch))
        (path / "config").write_bytes(_config(repo, changes, location or str(repo.root)))
        (path / "description").write_text("A lane of nanosup.\n")
        (path / "objects/info/alternates").write_text("".join(f"{jail}\n" for _, jail in pairs))
        _copy(repo.common_dir / "info/exclude", path / "info/exclude")
        if repo.shallow:
            _copy(repo.common_dir / "shallow", path / "shallow")
        attributes = path / "info/attributes"
        _copy(repo.common_dir / "info/attributes", attributes)
        with open(attributes, "ab") as file:
            file.write(b"\n" + _ATTRIBUTES)
        if refs is not None:
            _copy(refs, path / "packed-refs")
        if index is not None:
            _copy(index, path / "index")
        if uid is not None and uid != os.geteuid():
            for parent, _, files in os.walk(path):
                for name in (parent, *(os.path.join(parent, file) for file in files)):
                    os.chown(name, uid, -1 if gid is None else gid, follow_symlinks=False)
    except OSError as error:
        raise GitError(f"the lane's git directory cannot be made: {error}") from error


def masks(alternates: Iterable[tuple[Path, str]]) -> tuple[str, ...]:
    """Paths in the jail over which an empty file is to be bound: the host's own alternates files,
    which name paths of the host that the jail does not have. `alternates` as for `make`."""
    return tuple(
        f"{jail}/info/alternates"
        for host, jail in alternates
        if (host / "info/alternates").exists()
    )
