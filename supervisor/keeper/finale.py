"""An agent's own word that its work is done: an event among the lines that it prints.

Several agents print their result as the last line of their event stream and then hang. No more of
the log is looked at than its last few megabytes, and no more is held than one line of it.
"""

from __future__ import annotations

import os

import msgspec

from supervisor.model.ending import Result
from supervisor.model.phase import Agent

_CHUNK_BYTES = 1 << 16
_TAIL_BYTES = 4 << 20


def read_event(line: bytes, agent: Agent) -> Result | None:
    """What a line of output says, if it is one of the agent's end-of-work events. Pure."""
    if not line.lstrip().startswith(b"{") or b'"type"' not in line:
        return None
    try:
        event = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(kind, str) or kind not in agent.end_events:
        return None
    return Result(kind, kind in agent.fail_events or event.get("is_error") is True)


class Finale:
    """Watches a log for the end-of-work event of an agent, and the silence after it.

    Only the last line that is whole counts: an agent that prints on after its event works on.

    Args:
        fd: the log, open for reading.
        now_s: seconds by a clock that only goes forward.
    """

    def __init__(self, fd: int, agent: Agent, now_s: float) -> None:
        self._fd = fd
        self._agent = agent
        self._offset = os.fstat(fd).st_size
        self._line = b""
        self._skipping = False
        self._changed_s = now_s
        self.result: Result | None = None

    @property
    def due_s(self) -> float | None:
        """When the silence after the event has lasted long enough; None while there is no event."""
        return None if self.result is None else self._changed_s + self._agent.end_grace_s

    def read(self, now_s: float) -> None:
        """Takes in what was printed since the last time."""
        size = os.fstat(self._fd).st_size
        if size == self._offset:
            return
        if size < self._offset:  # somebody truncated it
            self._offset, self._line, self._skipping = 0, b"", False
        if size - self._offset > _TAIL_BYTES:
            # Somewhere in a line, which therefore cannot be told.
            self._offset, self._line, self._skipping = size - _TAIL_BYTES, b"", True
            self.result = None
        self._changed_s = now_s
        while chunk := os.pread(self._fd, _CHUNK_BYTES, self._offset):
            self._offset += len(chunk)
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            whole, self._line = self._line + line, b""
            if self._skipping:
                self._skipping, self.result = False, None
            elif whole.strip():
                self.result = read_event(whole, self._agent)
        if self._skipping:
            return
        self._line += rest
        if len(self._line) > _TAIL_BYTES:
            self._line, self._skipping, self.result = b"", True, None
