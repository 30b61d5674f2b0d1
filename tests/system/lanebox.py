"""A lane as git in it sees it: a mount, the lane's git directory over its `.git`, no jail."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mounting import enter_private_namespace

from sandbox.repository import gitdir, index, repository
from sandbox.syscalls import MNT_DETACH, MS_BIND, mount, umount2
from sandbox.union.spec import MountSpec
from supervisor.keeper.mount import Server
from tests.gitbox import ENV

EPOCH_NS = 1_600_000_000 * 10**9
NO_WATCHER = ("-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false")


@dataclass
class GitLane:
    """A lane's working tree, and the server that shows it."""

    path: Path
    server: Server

    def git(self, *arguments: str, locks: bool = True, ok: bool = True) -> str:
        """Runs git in the lane."""
        env = ENV | ({} if locks else {"GIT_OPTIONAL_LOCKS": "0"})
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0 or not ok, (arguments, done.stdout, done.stderr)
        return done.stdout

    def status(self, *, locks: bool = False) -> list[str]:
        """What `git status` says, with the mount's help."""
        return sorted(self.git("status", "--porcelain", "-z", locks=locks).split("\0"))

    def walked_status(self) -> list[str]:
        """What it says when it looks at every file."""
        said = self.git(*NO_WATCHER, "status", "--porcelain", "-z", locks=False)
        return sorted(said.split("\0"))


@contextlib.contextmanager
def git_lane(
    tmp_path: Path,
    host: Path,
    *,
    writes: bool = True,
    layers: tuple[Path, ...] = (),
    grafts: tuple[str, ...] = (),
) -> Iterator[GitLane]:
    """A lane at HEAD of `host`; of `layers` its index knows nothing."""
    enter_private_namespace()
    repo = repository.find(host)
    names = ("mnt", "upper", "work", "changes")
    mnt, upper, work, changes = (tmp_path / "lane" / name for name in names)
    for directory in (mnt, upper, work, changes):
        directory.mkdir(parents=True)
    spec = MountSpec(
        git_dir=str(repo.common_dir),
        tree=repo.tree,
        layers=tuple(map(str, layers)),
        upper=str(upper) if writes else None,
        work=str(work) if writes else None,
        mountpoint=str(mnt),
        epoch_ns=EPOCH_NS,
        uid=os.getuid(),
        gid=os.getgid(),
        grafts=(".git", *grafts),
    )
    record = tmp_path / "index"
    owner = (os.getuid(), os.getgid())
    index.record(
        record,
        repo,
        commit=repo.commit,
        epoch_ns=EPOCH_NS,
        uid=owner[0],
        gid=owner[1],
        location=str(mnt),
    )
    gitdir.make(
        tmp_path / "git",
        repo,
        commit=repo.commit,
        alternates={path: str(path) for path in repo.object_dirs},
        index=record,
        changes=str(changes),
        location=str(mnt),
    )
    with Server(spec) as server:
        server.await_ready()
        mount(str(mnt / ".git"), str(changes), None, MS_BIND)
        mount(str(tmp_path / "git"), str(mnt / ".git"), None, MS_BIND)
        try:
            yield GitLane(mnt, server)
        finally:
            for path in (changes, mnt / ".git", mnt):
                with contextlib.suppress(OSError):
                    umount2(str(path), MNT_DETACH)
