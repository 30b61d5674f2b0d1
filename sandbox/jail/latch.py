"""Holds bubblewrap back at the command's end, for as long as it takes to see what was left behind.

The moment bubblewrap has reported how the command ended it exits, and the kernel kills all that
the command has left running. Its report goes through a pipe, so where that is full, the report
waits (pipe(7)), and with it the end.
"""

from __future__ import annotations

import fcntl
import os
import time

from sandbox.descriptor import readable

_PAGE_BYTES = 4096  # the smallest pipe there is; the kernel may make it a larger page


class Latch:
    """The pipe of bubblewrap's reports.

    Args:
        read_fd: its reading end, which stays the caller's.
    """

    def __init__(self, read_fd: int) -> None:
        self._fd = read_fd
        self._heard = b""

    def await_start(self, timeout_s: float) -> bool:
        """Returns once it was reported that the jail's init runs, or the writer is dead; False:
        neither, in that time. After that nothing is reported before the command's end."""
        deadline = time.monotonic() + timeout_s
        while readable(self._fd, max(deadline - time.monotonic(), 0)):
            part = os.read(self._fd, _PAGE_BYTES)
            self._heard += part
            _, _, after = self._heard.partition(b'"child-pid"')
            if not part or b"\n" in after:
                return True
        return False

    def shut(self) -> None:
        """Fills the pipe. What was in it already is kept."""
        os.set_blocking(self._fd, False)
        writer = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _PAGE_BYTES)
            size = _PAGE_BYTES
            while size:
                try:
                    os.write(writer, b"\n" * size)
                except BlockingIOError:
                    size //= 2
        finally:
            os.close(writer)

    def open(self) -> None:
        """Lets the report, and the end, go through."""
        try:
            while part := os.read(self._fd, 1 << 16):
                self._heard += part
        except BlockingIOError:
            pass

    def hear(self) -> bytes:
        """All that was reported, once its writer is dead."""
        os.set_blocking(self._fd, True)
        while part := os.read(self._fd, 1 << 16):
            self._heard += part
        return self._heard
