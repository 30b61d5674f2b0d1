"""Descriptors that are needed and not to be had: noticed before something is half-done for want of
one, or an unreadable file is taken for a missing one."""

from __future__ import annotations

import os
import resource

SPARE = 24
"""More than a pass of the fleet has open at once."""


def is_short() -> bool:
    """Whether fewer than SPARE descriptors can be opened now (EMFILE, ENFILE)."""
    taken: list[int] = []
    try:
        for _ in range(SPARE):
            # Not a duplicate: that would not need a file of the host's table.
            taken.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401
    except OSError:
        return True
    finally:
        for fd in taken:
            os.close(fd)
    return False


def raise_limit() -> None:
    """Lets this process open as many files as it may: a fleet watches one a lane."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # the soft one has to do
