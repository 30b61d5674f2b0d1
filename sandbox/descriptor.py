"""Descriptors: whether one can be read, writing all of something to one, and those that a forked
process is to be rid of."""

from __future__ import annotations

import os
import select
from collections.abc import Container


def close_others(kept: Container[int]) -> None:
    """Closes every descriptor of this process but `kept`.

    Not os.closerange: without close_range(2) in the libc that Python was built with, it would try
    every number there is.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:  # the listing's own
                pass


def write_whole(fd: int, data: bytes | memoryview) -> None:
    """write(2) until all is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def readable(fd: int, timeout_s: float | None) -> bool:
    """Whether `fd` can be read (a pidfd: its process is dead), waiting for it; None: as long as it
    takes. Of any number, which select(2) cannot say."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
