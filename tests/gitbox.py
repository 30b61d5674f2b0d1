"""Real git as the oracle, in an environment where nothing of this machine's configuration holds."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

ENV = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Host",
    "GIT_AUTHOR_EMAIL": "host@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_NAME": "Host",
    "GIT_COMMITTER_EMAIL": "host@example.org",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


def git_bytes(cwd: Path, *args: str | bytes, stdin: bytes | None = None) -> bytes:
    """Runs git and returns what it printed; fails with what it complained of."""
    done = subprocess.run(
        ["git", "-c", "gc.auto=0", *args], cwd=cwd, env=ENV, input=stdin, capture_output=True
    )
    assert done.returncode == 0, (args, done.stderr.decode(errors="replace"))
    return done.stdout


def git(cwd: Path, *args: str | bytes, stdin: bytes | None = None) -> str:
    """As git_bytes, as text without the last line end."""
    return git_bytes(cwd, *args, stdin=stdin).decode("utf-8", "surrogateescape").rstrip("\n")


def write(path: Path, content: str | bytes, *, executable: bool = False) -> None:
    """Writes a file, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o755 if executable else 0o644)


def make_repository(path: Path, files: dict[str, str | bytes] | None = None) -> Path:
    """A repository with one commit."""
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    for name, content in (files or {"readme": "hello\n"}).items():
        write(path / name, content)
    git(path, "add", "-A")
    git(path, "commit", "-q", "--allow-empty", "-m", "one")
    return path


def whiteout(path: Path) -> None:
    """What kernel overlayfs leaves for a name that was removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def opaque(path: Path) -> None:
    """Marks a directory of a layer as hiding what is below it."""
    path.mkdir(parents=True, exist_ok=True)
    os.setxattr(path, "user.overlay.opaque", b"y")


def _same(one: Path, other: Path) -> bool:
    first, second = one.lstat(), other.lstat()
    if stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
        return False
    if stat.S_ISLNK(first.st_mode):
        return os.readlink(one) == os.readlink(other)
    return first.st_mode == second.st_mode and one.read_bytes() == other.read_bytes()


def _copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        shutil.copystat(source, target)
        for child in source.iterdir():
            _copy(child, target / child.name)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def make_layer(before: Path, after: Path, layer: Path, *, replace: bool = False) -> Path:
    """The upper layer that turns the directory `before` into `after` (`.git` aside).

    `replace` makes changed directories opaque, with all that is in them, where either would do.
    """
    layer.mkdir(exist_ok=True)
    old = {child.name for child in before.iterdir()} - {".git"}
    new = {child.name for child in after.iterdir()} - {".git"}
    for name in old - new:
        whiteout(layer / name)
    for name in new:
        there, here, target = after / name, before / name, layer / name
        is_directory = there.is_dir() and not there.is_symlink()
        if not is_directory:
            if name not in old or here.is_dir() != there.is_dir() or not _same(here, there):
                _copy(there, target)
        elif name in old and here.is_dir() and not here.is_symlink() and not replace:
            make_layer(here, there, target)
            if not any(target.iterdir()):
                target.rmdir()
        else:
            _copy(there, target)
            if name in old:
                opaque(target)
    return layer


def fingerprint(path: Path) -> dict[str, bytes]:
    """Every file below a directory by name, with content, mode and modification time."""
    found = {}
    for parent, _, files in os.walk(path):
        for file in files:
            name = os.path.join(parent, file)
            status = os.lstat(name)
            content = os.readlink(name).encode() if os.path.islink(name) else b""
            if stat.S_ISREG(status.st_mode):
                with open(name, "rb") as reader:
                    content = reader.read()
            found[os.path.relpath(name, path)] = (
                b"%o %d " % (status.st_mode, status.st_mtime_ns) + content
            )
    return found
