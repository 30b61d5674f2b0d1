"""Counts what a mount is asked for: a sign of life, and the truth about caching."""

from __future__ import annotations

import enum
import json
import mmap
import time


class Kind(enum.IntEnum):
    """What is counted: requests of the kernel, then bytes, then how they were answered."""

    LOOKUP = 0
    GETATTR = 1
    READDIR = 2
    OPENDIR = 3
    OPEN = 4
    READ = 5
    RELEASE = 6
    WRITE = 7
    CREATE = 8
    REMOVE = 9
    RENAME = 10
    SETATTR = 11
    XATTR = 12
    FSYNC = 13
    READLINK = 14
    STATFS = 15

    # What follows are no requests of anybody's.
    FORGET = 16
    ENTRY = 17
    READ_BYTES = 18
    WRITE_BYTES = 19
    COPY_UP = 20
    BLOB_HIT = 21
    BLOB_MISS = 22
    BLOB_BYTES = 23
    DIRECTORY_HIT = 24
    DIRECTORY_MISS = 25
    SIZE_MISS = 26


_OPERATIONS = len([kind for kind in Kind if kind < Kind.FORGET])


class Counter:
    """Totals since the mount began. `totals` is indexed by `Kind`.

    They are in memory that a forked process shares: whoever makes the counter before the server
    is forked can read it at any time, also while the server is busy, and after its death. There
    is one writer.

    Of the kinds: FORGET counts inodes, ENTRY names listed, BLOB_BYTES what was inflated. A blob
    or a directory is a HIT where the server had it in memory; SIZE_MISS counts sizes looked up in
    the object store. What the kernel answers from its own caches is never seen here.
    """

    __slots__ = ("_started_ns", "totals")

    def __init__(self) -> None:
        self.totals = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self._started_ns = time.monotonic_ns()

    def operations(self) -> int:
        """How many requests somebody has made; forgets are the kernel's own and do not count."""
        return sum(self.totals[:_OPERATIONS])

    def totals_by_name(self) -> dict[str, int]:
        """Every total by its lower-case name, and `operations`."""
        found = {"operations": self.operations()}
        for kind in Kind:
            found[kind.name.lower()] = self.totals[kind]
        return found

    def document(self) -> bytes:
        """One line of JSON: every total, and the mount's age in seconds."""
        age_s = round((time.monotonic_ns() - self._started_ns) / 1e9, 3)
        return json.dumps({**self.totals_by_name(), "age_s": age_s}).encode() + b"\n"
