"""Git trees as directories: made once, never changed, shared by lanes without FUSE.

Files are hard links to a store that is keyed by blob and mode, so a second tree costs what is new
in it. Content, modes and names are those that the FUSE tier shows. Nothing here is ever handed out
writable: lanes see it through an overlay or get copies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox import syscalls
from sandbox.errors import MountError
from sandbox.git import gitattribute
from sandbox.git.gitname import Refusal, refusal
from sandbox.git.gitobject import MODE_EXECUTABLE, MODE_SYMLINK, Kind, name_object
from sandbox.git.smudge import NOTHING, Rules, Smudge, to_worktree
from sandbox.repository.repository import Repository
from sandbox.union.tree import S_IFGITLINK, S_IFTREE, GitTree

EPOCH_NS = 946_684_800 * 1_000_000_000
"""Time stamp of everything in a checkout (2000-01-01): files are shared by trees of any age."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MANIFEST = ".manifest"
_BUILDING = "building."


@dataclass(frozen=True, slots=True)
class Checkouts:
    """The checkouts below one directory.

    Attributes:
        base: may not exist yet. Only nanosup's user can enter it.
        uid, gid: who all files belong to.
    """

    base: str
    uid: int
    gid: int

    def checkout(self, repo: Repository, tree: str, object_dirs: Sequence[str] = ()) -> str:
        """The directory that has the content of the git tree `tree`; made if it is not there.

        Raises:
            GitError: objects are missing.
            MountError: it cannot be written; says why.
        """
        git = GitTree(str(repo.common_dir), tree, object_dirs)
        place = os.path.join(self.base, "trees", tree)
        try:
            with self._locked():
                if not _is_intact(place, self.uid):
                    self._build(git, place)
        except OSError as error:
            raise MountError(
                f"the tree {tree[:10]} cannot be checked out below {self.base}: {error.strerror}",
                hint="free some space, or set NANOSUP_STATE to a directory on another disk",
            ) from error
        return place

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One builder at a time: the others find what it has made."""
        for name in ("", "trees", "files"):
            path = os.path.join(self.base, name)
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chmod(path, 0o700)
        fd = os.open(self.base, _DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _build(self, git: GitTree, place: str) -> None:
        # The lock is held, so whatever has such a name was left by one that was killed.
        for name in os.listdir(self.base):
            if name.startswith(_BUILDING):
                shutil.rmtree(os.path.join(self.base, name))
        room = os.path.join(self.base, f"{_BUILDING}{os.getpid()}")
        os.mkdir(room, 0o700)
        target = os.path.join(room, "tree")
        # A damaged tree may share damaged files with others: then each is read again.
        suspicious = os.path.lexists(place)
        lines = _Builder(self, git, room, check=suspicious).build(target)
        manifest = os.path.join(room, _MANIFEST)
        Path(manifest).write_bytes(b"\0".join(lines))
        fd = os.open(room, _DIRECTORY)
        try:
            syscalls.syncfs(fd)
        finally:
            os.close(fd)
        if suspicious:
            os.rename(place, os.path.join(room, "damaged"))
        # The manifest first: a tree without one would be taken for damaged.
        os.rename(manifest, place + _MANIFEST)
        os.rename(target, place)
        shutil.rmtree(room)


class _Builder:
    """Makes one tree."""

    def __init__(self, store: Checkouts, git: GitTree, room: str, *, check: bool) -> None:
        self._store = store
        self._git = git
        self._room = room
        self._check = check
        self._used: dict[tuple[bytes, str], int] = {}
        self._lines: list[bytes] = []

    def build(self, target: str) -> list[bytes]:
        """Returns the lines of the manifest."""
        os.mkdir(target, 0o755)
        top = os.open(target, _DIRECTORY)
        frames = [(top, b"", *self._listed(self._git.root, b"", None))]
        while frames:
            fd, prefix, entries, rules = frames[-1]
            for mode, name, oid in entries:
                # What no git would check out: the repository may be one that somebody has crafted.
                if refusal(name, symlink=mode == MODE_SYMLINK) is not Refusal.NONE:
                    continue
                if mode in (S_IFTREE, S_IFGITLINK):
                    os.mkdir(name, 0o755, dir_fd=fd)
                if mode == S_IFTREE:
                    below = os.open(name, _DIRECTORY, dir_fd=fd)
                    inner = prefix + name + b"/"
                    frames.append((below, inner, *self._listed(oid, inner, rules)))
                    break
                if mode == S_IFGITLINK:
                    self._settle_directory(fd, name, prefix + name)
                elif mode == MODE_SYMLINK:
                    self._symlink(fd, name, oid, prefix + name)
                else:
                    todo = rules.smudge(prefix + name) if rules is not None else NOTHING
                    self._file(fd, name, oid, mode, prefix + name, todo)
            else:
                frames.pop()
                os.close(fd)
                if frames:
                    path = prefix[:-1]
                    self._settle_directory(frames[-1][0], path.rpartition(b"/")[2], path)
        self._settle_directory(None, os.fsencode(target), b"")
        return self._lines

    def _listed(
        self, oid: bytes, prefix: bytes, above: Rules | None
    ) -> tuple[Iterator[tuple[int, bytes, bytes]], Rules | None]:
        """The entries of a tree, and the conversions that hold in it."""
        entries = list(self._git.entries(oid))
        for mode, name, entry in entries:
            if name == gitattribute.FILE_NAME and stat.S_ISREG(mode):
                return iter(entries), Rules(prefix, self._git.read(entry), above)
        return iter(entries), above

    def _settle_directory(self, fd: int | None, name: bytes, path: bytes) -> None:
        os.chmod(name, 0o755, dir_fd=fd)  # whatever the umask
        self._settle(fd, name)
        self._lines.append(b"%o 0 %s" % (stat.S_IFDIR | 0o755, path))

    def _symlink(self, fd: int, name: bytes, oid: bytes, path: bytes) -> None:
        target = self._git.read(oid)
        if not target or b"\0" in target:
            return
        os.symlink(target, name, dir_fd=fd)
        self._settle(fd, name)
        self._lines.append(b"%o %d %s" % (stat.S_IFLNK | 0o777, len(target), path))

    def _settle(self, fd: int | None, name: bytes) -> None:
        if os.geteuid() != self._store.uid:
            os.chown(name, self._store.uid, self._store.gid, dir_fd=fd, follow_symlinks=False)
        os.utime(name, ns=(EPOCH_NS, EPOCH_NS), dir_fd=fd, follow_symlinks=False)

    def _file(self, fd: int, name: bytes, oid: bytes, mode: int, path: bytes, todo: Smudge) -> None:
        executable = mode == MODE_EXECUTABLE
        # Two files of one tree must not be one inode: rename(2) and `mv` would take them for the
        # same file. So the n-th occurrence of a blob in a tree is the n-th copy in the store.
        kind = ("x" if executable else "-") + todo.key
        number = self._used.get((oid, kind), 0)
        self._used[oid, kind] = number + 1
        text = oid.hex()
        held = os.path.join(self._store.base, "files", text[:2], f"{text[2:]}{kind}{number}")
        permissions = 0o755 if executable else 0o644
        try:
            self._link(held, fd, name, oid, permissions, todo)
        except FileNotFoundError:
            self._write(held, oid, permissions, todo)
            os.link(held, name, dst_dir_fd=fd)
        size = os.stat(name, dir_fd=fd).st_size
        self._lines.append(b"%o %d %s" % (stat.S_IFREG | permissions, size, path))

    def _link(
        self, held: str, fd: int, name: bytes, oid: bytes, permissions: int, todo: Smudge
    ) -> None:
        """Raises FileNotFoundError where the store lacks it, or has it damaged."""
        found = os.lstat(held)
        good = (
            found.st_mode == stat.S_IFREG | permissions
            and found.st_mtime_ns == EPOCH_NS
            and found.st_uid == self._store.uid
        )
        if good and self._check:
            good = Path(held).read_bytes() == self._content(oid, todo)
        if not good:
            raise FileNotFoundError(held)
        try:
            os.link(held, name, dst_dir_fd=fd)
        except OSError:  # EMLINK
            raise FileNotFoundError(held) from None

    def _content(self, oid: bytes, todo: Smudge) -> bytes:
        data = self._git.read(oid)
        if name_object(Kind.BLOB, data) != oid:
            raise OSError(5, f"the git object {oid.hex()} is damaged: run `git fsck`")
        return data if todo == NOTHING else to_worktree(data, todo, oid.hex())

    def _write(self, held: str, oid: bytes, permissions: int, todo: Smudge) -> None:
        data = self._content(oid, todo)
        os.makedirs(os.path.dirname(held), mode=0o700, exist_ok=True)
        temporary = os.path.join(self._room, "file")
        with open(temporary, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), permissions)
            if os.geteuid() != self._store.uid:
                os.fchown(file.fileno(), self._store.uid, self._store.gid)
        os.utime(temporary, ns=(EPOCH_NS, EPOCH_NS))
        os.rename(temporary, held)


def _is_intact(place: str, uid: int) -> bool:
    """Whether every file is as it was made, by its stat data. Sees what appeared, too: making a
    file changes its directory's time."""
    try:
        lines = Path(place + _MANIFEST).read_bytes().split(b"\0")
        top = os.open(place, _DIRECTORY)
    except OSError:
        return False
    try:
        for line in lines:
            mode, size, path = line.split(b" ", 2)
            found = os.stat(path or b".", dir_fd=top, follow_symlinks=False)
            if (
                found.st_mode != int(mode, 8)
                or found.st_mtime_ns != EPOCH_NS
                or found.st_uid != uid
                or (not stat.S_ISDIR(found.st_mode) and found.st_size != int(size))
            ):
                return False
    except (OSError, ValueError):
        return False
    finally:
        os.close(top)
    return True
