"""Writes git pack files, version 2, without deltas (gitformat-pack(5)).

One pack a seal rather than loose objects: it costs two fsync(2) however many files changed, and
it appears whole with one rename or not at all.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sandbox.git.gitobject import FormatError, Kind, header

# Sealing time counts, and `git gc` compresses again whatever is kept.
_LEVEL = 1
_CHUNK_BYTES = 1 << 20


def _entry_header(kind: Kind, size: int) -> bytes:
    first = (kind << 4) | (size & 15)
    size >>= 4
    out = bytearray()
    while size:
        out.append(first | 0x80)
        first = size & 0x7F
        size >>= 7
    out.append(first)
    return bytes(out)


class PackWriter:
    """Collects objects in a temporary file of `objects_dir`; `finish` gives them their name."""

    def __init__(self, objects_dir: Path) -> None:
        self._directory = objects_dir / "pack"
        self._file: BinaryIO | None = None
        self._temporary = ""
        self._entries: dict[bytes, tuple[int, int]] = {}  # oid → crc32, offset

    def __contains__(self, oid: bytes) -> bool:
        return oid in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def _open(self) -> BinaryIO:
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            # git's own prefix: `git prune` and `git gc` clear away what a crash leaves.
            fd, self._temporary = tempfile.mkstemp(prefix="tmp_pack_", dir=self._directory)
            self._file = os.fdopen(fd, "w+b", buffering=_CHUNK_BYTES)
            self._file.write(struct.pack(">4sII", b"PACK", 2, 0))
        return self._file

    def add(self, kind: Kind, data: bytes, oid: bytes) -> None:
        """Adds an object whose name is known to be `oid`."""
        if oid in self._entries:
            return
        file = self._open()
        offset = file.tell()
        content = _entry_header(kind, len(data)) + zlib.compress(data, _LEVEL)
        file.write(content)
        self._entries[oid] = (zlib.crc32(content), offset)

    def add_stream(self, source: BinaryIO, size: int, known: Callable[[bytes], bool]) -> bytes:
        """Adds a blob of `size` bytes without holding it in memory. Returns its name.

        What turns out to be `known` already is cut off again.

        Raises:
            FormatError: `source` has fewer or more bytes than it said.
        """
        file = self._open()
        offset = file.tell()
        prefix = _entry_header(Kind.BLOB, size)
        file.write(prefix)
        digest = hashlib.sha1(header(Kind.BLOB, size), usedforsecurity=False)
        deflate, crc, count = zlib.compressobj(_LEVEL), zlib.crc32(prefix), 0
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            count += len(chunk)
            packed = deflate.compress(chunk)
            crc = zlib.crc32(packed, crc)
            file.write(packed)
        packed = deflate.flush()
        file.write(packed)
        oid = digest.digest()
        if count != size or oid in self._entries or known(oid):
            file.seek(offset)
            file.truncate()
            if count != size:
                raise FormatError("a file changed its size while it was read")
            return oid
        self._entries[oid] = (zlib.crc32(packed, crc), offset)
        return oid

    def read(self, oid: bytes) -> tuple[Kind, bytes]:
        """An object that was added (KeyError where it was not)."""
        offset = self._entries[oid][1]
        file = self._open()
        end = file.tell()
        file.seek(offset)
        byte = file.read(1)[0]
        kind = Kind((byte >> 4) & 7)
        while byte & 0x80:
            byte = file.read(1)[0]
        inflate, pieces = zlib.decompressobj(), []
        while not inflate.eof:
            pieces.append(inflate.decompress(file.read(_CHUNK_BYTES)))
        file.seek(end)
        return kind, b"".join(pieces)

    def mark(self) -> tuple[int, int]:
        """Where the pack stands, for `rollback`."""
        return (self._file.tell() if self._file is not None else 12), len(self._entries)

    def rollback(self, mark: tuple[int, int]) -> None:
        """Forgets what was added since `mark`."""
        if self._file is not None:
            self._file.seek(mark[0])
            self._file.truncate()
        for oid in list(self._entries)[mark[1] :]:
            del self._entries[oid]

    def abandon(self) -> None:
        """Forgets everything."""
        if self._file is not None:
            self._file.close()
            os.unlink(self._temporary)
            self._file = None
        self._entries.clear()

    def finish(self) -> None:
        """Makes the objects durable, then visible. Does nothing where there are none.

        Raises:
            OSError: disk full, or the object store cannot be written; nothing is visible then.
        """
        if not self._entries:
            self.abandon()
            return
        file = self._open()
        try:
            end = file.tell()
            file.seek(8)
            file.write(struct.pack(">I", len(self._entries)))
            file.seek(0)
            digest = hashlib.sha1(usedforsecurity=False)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            file.seek(end)
            file.write(digest.digest())
            self._settle(file)
            base = self._directory / f"pack-{digest.hexdigest()}"
            index = self._write_index(digest.digest())
        except BaseException:
            self.abandon()
            raise
        file.close()
        # git takes a pack for existing when its .idx does, so that one comes last.
        os.rename(self._temporary, f"{base}.pack")
        os.rename(index, f"{base}.idx")
        self._file = None
        self._entries.clear()
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _settle(self, file: BinaryIO) -> None:
        file.flush()
        if os.geteuid() == 0:
            # A repository of an ordinary user stays that user's when root works in it.
            owner = os.stat(self._directory.parent)
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())

    def _write_index(self, checksum: bytes) -> str:
        oids = sorted(self._entries)
        fanout, counts = [], [0] * 256
        for oid in oids:
            counts[oid[0]] += 1
        total = 0
        for count in counts:
            total += count
            fanout.append(total)
        small, large = bytearray(), bytearray()
        for oid in oids:
            offset = self._entries[oid][1]
            if offset < 0x8000_0000:
                small += struct.pack(">I", offset)
            else:
                small += struct.pack(">I", 0x8000_0000 | (len(large) // 8))
                large += struct.pack(">Q", offset)
        body = b"".join(
            (
                b"\377tOc\0\0\0\2",
                struct.pack(">256I", *fanout),
                *oids,
                struct.pack(f">{len(oids)}I", *(self._entries[oid][0] for oid in oids)),
                bytes(small),
                bytes(large),
                checksum,
            )
        )
        fd, name = tempfile.mkstemp(prefix="tmp_idx_", dir=self._directory)
        with os.fdopen(fd, "w+b") as file:
            try:
                file.write(body + hashlib.sha1(body, usedforsecurity=False).digest())
                self._settle(file)
            except BaseException:
                os.unlink(name)
                raise
        return name
