"""Messages and descriptors between two processes of ours, one of which has forked the other."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable

_HEAD = struct.Struct("=IH")  # bytes of the message, and how many descriptors
_FDS_LIMIT = 250  # SCM_MAX_FD, less a few (unix(7))


class ClosedError(Exception):
    """Raised where the other end is closed, mostly because its process is dead."""


class Channel:
    """One end of it; owns the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        """Readable when something has come, or the other end is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: bytes, fds: Iterable[int] = ()) -> None:
        """Sends a message and descriptors, which stay open here. Raises ClosedError."""
        numbers = tuple(dict.fromkeys(fds))
        if len(numbers) > _FDS_LIMIT:
            raise ValueError(f"{len(numbers)} descriptors do not fit into a message")
        head = _HEAD.pack(len(message), len(numbers))
        try:
            socket.send_fds(self._socket, [head], numbers)
            self._socket.sendall(struct.pack(f"={len(numbers)}i", *numbers) + message)
        except (BrokenPipeError, ConnectionResetError):
            raise ClosedError from None

    def receive(self) -> tuple[bytes, dict[int, int]]:
        """Waits for a message. Returns it, and of each descriptor that came along its number there
        → its number here.

        Raises:
            ClosedError: there will be none.
            OSError: this process cannot have as many descriptors (EMFILE).
        """
        try:
            head, fds, _, _ = socket.recv_fds(
                self._socket, _HEAD.size, _FDS_LIMIT, socket.MSG_CMSG_CLOEXEC
            )
            if len(head) < _HEAD.size:
                raise ClosedError
            length, count = _HEAD.unpack(head)
            numbers = struct.unpack(f"={count}i", self._exactly(4 * count))
            message = self._exactly(length)
        except ConnectionResetError:
            raise ClosedError from None
        if len(fds) != count:  # the kernel drops those for which there is no room
            for fd in fds:
                os.close(fd)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return message, dict(zip(numbers, fds, strict=True))

    def _exactly(self, length: int) -> bytes:
        body = b""
        while len(body) < length:
            if not (part := self._socket.recv(length - len(body))):
                raise ClosedError
            body += part
        return body
