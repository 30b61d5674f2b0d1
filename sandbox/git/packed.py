"""Reads whole objects out of pack files (gitformat-pack(5)), as fast as they can be inflated.

Most of what a checkout holds lies whole in some pack, and inflating it is most of what reading
it takes. ISA-L inflates more than twice as fast as zlib, which libgit2 uses. What is kept as a
difference from another object, lies loose, or is damaged, is left to libgit2.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from isal import isal_zlib

_MAGIC = b"\377tOc\0\0\0\2"
_FANOUT_AT = 8
_NAMES_AT = _FANOUT_AT + 256 * 4
_PAIR = struct.Struct(">II")
_SMALL = struct.Struct(">I")
_LARGE = struct.Struct(">Q")
_IS_LARGE = 1 << 31

# Of packed objects: commit, tree, blob, tag. The others are differences.
_WHOLE = range(1, 5)
# Names that are compared at once; a search among more goes by halves first.
_AT_ONCE = 256
# Of the largest. Each keeps two descriptors open.
_PACKS = 16


class Packs:
    """The packs that object directories have at this moment; later ones are not seen."""

    def __init__(self, object_dirs: Iterable[Path], oid_size: int) -> None:
        self._packs: list[_Pack] = []
        for directory in object_dirs:
            for index in sorted(_indexes(directory / "pack"), key=_size, reverse=True):
                if len(self._packs) < _PACKS and (pack := _open(index, oid_size)) is not None:
                    self._packs.append(pack)

    def read(self, oid: bytes) -> bytes | None:
        """The content of an object; None where somebody else has to find it."""
        for pack in self._packs:
            offset = pack.find(oid)
            if offset:
                return pack.inflate(offset)
        return None


class _Pack:
    __slots__ = ("_count", "_data", "_index", "_oid_size", "_view")

    def __init__(self, index: mmap.mmap, data: mmap.mmap, oid_size: int) -> None:
        self._index = index
        self._data = data
        self._view = memoryview(data)
        self._oid_size = oid_size
        self._count: int = _SMALL.unpack_from(index, _NAMES_AT - 4)[0]

    def find(self, oid: bytes) -> int:
        """Where the object begins; 0 where it is not in this pack."""
        index, size, first = self._index, self._oid_size, oid[0]
        if first:
            low, high = _PAIR.unpack_from(index, _FANOUT_AT + first * 4 - 4)
        else:
            low, high = 0, _SMALL.unpack_from(index, _FANOUT_AT)[0]
        while high - low > _AT_ONCE:
            middle = low + high >> 1
            at = _NAMES_AT + middle * size
            if index[at : at + size] <= oid:
                low = middle
            else:
                high = middle
        names = index[_NAMES_AT + low * size : _NAMES_AT + high * size]
        at = names.find(oid)
        while at % size:
            if at < 0:
                return 0
            at = names.find(oid, at + 1)
        offsets_at = _NAMES_AT + self._count * (size + 4)
        offset: int = _SMALL.unpack_from(index, offsets_at + (low + at // size) * 4)[0]
        if offset & _IS_LARGE:
            large_at = offsets_at + self._count * 4 + (offset & ~_IS_LARGE) * 8
            offset = _LARGE.unpack_from(index, large_at)[0]
        return offset

    def inflate(self, offset: int) -> bytes | None:
        """The object that begins there; None if it is not there whole and sound."""
        data = self._data
        try:
            byte = data[offset]
            if byte >> 4 & 7 not in _WHOLE:
                return None
            size, shift = byte & 15, 4
            while byte & 0x80:
                offset += 1
                byte = data[offset]
                size |= (byte & 0x7F) << shift
                shift += 7
            # What cannot be compressed gets longer, but by less than that.
            end = offset + 1 + size + (size >> 3) + 64
            content = isal_zlib.decompress(self._view[offset + 1 : end], bufsize=size or 1)
        # Its stubs do not say that the error is one.
        except (isal_zlib.error, IndexError):  # type: ignore[misc]
            return None
        return content if len(content) == size else None


def _indexes(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in os.listdir(directory) if name.endswith(".idx")]
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _open(path: Path, oid_size: int) -> _Pack | None:
    try:
        index, data = _mapped(path), _mapped(path.with_suffix(".pack"))
    except (OSError, ValueError):
        return None  # gone by now, or empty
    if index[:_FANOUT_AT] != _MAGIC or len(index) < _NAMES_AT:
        return None
    return _Pack(index, data, oid_size)


def _mapped(path: Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    finally:
        os.close(fd)
