"""The clocks. The wall clock is for showing; durations are measured by clocks that only go forward.

CLOCK_BOOTTIME counts through suspend and is one for all processes of a boot, so an age that one
process wrote down can be judged by another (clock_gettime(2)).
"""

from __future__ import annotations

import time


def utc_now() -> str:
    """The time as RFC 3339 in UTC, to the millisecond: `2026-11-23T23:46:19.123Z`."""
    return utc(time.time())


def utc(wall_s: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    milliseconds = int(wall_s * 1000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{stamp}.{milliseconds % 1000:03d}Z"


def monotonic_s() -> float:
    """Seconds by CLOCK_MONOTONIC, which stands still while the host is suspended."""
    return time.monotonic()


def wall_s() -> float:
    """Seconds since 1970. Steps when somebody sets the clock."""
    return time.time()


def suspended_s() -> float:
    """Seconds of this boot in which the host was suspended. CLOCK_MONOTONIC stands still then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def boottime_s() -> float:
    """Seconds since this boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
