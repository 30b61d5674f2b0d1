"""The signals that ask something of a keeper, one by one, where poll(2) sees them."""

from __future__ import annotations

import os
import signal
from types import TracebackType
from typing import Self

from supervisor.board.pause import LOOK
from supervisor.keeper import withdrawal

_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, LOOK)


class Wakeup:
    """As a context manager it takes them: each becomes a byte in a pipe, so that no handler runs at
    a bad moment. When it is left, what asks for an end does nothing any more in a keeper that is
    not in the foreground: it is ending.
    """

    def __init__(self, *, foreground: bool = False) -> None:
        self._foreground = foreground

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._previous_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, lambda *_: None) for number in _NUMBERS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if not self._foreground:
            withdrawal.ignore()
        self.close()

    def close(self) -> None:
        """Takes no more; what handles signals stays what it is."""
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """Readable when there is a signal."""
        return self._reader

    def read(self) -> bytes:
        """The numbers of the signals that came in since, in their order."""
        try:
            return os.read(self._reader, 512)
        except BlockingIOError:
            return b""

    def put_back(self, numbers: bytes) -> None:
        """Leaves signals that were read to who reads next."""
        try:
            os.write(self._writer, numbers)
        except BlockingIOError:
            pass  # a pipe full of signals says as much
