"""Where mounts are measured: a lane's mount, fuse-overlayfs on a checkout, a plain directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sample import CACHE, say, timed

from sandbox.repository import gitdir, index
from sandbox.repository import repository as found
from sandbox.syscalls import (
    CLONE_NEWNS,
    MNT_DETACH,
    MS_BIND,
    MS_REC,
    MS_SLAVE,
    mount,
    umount2,
    unshare,
)
from sandbox.union.spec import MountSpec
from supervisor.keeper.mount import Server

_ROOM = "room."
_LARGE_BYTES = 16 << 20
EPOCH_NS = 1_600_000_000 * 10**9
_SOURCES = "/etc/apt/sources.list.d/debian.sources"


@dataclass(frozen=True, slots=True)
class Place:
    """A tree to work in.

    Attributes:
        path: where it is.
        server: who answers for it; 0 for a plain directory.
    """

    path: Path
    server: int = 0

    def cpu_s(self) -> float:
        """CPU seconds that the server has used."""
        if not self.server:
            return 0.0
        fields = Path(f"/proc/{self.server}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def pss_bytes(self) -> int:
        """Proportional set size of the server."""
        for line in Path(f"/proc/{self.server}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no Pss in smaps_rollup")


def enter_namespace() -> None:
    """Makes the mounts of this process its own. They are gone with it, however it ends."""
    if os.geteuid() != 0:
        sys.exit("bench: measuring mounts needs root: fuse-overlayfs and page caches do")
    unshare(CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_SLAVE)


@contextmanager
def room() -> Iterator[Path]:
    """A directory, for `clear_rooms` to remove; what is large in it goes at once.

    ext4 does not use the inode of a removed file again for a minute, and looks at each of them
    when it makes a new one: who measures next would pay for it.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=CACHE, prefix=_ROOM))
    try:
        yield made
    finally:
        for directory, _, names in os.walk(made):
            for name in names:
                path = Path(directory, name)
                if path.lstat().st_size > _LARGE_BYTES:
                    path.unlink()


def clear_rooms() -> None:
    """Removes what `room` has made."""
    for made in CACHE.glob(f"{_ROOM}*"):
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def lane(repository: Path, *, writes: bool) -> Iterator[Place]:
    """A lane's mount of HEAD, with the git directory that a lane has."""
    repo = found.find(repository)
    with room() as where:
        for name in ("mnt", "upper", "work"):
            (where / name).mkdir()
        spec = MountSpec(
            git_dir=str(repo.common_dir),
            tree=repo.tree,
            upper=str(where / "upper") if writes else None,
            work=str(where / "work") if writes else None,
            mountpoint=str(where / "mnt"),
            epoch_ns=EPOCH_NS,
            uid=os.getuid(),
            gid=os.getgid(),
            grafts=(".git",),
        )
        with Server(spec) as server:
            server.await_ready()
            try:
                yield Place(where / "mnt", server.pid)
                _detach(where / "changes", where / "mnt/.git")
                server.stop()
            finally:
                _detach(where / "changes", where / "mnt/.git")
                _detach(where / "mnt")


def lane_git(repository: Path, place: Place) -> None:
    """Binds a lane's git directory at `.git` of its mount."""
    repo = found.find(repository)
    where = place.path.parent
    record = CACHE / f"{repo.commit}.{os.getuid()}.index"
    index.record(
        record,
        repo,
        commit=repo.commit,
        epoch_ns=EPOCH_NS,
        uid=os.getuid(),
        gid=os.getgid(),
        location=str(place.path),
    )
    (where / "changes").mkdir()
    mount(str(place.path / ".git"), str(where / "changes"), None, MS_BIND)
    gitdir.make(
        where / "git",
        repo,
        commit=repo.commit,
        alternates={path: str(path) for path in repo.object_dirs},
        index=record,
        changes=str(where / "changes"),
        location=str(place.path),
    )
    record.unlink()
    mount(str(where / "git"), str(place.path / ".git"), None, MS_BIND)


@contextmanager
def fuse_overlayfs(lower: Path, *, writes: bool) -> Iterator[Place]:
    """fuse-overlayfs on a checkout."""
    with room() as where:
        for name in ("mnt", "upper", "work"):
            (where / name).mkdir()
        options = f"lowerdir={lower}"
        if writes:
            options += f",upperdir={where}/upper,workdir={where}/work"
        server = subprocess.Popen(["fuse-overlayfs", "-f", "-o", options, str(where / "mnt")])
        try:
            while not os.path.ismount(where / "mnt"):
                if server.poll() is not None:
                    sys.exit("bench: fuse-overlayfs did not mount")
                time.sleep(0.001)
            yield Place(where / "mnt", server.pid)
        finally:
            _detach(where / "mnt")
            server.send_signal(signal.SIGTERM)
            server.wait()


@contextmanager
def plain(lower: Path, *, writes: bool) -> Iterator[Place]:
    """The checkout itself, or, to be written in, a copy of it."""
    if not writes:
        yield Place(lower)
        return
    with room() as where:
        subprocess.run(["cp", "-a", lower, where / "copy"], check=True)
        yield Place(where / "copy")


def checkout(repository: Path) -> Path:
    """A worktree of HEAD, made once."""
    path = repository.with_name(f"{repository.name}.checkout")
    if not (path / ".git").exists():
        say(f"checking {repository.name} out")
        git = ["git", "-C", str(repository)]
        subprocess.run([*git, "worktree", "prune"], check=True)
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run(
            [*git, "worktree", "add", "--quiet", "--detach", str(path), "HEAD"], check=True
        )
    return path


def git_sources() -> Path | None:
    """A repository of git's own sources, from Debian's source package. None without a network."""
    repository = CACHE / "git-sources"
    if (repository / "done").exists():
        return repository
    shutil.rmtree(repository, ignore_errors=True)
    with room() as where:
        try:
            text = Path(_SOURCES).read_text().replace("Types: deb\n", "Types: deb-src\n")
            (where / "debian.sources").write_text(text)
            (where / "lists/partial").mkdir(parents=True)
            apt = [
                "apt-get",
                "-q",
                "-o",
                f"Dir::Etc::SourceList={where}/debian.sources",
                "-o",
                "Dir::Etc::SourceParts=/nonexistent",
                "-o",
                f"Dir::State::Lists={where}/lists",
            ]
            subprocess.run([*apt, "update"], check=True, capture_output=True)
            source = [*apt, "source", "--download-only", "git"]
            subprocess.run(source, check=True, capture_output=True, cwd=where)
        except (OSError, subprocess.CalledProcessError):
            return None
        tarball = next(where.glob("git_*.orig.tar.*"))
        repository.mkdir(parents=True)
        subprocess.run(
            ["tar", "x", "--strip-components=1", "-C", repository, "-f", tarball], check=True
        )
    git = ["git", "-C", str(repository), "-c", "user.name=Bench", "-c", "user.email=b@example.org"]
    for command in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", "sources"]):
        subprocess.run([*git, *command], check=True)
    timed([*git, "repack", "-adfq"])
    (repository / "done").touch()
    with open(repository / ".git/info/exclude", "a") as file:
        file.write("done\n")
    return repository


def _detach(*paths: Path) -> None:
    for path in paths:
        try:
            umount2(str(path), MNT_DETACH)
        except OSError:
            pass
