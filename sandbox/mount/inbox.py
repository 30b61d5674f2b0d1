"""Receives the requests of the kernel, one after the other, into one buffer.

Whoever asks for one thing soon asks for the next. To sleep in between and to be woken costs both
sides more than the answer does, so the server looks for some microseconds whether there is
another request before it sleeps; and where that was in vain, for less the next time.

Who must know what was told so far, while it answers a request, has the next ones received before
their turn.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from collections.abc import Callable
from time import monotonic_ns

from sandbox.mount import loop
from sandbox.syscalls import reader

# Each takes about a microsecond; a sleeper takes some 50 to be up again.
_LOOKS = 96
_SOON_NS = 50_000

# The kernel gives no more than 8 other requests before what it wants forgotten (fuse_dev_do_read).
_BEFORE_FORGET = 8


class Inbox:
    """The device's end that is read.

    Args:
        device: gets non-blocking.
        buffer: has the request until the next one is received.
    """

    def __init__(self, device: int, buffer: mmap.mmap) -> None:
        os.set_blocking(device, False)
        self._device = device
        self._buffers = [buffer]
        self._read = reader(device, buffer)
        # With one processor nobody can ask while we look.
        self._most = range(_LOOKS if len(os.sched_getaffinity(0)) > 1 else 1)
        self._looks = self._most
        self._began_ns = 0
        self._aside: deque[bytes] = deque()

    def catch(self) -> int:
        """The length of a request; 0 or less if none came while we looked."""
        if self._aside:
            return self._resume()
        read = self._read
        length = 0
        for _ in self._looks:
            length = read()
            if length > 0:
                break
        return length

    def begin_waiting(self) -> None:
        """The server is about to sleep."""
        self._began_ns = monotonic_ns()

    def end_waiting(self) -> None:
        """The server was woken."""
        if monotonic_ns() - self._began_ns < _SOON_NS:
            self._looks = self._most
        else:
            self._looks = self._looks[: len(self._looks) // 2]

    def receive(self) -> int:
        """The length of a request; 0 if there is none.

        Raises ClosedResourceError once unmounted.
        """
        return self._receive_into(self._buffers)

    def look_further(self, take: Callable[[memoryview], bool]) -> None:
        """Gives `take` what the kernel wants forgotten by now.

        The request in the buffer stays. Others that come, those that `take` returns False for,
        are received in their turn; so none of them may be what the answer to that one waits for.
        """
        with mmap.mmap(-1, len(self._buffers[0])) as spare, memoryview(spare) as whole:
            # After so many that came later, nothing is left that the kernel had to tell before.
            while len(self._aside) <= _BEFORE_FORGET:
                try:
                    length = self._receive_into([spare])
                except loop.ClosedResourceError:
                    return  # said again to who receives the next request
                if not length:
                    return
                with whole[:length] as request:
                    if not take(request):
                        self._aside.append(bytes(request))

    def _resume(self) -> int:
        request = self._aside.popleft()
        self._buffers[0][: len(request)] = request
        return len(request)

    def _receive_into(self, buffers: list[mmap.mmap]) -> int:
        try:
            return os.readv(self._device, buffers)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EAGAIN):
                return 0
            # ECONNABORTED: root has aborted the connection, or unmounted by force (fuse_dev_read).
            if error.errno in (errno.ENODEV, errno.ECONNABORTED):
                raise loop.ClosedResourceError from None
            raise
