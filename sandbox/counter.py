"""Counts what a mount is asked for: a sign of life, and the truth about caching."""

from __future__ import annotations

import enum
import json
import time


class Kind(enum.IntEnum):
    """What is counted. Operations by name, bytes, and where read bytes came from."""

    LOOKUP = 0
    GETATTR = 1
    READDIR = 2
    OPENDIR = 3
    OPEN = 4
    READ = 5
    READ_BYTES = 6
    RELEASE = 7
    WRITE = 8
    WRITE_BYTES = 9
    CREATE = 10
    REMOVE = 11
    RENAME = 12
    SETATTR = 13
    XATTR = 14
    FSYNC = 15
    READLINK = 16
    STATFS = 17
    FORGET = 18
    BLOB = 19
    COPY_UP = 20
    ENTRY = 21


class Counter:
    """Totals since the mount began. `totals` is indexed by `Kind`."""

    __slots__ = ("_started_ns", "totals")

    def __init__(self) -> None:
        self.totals = [0] * len(Kind)
        self._started_ns = time.monotonic_ns()

    def document(self) -> bytes:
        """One line of JSON: every total by lower-case name, and the mount's age in seconds."""
        totals: dict[str, int | float] = {kind.name.lower(): self.totals[kind] for kind in Kind}
        totals["operations"] = sum(
            self.totals[kind]
            for kind in Kind
            if kind not in (Kind.READ_BYTES, Kind.WRITE_BYTES, Kind.BLOB, Kind.COPY_UP, Kind.ENTRY)
        )
        totals["age_s"] = round((time.monotonic_ns() - self._started_ns) / 1e9, 3)
        return json.dumps(totals).encode() + b"\n"
