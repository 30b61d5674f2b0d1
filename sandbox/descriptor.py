"""Open descriptors of a process that was just forked."""

from __future__ import annotations

import os
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
