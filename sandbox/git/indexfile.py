"""The git index as bytes: versions 2 to 4 read, version 4 with cached trees written. Pure.

Format: gitformat-index(5).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from sandbox.git.gitobject import FormatError

_HEADER = struct.Struct(">4sII")
# ctime s, ns; mtime s, ns; dev; ino; mode; uid; gid; size; oid; flags
_ENTRY = struct.Struct(">10I20sH")
_FIXED_BYTES = 62
_NAME_MASK = 0x0FFF
_EXTENDED = 0x4000
_STAGE_MASK = 0x3000
_SKIP_WORKTREE = 0x4000  # of the extended flags
_INTENT_TO_ADD = 0x2000


class Entry(NamedTuple):
    """One path of an index, with the stat data that git noted. Times in seconds and nanoseconds."""

    path: bytes
    oid: bytes
    mode: int
    size: int
    mtime_s: int
    mtime_ns: int
    ctime_s: int
    ctime_ns: int
    ino: int
    stage: int
    skip_worktree: bool
    intent_to_add: bool


@dataclass(frozen=True, slots=True)
class Index:
    """A parsed index. `tree` is the cached tree of the whole, where it is known and valid."""

    entries: list[Entry]
    tree: bytes | None
    split: bytes | None = None  # SHA-1 in the name of the shared index that this one needs
    sparse: bool = False


def parse(data: bytes) -> Index:
    """Parses an index file.

    Raises:
        FormatError: it is none, or of a version or with an extension that is not known.
    """
    try:
        return _parse(data)
    except (struct.error, ValueError, IndexError) as error:
        raise FormatError(f"the git index is malformed: {error}") from error


def _parse(data: bytes) -> Index:
    signature, version, count = _HEADER.unpack_from(data)
    if signature != b"DIRC" or version not in {2, 3, 4}:
        raise FormatError("not a git index of a known version")
    entries: list[Entry] = []
    position = _HEADER.size
    unpack = _ENTRY.unpack_from
    path = b""
    for _ in range(count):
        (cs, cn, ms, mn, _dev, ino, mode, _uid, _gid, size, oid, flags) = unpack(data, position)
        start = position + _FIXED_BYTES
        extended = 0
        if flags & _EXTENDED:
            extended = int.from_bytes(data[start : start + 2], "big")
            start += 2
        if version == 4:
            strip, shift = 0, start
            byte = data[shift]
            strip = byte & 0x7F
            while byte & 0x80:
                shift += 1
                byte = data[shift]
                strip = ((strip + 1) << 7) | (byte & 0x7F)
            end = data.index(b"\0", shift + 1)
            path = path[: len(path) - strip] + data[shift + 1 : end]
            position = end + 1
        else:
            length = flags & _NAME_MASK
            end = start + length if length < _NAME_MASK else data.index(b"\0", start)
            path = data[start:end]
            position += (end - position + 8) & ~7
        entries.append(
            Entry(
                path,
                oid,
                mode,
                size,
                ms,
                mn,
                cs,
                cn,
                ino,
                (flags & _STAGE_MASK) >> 12,
                bool(extended & _SKIP_WORKTREE),
                bool(extended & _INTENT_TO_ADD),
            )
        )
    return _extensions(data, position, entries)


def _extensions(data: bytes, position: int, entries: list[Entry]) -> Index:
    tree, split, sparse = None, None, False
    while position + 8 <= len(data) - 20:
        name = data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "big")
        body = data[position + 8 : position + 8 + length]
        if name == b"TREE" and body:
            end = body.index(b"\0")
            newline = body.index(b"\n", end)
            if not body[end + 1 :].startswith(b"-"):
                tree = body[newline + 1 : newline + 21]
        elif name == b"link":
            split = body[:20]
        elif name == b"sdir":
            sparse = True
        elif not name[:1].isupper():
            raise FormatError(f"the git index needs the unknown extension {name!r}")
        position += 8 + length
    return Index(entries, tree, split if split and split != bytes(20) else None, sparse)


@dataclass(slots=True)
class CachedTree:
    """A directory for the TREE extension: what `git write-tree` need not work out again.

    Attributes:
        name: last component of its path; empty for the root.
        count: index entries below it.
        ignore: its `.gitignore`, where it has one.
    """

    name: bytes
    oid: bytes
    count: int = 0
    ignore: bytes | None = None
    children: list[CachedTree] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Builder:
    """Collects the entries of a version 4 index, which must come sorted by path.

    Version 4 leaves out what a path has in common with the one before it: here the directory. git
    hashes all of the file whenever it reads or writes it, so a shorter one is a quicker one.

    Attributes:
        uid, gid: owner that the mount reports.
        epoch_ns: time stamp of entries without one of their own.
    """

    uid: int
    gid: int
    epoch_ns: int
    chunks: list[bytes] = field(default_factory=list)
    count: int = 0
    _heads: dict[int, bytes] = field(default_factory=dict)
    _before: bytes = b""
    _directory: bytes = b""
    _owner: bytes = b""

    def __post_init__(self) -> None:
        self._owner = struct.pack(">II", self.uid & 0xFFFFFFFF, self.gid & 0xFFFFFFFF)

    def _head(self, mode: int, mtime_ns: int, ctime_ns: int) -> bytes:
        seconds, nanos = divmod(mtime_ns, 1_000_000_000)
        c_seconds, c_nanos = divmod(ctime_ns, 1_000_000_000)
        # dev and ino are 0: core.checkStat = minimal ignores them, and the mount's are its own.
        stat = struct.pack(
            ">7I",
            c_seconds & 0xFFFFFFFF,
            c_nanos,
            seconds & 0xFFFFFFFF,
            nanos,
            0,
            0,
            mode,
        )
        return stat + self._owner

    def add(
        self,
        path: bytes,
        mode: int,
        oid: bytes,
        size: int,
        times_ns: tuple[int, int] | None = None,
    ) -> None:
        """Adds a path. `times_ns` is (mtime, ctime) where it is not the epoch."""
        if times_ns is None:
            head = self._heads.get(mode)
            if head is None:
                head = self._heads[mode] = self._head(mode, self.epoch_ns, self.epoch_ns)
        else:
            head = self._head(mode, *times_ns)
        cut = path.rfind(b"/") + 1
        common = cut if path[:cut] == self._directory else 0
        self.chunks.append(
            head
            + (size & 0xFFFFFFFF).to_bytes(4, "big")
            + oid
            + min(len(path), _NAME_MASK).to_bytes(2, "big")
            + varint(len(self._before) - common)
            + path[common:]
            + b"\0"
        )
        self._before, self._directory = path, path[:cut]
        self.count += 1

    def build(self, root: CachedTree, extensions: bytes = b"") -> bytes:
        """The whole file, with its checksum. `extensions` follow that of cached trees."""
        body: list[bytes] = []
        pending = [root]
        while pending:
            tree = pending.pop()
            body.append(b"%s\0%d %d\n%s" % (tree.name, tree.count, len(tree.children), tree.oid))
            pending.extend(reversed(tree.children))
        cached = b"".join(body)
        data = b"".join(
            (
                _HEADER.pack(b"DIRC", 4, self.count),
                *self.chunks,
                b"TREE" + len(cached).to_bytes(4, "big"),
                cached,
                extensions,
            )
        )
        return data + hashlib.sha1(data, usedforsecurity=False).digest()


def varint(value: int) -> bytes:
    """An unsigned number of variable width (varint.c)."""
    out = [value & 0x7F]
    while value := value >> 7:
        value -= 1
        out.append(0x80 | value & 0x7F)
    return bytes(reversed(out))
