"""The system calls that a lane was denied: answered, counted, and told (seccomp_unotify(2))."""

from __future__ import annotations

import errno
import os
import select

from sandbox import syscalls
from sandbox.jail.seccomp import names

# What is answered at one go: a lane that asks without end must not keep its keeper from the rest.
_BURST = 64


class Denials:
    """Answers EPERM to all that a lane's filter sends here. Should this process die, so does the
    lane.

    Args:
        listener: descriptor of the filter, which is closed in the end.
        machine: what the calls are numbered for.

    Attributes:
        counts: how often each call was denied so far.
    """

    def __init__(self, listener: int, machine: str) -> None:
        self._listener = listener
        self._machine = machine
        self.counts: dict[str, int] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def fileno(self) -> int:
        """Readable when a call waits for its answer, or nobody is left under the filter."""
        return self._listener

    def answer(self) -> bool:
        """Answers what waits. False: nobody is left who could ask."""
        for _ in range(_BURST):
            events = self._poll.poll(0)
            if not events:
                return True
            if not events[0][1] & select.POLLIN:
                return False
            try:
                notified, _, number, _ = syscalls.notification(self._listener)
                # Counted first: who was answered may ask how often.
                name = names(self._machine).get(number, str(number))
                self.counts[name] = self.counts.get(name, 0) + 1
                syscalls.respond(self._listener, notified, errno.EPERM)
            except OSError:  # the caller was killed meanwhile
                continue
        return True

    def close(self) -> None:
        """Whoever asks from now on is answered ENOSYS, by the kernel."""
        os.close(self._listener)
