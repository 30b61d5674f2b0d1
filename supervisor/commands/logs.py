"""`nanosup logs`: what the agent of a phase printed."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from supervisor import place
from supervisor.attempt import Attempt
from supervisor.errors import NotFoundError
from supervisor.slot import Slot
from supervisor.tail import sanitize

_CHUNK_BYTES = 1 << 16


def run(
    *,
    phase: str,
    sprint_id: str | None,
    follow: bool,
    attempt: int | None,
    raw: bool,
    which: str | None,
) -> int:
    slot = place.choose(place.find().board, sprint_id).slot(phase)
    chosen = slot.latest() if attempt is None else slot.attempt(attempt)
    if chosen is None:
        raise NotFoundError(
            f"phase {phase!r} has not been attempted yet", hint="`nanosup status` shows why"
        )
    names = [f"{which}.log"] if which else ["stdout.log", "stderr.log"]
    printer = _Printer(chosen, names, raw=raw)
    printer.drain()
    if follow:
        import anyio

        try:
            anyio.run(_follow, slot, chosen, printer)
        except KeyboardInterrupt:
            return 130
    printer.close()
    return 0


class _Printer:
    """Prints logs from where it stopped the last time, in pieces, however long they are."""

    def __init__(self, attempt: Attempt, names: list[str], *, raw: bool) -> None:
        self._raw = raw
        self._stack = ExitStack()
        paths = [os.path.join(attempt.path, name) for name in names]
        self._files = [
            self._stack.enter_context(open(path, "rb"))  # noqa: SIM115 - closed by the stack
            for path in paths
            if os.path.exists(path)
        ]
        self._parts = [b"" for _ in self._files]

    def drain(self) -> None:
        """Prints all there is. Unless raw, a line is held back until it is whole."""
        for number, file in enumerate(self._files):
            while chunk := file.read(_CHUNK_BYTES):
                if self._raw:
                    sys.stdout.buffer.write(chunk)
                    continue
                whole, newline, part = (self._parts[number] + chunk).rpartition(b"\n")
                if len(part) > _CHUNK_BYTES:
                    whole, newline, part = whole + newline + part, b"", b""
                self._parts[number] = part
                self._print(whole + newline)
        sys.stdout.flush()

    def close(self) -> None:
        for part in filter(None, self._parts):
            self._print(part + b"\n")
        self._stack.close()
        sys.stdout.flush()

    def _print(self, data: bytes) -> None:
        sys.stdout.write(sanitize(data.decode(errors="replace")))


async def _follow(slot: Slot, attempt: Attempt, printer: _Printer) -> None:
    from supervisor.watch import Watch

    watch = Watch()
    watch.directory(attempt.path)
    for name in os.listdir(attempt.path):
        if name.endswith(".log"):
            watch.file(os.path.join(attempt.path, name))
    while True:
        ended = slot.attempt(attempt.n).outcome is not None
        printer.drain()
        if ended:
            return
        await watch.changed()
