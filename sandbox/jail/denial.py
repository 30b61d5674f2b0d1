"""The system calls that a lane was denied: answered, counted, and told (seccomp_unotify(2))."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Mapping

from sandbox import syscalls


class Denials:
    """Answers EPERM to all that a lane's filter sends here, in a thread, while the lane lives.

    Should this process die, so does the lane; should only the thread, the lane is answered ENOSYS.

    Args:
        listener: descriptor of the filter, which is closed in the end.
        names: of system calls, by their numbers.
    """

    def __init__(self, listener: int, names: Mapping[int, str]) -> None:
        self._listener = listener
        self._names = names
        self._counts: dict[str, int] = {}
        self._thread = threading.Thread(target=self._answer, name="denials", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> dict[str, int]:
        """How often each call was denied so far."""
        return dict(self._counts)

    def close(self) -> None:
        """Waits for the end. To be called when nothing of the lane is left."""
        self._thread.join()
        os.close(self._listener)

    def _answer(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while True:
            ((_, event),) = poll.poll()
            if not event & select.POLLIN:
                return  # nobody is left under the filter
            try:
                notified, _, number, _ = syscalls.notification(self._listener)
                # Counted first: who was answered may ask how often.
                name = self._names.get(number, str(number))
                self._counts[name] = self._counts.get(name, 0) + 1
                syscalls.respond(self._listener, notified, errno.EPERM)
            except OSError:  # the caller was killed meanwhile
                continue
