"""Hooks: a command of the user's that is told what happens, outside of all lanes.

It gets each event as JSON on stdin, one at a time, in order. The journal is its queue: one that is
slow is behind, and holds up neither the fleet nor anybody's memory; one that hangs is killed after
its time; one that fails is written down.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable

import anyio

from supervisor.board.board import SprintDir
from supervisor.board.journal import Event
from supervisor.board.watch import Watch
from supervisor.config.schema import Hooks
from supervisor.errors import BoardError
from supervisor.views.views import event_document

_DEATH_S = 1.0
_AGAIN_S = 1.0
_OURS = ("hook.failed", "hook.skipped")


class HookRunner:
    """Tells the hooks of what happens in the sprints that were added.

    Args:
        read: reads `[hooks]` again when the configuration was reloaded; None = it is not valid.
        log: the file that takes what hooks print.
    """

    def __init__(
        self,
        hooks: Hooks,
        *,
        read: Callable[[], Hooks | None],
        top: str,
        log: str,
    ) -> None:
        self._sprints: list[SprintDir] = []
        self._offsets: list[int] = []
        self._hooks = hooks
        self._read = read
        self._top = top
        self._log = log
        self._watch = Watch()
        self._finishing = False
        self._over = False
        self.pid: int | None = None  # of the hook that runs

    def add(self, sprint: SprintDir, offset: int) -> None:
        """Tells of a sprint too, from an offset in its journal on."""
        self._sprints.append(sprint)
        self._offsets.append(offset)
        self._watch.file(sprint.journal.path)
        self._watch.nudge()

    async def run(self) -> None:
        """Returns after `finish`, when nothing is left to be told."""
        try:
            while True:
                last = self._finishing
                try:
                    for number in range(len(self._sprints)):
                        await self._tell_all(number)
                except BoardError:  # no descriptors, no space for the report: it can wait
                    await self._watch.changed(_AGAIN_S)
                    continue
                if last:
                    return
                await self._watch.changed()
        finally:
            self._over = True
            self._watch.close()

    @property
    def finish_s(self) -> float:
        """How long `finish` may take: the hook that runs, and one more."""
        return 2 * self._hooks.timeout_s

    def finish(self) -> None:
        """Lets `run` end once everything that has happened was told."""
        self._finishing = True
        if not self._over:
            self._watch.nudge()

    def give_up(self) -> None:
        """Writes down how much was never told."""
        for number, sprint in enumerate(self._sprints):
            if not self._hooks.on_event:
                continue
            try:
                events = sprint.journal.read(self._offsets[number])
                if left := sum(self._wants(event.event) for event in events):
                    sprint.journal.append("hook.skipped", count=left)
            except BoardError:
                continue

    async def _tell_all(self, number: int) -> None:
        sprint = self._sprints[number]
        for event in sprint.journal.read(self._offsets[number]):
            if event.event == "sprint.reloaded":
                self._hooks = self._read() or self._hooks
            if self._wants(event.event) and (reason := await self._tell(sprint, event)):
                sprint.journal.append("hook.failed", on=event.event, reason=reason)
            self._offsets[number] = event.end

    def _wants(self, name: str) -> bool:
        if not self._hooks.on_event or name in _OURS:
            return False
        return not self._hooks.events or name in self._hooks.events

    async def _tell(self, sprint: SprintDir, event: Event) -> str:
        """Runs the hook for one event. Returns what went wrong."""
        document = json.dumps(event_document(sprint.id, event), ensure_ascii=False)
        try:
            process = self._start(sprint.id, event.event, document.encode() + b"\n")
        except OSError as error:
            return f"cannot be run: {error.strerror or error}"
        self.pid = process.pid
        pidfd = os.pidfd_open(process.pid)
        try:
            with anyio.move_on_after(self._hooks.timeout_s):
                await anyio.wait_readable(pidfd)
            if process.poll() is None:
                return f"killed after timeout_s = {self._hooks.timeout_s:g}"
        finally:
            with anyio.CancelScope(shield=True):
                await _reap(process, pidfd)
            os.close(pidfd)
            self.pid = None
        if process.returncode < 0:
            return f"killed by signal {-process.returncode}"
        return f"exit status {process.returncode}" if process.returncode else ""

    def _start(self, sprint: str, event: str, data: bytes) -> subprocess.Popen[bytes]:
        # A file, so that a hook that does not read its stdin holds up nobody.
        stdin = os.memfd_create("event", os.MFD_CLOEXEC)
        log = -1
        try:
            os.write(stdin, data)
            os.lseek(stdin, 0, os.SEEK_SET)
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            return subprocess.Popen(
                self._hooks.on_event,
                stdin=stdin,
                stdout=log,
                stderr=log,
                cwd=self._top,
                env={**os.environ, "NANOSUP_EVENT": event, "NANOSUP_SPRINT": sprint},
                start_new_session=True,  # a Ctrl-C is not for it, and it is killed as a group
            )
        finally:
            os.close(stdin)
            if log >= 0:
                os.close(log)


async def _reap(process: subprocess.Popen[bytes], pidfd: int) -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGKILL)
    with anyio.move_on_after(_DEATH_S):  # one in state D is left to the kernel
        await anyio.wait_readable(pidfd)
    process.poll()
