"""The keeper's watch over a running lane: until its command ends, or has to be ended."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Self

from sandbox.child import Child
from sandbox.freezer import Freezer
from supervisor.halt import Halt
from supervisor.mount import Mount
from supervisor.pause import LOOK
from supervisor.phase import Phase
from supervisor.sign import Pulse

_REFRESH_S = 5.0


class Cause(Enum):
    """Why a lane ended."""

    EXIT = "the command ended by itself"
    TIMEOUT = "it took longer than timeout_s"
    STALL = "it gave no sign of life for stall_s"
    REQUEST = "somebody asked for it"
    MOUNT = "its file system went away"


class Vigil:
    """Watches a lane. As a context manager it takes the signals that ask a keeper to end one.

    SIGTERM asks for an end with the phase's grace, SIGINT for one at once. In the foreground both,
    and SIGHUP, are passed on to the command, which then has its grace; the second SIGINT kills.
    LOOK (SIGUSR1) has it look whether the phase is paused.
    """

    def __init__(
        self,
        phase: Phase,
        *,
        is_paused: Callable[[], bool] = lambda: False,
        foreground: bool = False,
    ) -> None:
        self._phase = phase
        self._is_paused = is_paused
        self._foreground = foreground
        self._kill_at: float | None = None
        self._cause: Cause | None = None
        self._halt: Halt | None = None
        self._looks = True  # somebody may have paused the phase before we could be told

    def __enter__(self) -> Self:
        # A signal becomes a byte in a pipe, which poll(2) sees: no handler runs at a bad moment.
        self._wakeup, writer = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(writer, False)
        self._writer = writer
        self._previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._previous = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, LOOK)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._wakeup)
        os.close(self._writer)

    def keep(
        self,
        child: Child,
        server: Mount,
        sample: Callable[[], object],
        refresh: Callable[[], None],
    ) -> Cause:
        """Returns when the command has ended; nothing of the jail is then left.

        Args:
            sample: what has to change for the lane not to be taken for stalled (`sign.of`).
            refresh: called every few seconds, to tell people how the lane is doing.
        """
        poll = select.poll()
        for watched in (child.fileno(), server.fileno(), self._wakeup):
            poll.register(watched, select.POLLIN)
        now = time.monotonic()
        deadline = now + self._phase.timeout_s
        stall_s = self._phase.stall_s
        pulse = Pulse(stall_s, sample, now) if stall_s is not None else None
        refresh_at = now + _REFRESH_S
        halt = self._halt = Halt(self._is_paused, Freezer(child.processes))
        while child.poll() is None:
            now = time.monotonic()
            if self._looks:
                self._looks = False
                if stood_s := halt.look(now):
                    # That took none of its time, and the silence was not the agent's.
                    deadline += stood_s
                    pulse = Pulse(stall_s, sample, now) if stall_s is not None else None
            if now >= refresh_at:
                refresh()
                refresh_at = now + _REFRESH_S
            if self._kill_at is not None and now >= self._kill_at:
                child.kill()
                self._kill_at = None
            elif halt.is_on:
                pass
            elif self._cause is None and now >= deadline:
                self._end(child, Cause.TIMEOUT)
            elif self._cause is None and pulse is not None and pulse.has_stalled(now):
                self._end(child, Cause.STALL)
            due = pulse.due_s if pulse is not None and self._cause is None else None
            clocks = (self._kill_at, refresh_at) + (() if halt.is_on else (deadline, due))
            limits = [t for t in clocks if t is not None and t > now]
            wait_ms = (min(limits) - now) * 1000 + 1 if limits else None
            ready = {fd for fd, _ in poll.poll(wait_ms)}
            if self._wakeup in ready:
                self._answer(child)
            if server.fileno() in ready:
                # The command can do nothing any more but wait for a file system that is gone.
                self._cause = Cause.MOUNT
                child.kill()
                poll.unregister(server.fileno())
        halt.close()
        return self._cause or Cause.EXIT

    def _answer(self, child: Child) -> None:
        for number in os.read(self._wakeup, 512):
            if number == LOOK:
                self._looks = True
                continue
            if number == signal.SIGHUP and not self._foreground:
                continue
            again = self._cause is not None
            if number == signal.SIGINT and (again or not self._foreground):
                self._cause = self._cause or Cause.REQUEST
                child.kill()
            elif not again:
                self._end(child, Cause.REQUEST, number if self._foreground else signal.SIGTERM)

    def _end(self, child: Child, cause: Cause, number: int = signal.SIGTERM) -> None:
        self._cause = cause
        if self._halt is not None:
            self._halt.lift(time.monotonic())  # or it could not hear us
        child.terminate(number)
        self._kill_at = time.monotonic() + self._phase.grace_s
