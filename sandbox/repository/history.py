"""Brings the commits that an agent made in its lane into the host's repository.

The lane's git directory is material to be examined: it is read by descriptors, object by object,
with nothing of its configuration, alternates, hooks or pointers having any effect. Whatever is odd
about it costs the agent its history, never its work, and never fails the seal.
"""

from __future__ import annotations

import os
import re
import resource
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pygit2

from sandbox.git import submodule
from sandbox.git.gitobject import (
    MODE_GITLINK,
    MODE_TREE,
    FormatError,
    Kind,
    check_commit,
    check_tree,
)
from sandbox.git.store import Store
from sandbox.repository.repository import Repository

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_COMMITS_LIMIT = 10_000
_OBJECTS_LIMIT = 500_000
_OBJECT_LIMIT_BYTES = 256 << 20
_TOTAL_LIMIT_BYTES = 4 << 30
_REFS_LIMIT_BYTES = 64 << 20
_TREES_DEPTH_LIMIT = 2048
# For libgit2, which makes whatever a difference is from whole, before it makes the object.
_MEMORY_BYTES = 4 * _OBJECT_LIMIT_BYTES

_REF = re.compile(rb"refs/heads/(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)|/\.))[^\0-\x20\x7f~^:?*\[\\]+")
_HEX = re.compile(rb"[0-9a-f]{40}")
_LOOSE_HEADER = re.compile(rb"(commit|tree|blob|tag) (\d{1,12})\0")
_KINDS = {b"commit": Kind.COMMIT, b"tree": Kind.TREE, b"blob": Kind.BLOB, b"tag": Kind.TAG}


class HistoryRefused(Exception):  # noqa: N818 (not an error: the seal goes on without the history)
    """Raised when the lane's commits cannot be taken over. Says why."""


def _open_beneath(parts: list[bytes], flags: int, dir_fd: int) -> int:
    """Opens a path below a directory, no component of which may be a symbolic link."""
    here = os.dup(dir_fd)
    try:
        for part in parts[:-1]:
            below = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        return os.open(parts[-1], flags, dir_fd=here)
    finally:
        os.close(here)


def _read_file(parts: list[bytes], dir_fd: int, limit_bytes: int) -> bytes | None:
    """A regular file's content; None where there is none."""
    try:
        fd = _open_beneath(parts, _FILE, dir_fd)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit_bytes:
            raise HistoryRefused(f"its {os.fsdecode(b'/'.join(parts))} is odd")
        return file.read(limit_bytes + 1)


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Lets this process have no more than some memory on top of what it has: a few bytes of a pack
    can stand for any number of them. What is refused more gets MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = _data_bytes() + _MEMORY_BYTES
    if before[0] != resource.RLIM_INFINITY:
        allowed = min(allowed, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _data_bytes() -> int:
    """What RLIMIT_DATA counts of this process (proc(5), statm)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


class LaneObjects:
    """The objects in a lane's own object directory, without its alternates. A context manager."""

    def __init__(self, lane_git: Path) -> None:
        self._root = os.open(lane_git, _DIRECTORY)
        self._objects = -1
        self._packs: pygit2.Odb | None = None
        try:
            self._objects = os.open(b"objects", _DIRECTORY, dir_fd=self._root)
        except BaseException:
            os.close(self._root)
            raise

    def __enter__(self) -> LaneObjects:
        return self

    def __exit__(self, *_: object) -> None:
        self._packs = None
        os.close(self._objects)
        os.close(self._root)

    def head(self) -> bytes:
        """The commit that HEAD names."""
        text = (_read_file([b"HEAD"], self._root, 4096) or b"").strip()
        if _HEX.fullmatch(text):
            return bytes.fromhex(text.decode())
        name = text.removeprefix(b"ref:").strip()
        if not text.startswith(b"ref:") or not _REF.fullmatch(name):
            raise HistoryRefused("its HEAD is odd")
        loose = _read_file(name.split(b"/"), self._root, 4096)
        if loose is not None:
            if not _HEX.fullmatch(loose.strip()):
                raise HistoryRefused("its current branch is odd")
            return bytes.fromhex(loose.strip().decode())
        packed = _read_file([b"packed-refs"], self._root, _REFS_LIMIT_BYTES) or b""
        match = re.search(rb"^([0-9a-f]{40}) " + re.escape(name) + rb"$", packed, re.MULTILINE)
        if match is None:
            raise HistoryRefused("its current branch has no commit")
        return bytes.fromhex(match[1].decode())

    def read(self, oid: bytes, kind: Kind) -> bytes:
        """An object's content, which the caller hashes to see whether it is what it should be."""
        name = oid.hex().encode()
        raw = _read_file([name[:2], name[2:]], self._objects, _OBJECT_LIMIT_BYTES)
        if raw is None:
            return self._read_packed(oid, kind)
        inflate = zlib.decompressobj()
        data = inflate.decompress(raw, _OBJECT_LIMIT_BYTES + 64)
        match = _LOOSE_HEADER.match(data)
        if match is None or _KINDS[match[1]] is not kind:
            raise HistoryRefused("it has an object of another type than it should be")
        data = data[match.end() :]
        if len(data) != int(match[2]):
            raise HistoryRefused("it has an object that is too large, or not of its size")
        return data

    def _read_packed(self, oid: bytes, kind: Kind) -> bytes:
        if self._packs is None:
            self._packs = pygit2.Odb()
            if self._check_packs():
                # By descriptor: the directory that was looked at is the one that is used.
                path = f"/proc/self/fd/{self._objects}"
                self._packs.add_backend(pygit2.OdbBackendPack(path), 1)
        try:
            found, size = self._packs.read_header(oid.hex())
            if int(found) != kind or size > _OBJECT_LIMIT_BYTES:
                raise HistoryRefused("it has an object that is too large, or of another type")
            with _bounded_memory():
                return bytes(self._packs.read(oid.hex())[1])
        except KeyError as error:
            raise HistoryRefused("it lacks objects of its own history") from error
        except MemoryError as error:
            raise HistoryRefused("it has an object that is too large") from error

    def _check_packs(self) -> bool:
        # libgit2 opens by name: it must find regular files there, not links or FIFOs.
        try:
            fd = os.open(b"pack", _DIRECTORY, dir_fd=self._objects)
        except FileNotFoundError:
            return False
        try:
            with os.scandir(fd) as entries:
                if not all(entry.is_file(follow_symlinks=False) for entry in entries):
                    raise HistoryRefused("its pack directory is odd")
        finally:
            os.close(fd)
        return True


class _Importer:
    def __init__(self, store: Store, objects: LaneObjects) -> None:
        self._store = store
        self._objects = objects
        self._count = 0
        self._total_bytes = 0

    def fetch(self, oid: bytes, kind: Kind) -> bytes:
        self._count += 1
        data = self._objects.read(oid, kind)
        self._total_bytes += len(data)
        if self._count > _OBJECTS_LIMIT or self._total_bytes > _TOTAL_LIMIT_BYTES:
            raise HistoryRefused("there is too much of it")
        return data

    def put(self, oid: bytes, kind: Kind, data: bytes) -> None:
        if self._store.put(kind, data) != oid:
            raise HistoryRefused("it has an object that does not match its name")

    def commits(self, head: bytes) -> tuple[set[bytes], list[bytes]]:
        """Takes the new commits. Returns the known ones that they grow from, and their trees."""
        known: set[bytes] = set()
        seen: set[bytes] = set()
        trees: list[bytes] = []
        pending = [head]
        while pending:
            oid = pending.pop()
            if oid in seen or oid in known:
                continue
            if self._store.exists(oid):
                known.add(oid)
                continue
            if len(seen) >= _COMMITS_LIMIT:
                raise HistoryRefused("there are too many commits")
            data = self.fetch(oid, Kind.COMMIT)
            commit = check_commit(data)
            seen.add(oid)
            trees.append(commit.tree)
            pending.extend(commit.parents)
            self.put(oid, Kind.COMMIT, data)
        return known, trees

    def trees(self, roots: list[bytes]) -> None:
        """Takes what of these trees is new."""
        pending = [(oid, 0) for oid in roots]
        while pending:
            oid, depth = pending.pop()
            if self._store.exists(oid):
                continue
            if depth > _TREES_DEPTH_LIMIT:
                raise HistoryRefused("it has directories nested too deep")
            data = self.fetch(oid, Kind.TREE)
            entries = check_tree(data)
            self.put(oid, Kind.TREE, data)
            for name, (mode, entry) in entries.items():
                if mode == MODE_TREE:
                    pending.append((entry, depth + 1))
                elif mode != MODE_GITLINK and not self._store.exists(entry):
                    blob = self.fetch(entry, Kind.BLOB)
                    if name == submodule.FILE_NAME and (why := submodule.fault(blob)):
                        raise HistoryRefused(f"a .gitmodules in it {why}")
                    self.put(entry, Kind.BLOB, blob)


def bring(store: Store, repo: Repository, lane_git: Path, parent: bytes) -> bytes | None:
    """Puts the lane's new commits into `store`. Returns its HEAD, or None where that is `parent`.

    Raises:
        HistoryRefused: the lane's commits do not grow from `parent`, or something about the
            lane's git directory is broken or crafted. The store is as it was.
    """
    mark = store.mark()
    try:
        with LaneObjects(lane_git) as objects:
            head = objects.head()
            if head == parent:
                return None
            importer = _Importer(store, objects)
            known, trees = importer.commits(head)
            if parent not in known and not _grows_from(repo, known, parent):
                raise HistoryRefused("its commits do not grow from the one that it began with")
            importer.trees(trees)
            return head
    except HistoryRefused:
        store.rollback(mark)
        raise
    except FormatError as error:
        store.rollback(mark)
        raise HistoryRefused(str(error)) from error
    except (OSError, ValueError, KeyError, zlib.error, pygit2.GitError) as error:
        store.rollback(mark)
        raise HistoryRefused(f"it is broken ({type(error).__name__})") from error


def _grows_from(repo: Repository, known: set[bytes], parent: bytes) -> bool:
    handle = repo.open()
    for oid in known:
        try:
            if handle.descendant_of(oid.hex(), parent.hex()):
                return True
        except (KeyError, ValueError, pygit2.GitError):
            continue
    return False
