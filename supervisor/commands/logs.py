"""`nanosup logs`: what the agent of a phase printed."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import sys
from contextlib import ExitStack

from supervisor.board import place
from supervisor.board.attempt import Attempt
from supervisor.board.board import SprintDir
from supervisor.board.observe import observe
from supervisor.board.tail import sanitize
from supervisor.errors import BoardError, NotFoundError
from supervisor.model.decide import PhaseState

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
    sprint = place.choose(place.find().board, sprint_id)
    slot = sprint.slot(phase)
    names = [f"{which}.log"] if which else ["stdout.log", "stderr.log"]
    if follow:
        import anyio

        try:
            anyio.run(_follow, sprint, phase, attempt, names, raw)
        except KeyboardInterrupt:
            return 130
        return 0
    chosen = slot.latest() if attempt is None else slot.attempt(attempt)
    if chosen is None:
        raise _not_yet(phase)
    printer = _Printer(chosen, names, raw=raw)
    printer.drain()
    printer.close()
    return 0


def _not_yet(phase: str) -> NotFoundError:
    return NotFoundError(
        f"phase {phase!r} has not been attempted yet", hint="`nanosup status` shows why"
    )


class _Reader:
    """One log, read on from where it stopped the last time, in pieces, however long it is."""

    def __init__(self, path: str) -> None:
        self._name = os.path.basename(path)
        # Not waiting: somebody may have put a FIFO in its place.
        self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise OSError(errno.EINVAL, "no plain file")
        self._offset = 0
        self._text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def close(self) -> None:
        os.close(self._fd)

    def read(self) -> bytes:
        """The next piece; empty where there is no more for now. Says what was dropped before it."""
        try:
            begins = os.lseek(self._fd, self._offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return b""
            begins = self._offset  # a file system without holes
        if begins > self._offset:
            sys.stdout.flush()
            print(
                f"nanosup: {begins - self._offset} bytes of {self._name} before this were dropped "
                "(log_limit)",
                file=sys.stderr,
            )
            self._offset = begins
        data = os.pread(self._fd, _CHUNK_BYTES, self._offset)
        self._offset += len(data)
        return data

    def text_of(self, data: bytes) -> str:
        """What is ready to be shown once `data` has come, harmless for a terminal. A line is held
        back until it is whole, unless it is very long."""
        whole, newline, part = (self._text + self._decoder.decode(data)).rpartition("\n")
        if len(part) > _CHUNK_BYTES:
            whole, newline, part = whole + newline + part, "", ""
        self._text = part
        return sanitize(whole + newline)

    def rest(self) -> str:
        """What was held back."""
        text = self._text + self._decoder.decode(b"", final=True)
        self._text = ""
        return sanitize(text) + "\n" if text else ""


class _Printer:
    """Prints the logs of an attempt."""

    def __init__(self, attempt: Attempt, names: list[str], *, raw: bool) -> None:
        self._raw = raw
        self._stack = ExitStack()
        self._readers: list[_Reader] = []
        self._missing = [os.path.join(attempt.path, name) for name in names]
        self._open()

    def _open(self) -> None:
        for path in list(self._missing):
            try:
                reader = _Reader(path)
            except FileNotFoundError:
                continue  # the lane is being made
            except OSError as error:
                raise BoardError(
                    f"{path} cannot be read: {error.strerror}",
                    hint="its keeper puts the log back when the attempt ends",
                ) from error
            self._missing.remove(path)
            self._stack.callback(reader.close)
            self._readers.append(reader)

    def drain(self) -> None:
        """Prints all there is."""
        self._open()
        for reader in self._readers:
            while data := reader.read():
                if self._raw:
                    sys.stdout.buffer.write(data)
                else:
                    sys.stdout.write(reader.text_of(data))
        sys.stdout.flush()

    def close(self) -> None:
        for reader in self._readers:
            if not self._raw:
                sys.stdout.write(reader.rest())
        self._stack.close()
        sys.stdout.flush()


async def _follow(
    sprint: SprintDir, phase: str, only: int | None, names: list[str], raw: bool
) -> None:
    """Prints an attempt as it goes on, and then the next one, until the phase is at its end."""
    n = only or 0
    slot = sprint.slot(phase)
    if only is None:
        latest = slot.latest()
        n = latest.n if latest is not None else await _next(sprint, phase, 0)
        if not n:
            raise _not_yet(phase)
    while n:
        attempt = slot.attempt(n)
        printer = _Printer(attempt, names, raw=raw)
        await _follow_one(sprint, phase, attempt, printer)
        printer.close()
        n = 0 if only is not None else await _next(sprint, phase, n)
        if n:
            print(f"==> {phase}.{n} ({slot.attempt(n).owner.agent})", file=sys.stderr)


async def _follow_one(sprint: SprintDir, phase: str, attempt: Attempt, printer: _Printer) -> None:
    from supervisor.board.watch import Watch

    slot = sprint.slot(phase)
    watch = Watch()
    try:
        watch.directory(attempt.path)
        while True:
            for name in os.listdir(attempt.path):
                if name.endswith(".log"):
                    watch.file(os.path.join(attempt.path, name))
            ended = slot.attempt(attempt.n).has_ended or _is_dead(sprint, phase, attempt.n)
            printer.drain()
            if ended:
                return
            pid = attempt.owner.pid
            watch.processes([] if pid is None else [pid])
            await watch.changed()
    finally:
        watch.close()


def _is_dead(sprint: SprintDir, phase: str, n: int) -> bool:
    from supervisor.board.owner import liveness
    from supervisor.model.liveness import Liveness

    return liveness(sprint.slot(phase).attempt(n)) is Liveness.DEAD


async def _next(sprint: SprintDir, phase: str, n: int) -> int:
    """The number of the attempt after `n`, once it is there; 0 if there will be none."""
    from supervisor.board.watch import Watch

    watch = Watch()
    try:
        watch.directory(os.path.join(sprint.slot(phase).path, "attempts"))
        watch.file(sprint.journal.path)
        while True:
            latest = sprint.slot(phase).latest()
            if latest is not None and latest.n > n:
                return n + 1
            seen = observe(sprint)
            if seen.phases[phase].state in (PhaseState.COMPLETED, PhaseState.FAILED):
                return 0
            if not seen.driven:
                return 0
            await watch.changed(5.0)
    finally:
        watch.close()
