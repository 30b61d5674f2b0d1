"""Being asked to end while there is no lane yet, or no lane any more.

While a lane runs its keeper takes signals one by one (`vigil`). Before that there is nothing to end
but the preparations, and afterwards what the lane has made is being put away, which is the end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ASKS = (signal.SIGTERM, signal.SIGINT)


class WithdrawnError(BaseException):
    """Raised, once, where a keeper is asked to end before its command runs. Not an `Exception`:
    it goes through whatever handles those."""


def heed() -> None:
    """From now on such a signal raises WithdrawnError, instead of killing us without a word."""
    for number in _ASKS:
        signal.signal(number, _withdraw)


def ignore() -> None:
    """From now on such a signal does nothing: it is ending already."""
    for number in _ASKS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def held() -> Iterator[Callable[[], None]]:
    """Such a signal waits while the block lasts, or until what this gives is called."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKS)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield release
    finally:
        release()


def asks_for_the_end(numbers: bytes) -> bool:
    """Whether one of these signals does."""
    return any(number in numbers for number in _ASKS)


def _withdraw(number: int, frame: FrameType | None) -> None:
    ignore()  # a second one must not disturb the clearing up
    raise WithdrawnError(signal.Signals(number).name)
