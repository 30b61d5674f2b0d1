"""Whose request it is."""

from __future__ import annotations

import mmap

from sandbox.mount import wire
from sandbox.union.caller import Caller


def asking(request: mmap.mmap) -> Caller:
    """The process behind the request in the buffer."""
    _, _, _, _, uid, gid, pid, _ = wire.IN_HEADER.unpack_from(request)
    return Caller(uid, gid, pid)
