"""Mounts for tests: ours, the kernel's overlayfs, fuse-overlayfs; each certainly unmounted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sandbox.syscalls import CLONE_NEWNS, MNT_DETACH, MS_REC, MS_SLAVE, mount, umount2, unshare
from sandbox.union.spec import MountSpec

EPOCH_S = 1_600_000_000
EPOCH_NS = EPOCH_S * 1_000_000_000

_is_private = False


def enter_private_namespace() -> None:
    """Makes every later mount of this process invisible to others, and gone with it."""
    global _is_private
    if _is_private:
        return
    if os.geteuid() != 0:
        pytest.skip("mounting here needs root; the ordinary user's tests make their own namespace")
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse")
    unshare(CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_SLAVE)
    _is_private = True


@dataclass
class Served:
    """A mount of ours and the process that serves it."""

    pid: int
    mountpoint: Path
    control_fd: int = -1

    def kill(self) -> None:
        """SIGKILL; the mount stays, dead, until `served` ends."""
        os.kill(self.pid, signal.SIGKILL)


def serving(spec: MountSpec) -> Served:
    """Forks a server and waits until it is ready."""
    from sandbox.mount.server import serve

    ready, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ready)
            serve(spec, ready_write)
        finally:
            os._exit(99)
    os.close(ready_write)
    answer = os.read(ready, 4096)
    os.close(ready)
    if answer != b"\1":
        os.waitpid(pid, 0)
        raise AssertionError(f"not mounted: {answer!r}")
    return Served(pid, Path(spec.mountpoint))


@contextlib.contextmanager
def served(spec: MountSpec) -> Iterator[Served]:
    """A mount of ours, unmounted at the end whatever happened."""
    mounted = serving(spec)
    try:
        yield mounted
    finally:
        stop(mounted)


def stop(mounted: Served) -> int:
    """Ends a server; returns its exit code, negative for a signal."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(mounted.pid, signal.SIGTERM)
    try:
        _pid, status = os.waitpid(mounted.pid, 0)
    except ChildProcessError:
        status = 0
    with contextlib.suppress(OSError):
        umount2(str(mounted.mountpoint), MNT_DETACH)
    return os.waitstatus_to_exitcode(status)


@contextlib.contextmanager
def requests_waiting(mounted: Served, directory: Path) -> Iterator[Callable[[], int]]:
    """Gives what says how many requests have no answer yet: the kernel's own figure
    (Documentation/filesystems/fuse, fusectl)."""
    directory.mkdir()
    mount("fusectl", str(directory), "fusectl", 0)
    figure = directory / str(mounted.mountpoint.stat().st_dev) / "waiting"
    try:
        yield lambda: int(figure.read_text())
    finally:
        umount2(str(directory))


@contextlib.contextmanager
def kernel_overlay(
    mountpoint: Path, lowers: list[Path], upper: Path | None = None, work: Path | None = None
) -> Iterator[Path]:
    """The kernel's overlayfs; `lowers` bottom to top."""
    options = ["userxattr", "index=off", "lowerdir=" + ":".join(str(p) for p in reversed(lowers))]
    if upper is not None:
        options += [f"upperdir={upper}", f"workdir={work}"]
    mount("overlay", str(mountpoint), "overlay", 0, ",".join(options))
    try:
        yield mountpoint
    finally:
        umount2(str(mountpoint), MNT_DETACH)


@contextlib.contextmanager
def fuse_overlayfs(mountpoint: Path, lowers: list[Path]) -> Iterator[Path]:
    """fuse-overlayfs, read-only; `lowers` bottom to top."""
    program = shutil.which("fuse-overlayfs")
    if program is None:
        pytest.skip("fuse-overlayfs is not installed")
    lowerdir = ":".join(str(p) for p in reversed(lowers))
    server = subprocess.Popen([program, "-f", "-o", f"lowerdir={lowerdir}", str(mountpoint)])
    try:
        while not os.path.ismount(mountpoint):
            if server.poll() is not None:
                raise AssertionError("fuse-overlayfs ended")
            os.sched_yield()
        yield mountpoint
    finally:
        umount2(str(mountpoint), MNT_DETACH)
        server.wait()


def git(repository: Path, *arguments: str) -> str:
    """Runs git with nothing of the host's configuration."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(repository),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    command = ["git", "-c", "core.autocrlf=false", "-C", str(repository), *arguments]
    return subprocess.run(
        command, check=True, env=environment, capture_output=True, text=True
    ).stdout.strip()


def committed(repository: Path, content: Path) -> str:
    """Makes a repository whose one commit is what `content` holds; returns the tree's id."""
    repository.mkdir(parents=True, exist_ok=True)
    git(repository, "init", "-q", "-b", "main")
    for each in content.iterdir():
        target = repository / each.name
        if each.is_symlink() or each.is_file():
            shutil.copy2(each, target, follow_symlinks=False)
        else:
            shutil.copytree(each, target, symlinks=True)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "base", "--allow-empty")
    return git(repository, "rev-parse", "HEAD^{tree}")


@dataclass
class Stage:
    """A directory with a base tree, both as a git repository and checked out, and layers."""

    path: Path
    spec: MountSpec
    checkout: Path

    def directory(self, name: str) -> Path:
        """A new directory of that name."""
        made = self.path / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def writable(self, name: str = "lane") -> MountSpec:
        """A write mount with an upper directory of its own."""
        return replace(
            self.spec,
            upper=str(self.directory(f"{name}/upper")),
            work=str(self.directory(f"{name}/work")),
            mountpoint=str(self.directory(f"{name}/mnt")),
        )

    def read_only(self, name: str = "reader", layers: tuple[str, ...] = ()) -> MountSpec:
        """A read-only mount."""
        return replace(self.spec, layers=layers, mountpoint=str(self.directory(f"{name}/mnt")))


def staged(path: Path) -> Stage:
    """A stage whose base tree is what `path`/base holds; all of it gets EPOCH_S for its times."""
    base = path / "base"
    tree = committed(path / "repository", base)
    for directory, names, files in os.walk(base, topdown=False):
        for name in [*names, *files]:
            os.utime(Path(directory, name), (EPOCH_S, EPOCH_S), follow_symlinks=False)
    os.utime(base, (EPOCH_S, EPOCH_S))
    spec = MountSpec(
        git_dir=str(path / "repository/.git"),
        tree=tree,
        mountpoint=str(path / "mnt"),
        epoch_ns=EPOCH_NS,
        uid=os.getuid(),
        gid=os.getgid(),
        allow_other=os.geteuid() == 0,
    )
    return Stage(path, spec, base)
