"""The keeper's watch over a running lane: until its command ends, or has to be ended."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable

from sandbox.jail.census import Process
from sandbox.jail.freezer import Freezer
from sandbox.jail.held import Held
from supervisor import clock
from supervisor.board.pause import LOOK
from supervisor.keeper.halt import Halt
from supervisor.keeper.log import Logs
from supervisor.keeper.mount import Mount
from supervisor.keeper.rounds import OFTEN_S, Rounds
from supervisor.keeper.sign import Pulse
from supervisor.keeper.wakeup import Wakeup
from supervisor.model.ending import Cause, Ending
from supervisor.model.phase import Phase

_TEND_S = 0.2  # what a busy log may wait, and how seldom a flood of output wakes its keeper
_DEATH_S = 10.0  # SIGKILL takes milliseconds, unless a process is in the kernel (state D)
_STOPPED = ("T", "t")


class Vigil:
    """Watches a lane.

    SIGTERM asks for an end with the phase's grace, SIGINT for one at once. In the foreground both,
    and SIGHUP, are passed on to the command, which then has its grace; the second SIGINT kills.
    LOOK (SIGUSR1) has it look whether the phase is paused.

    Args:
        tell: takes an event and its fields, for the journal.
        wakeup: has the signals.
    """

    def __init__(
        self,
        phase: Phase,
        tell: Callable[..., None],
        wakeup: Wakeup,
        *,
        is_paused: Callable[[], bool] = lambda: False,
        foreground: bool = False,
    ) -> None:
        self._phase = phase
        self._tell = tell
        self._wakeup = wakeup
        self._is_paused = is_paused
        self._foreground = foreground
        self._kill_at: float | None = None
        self._stuck_at: float | None = None
        self._cause: Cause | None = None
        self._halt: Halt | None = None
        self._looks = True  # somebody may have paused the phase before we could be told
        self._stopped = False
        self._served = True
        self._operations = 0

    def keep(
        self,
        child: Held,
        server: Mount,
        *,
        sample: Callable[[], object],
        refresh: Callable[[], Cause | None],
        always: bool = False,
        logs: Logs | None = None,
    ) -> Ending:
        """Returns when the command has ended; nothing of the jail is then left, but what is stuck.

        Args:
            sample: what has to change for the lane not to be taken for stalled (`sign.of`).
            refresh: called now and then (`Rounds`), to tell people how the lane is doing; says why
                it has to be ended, if it has.
            always: as often in a lane in which nothing seems to happen.
            logs: to be tended; None in the foreground.
        """
        poll = select.poll()
        for watched in (child.fileno(), server.fileno(), self._wakeup.fileno()):
            poll.register(watched, select.POLLIN)
        if logs is not None:
            poll.register(logs.fileno(), select.POLLIN)
        now = time.monotonic()
        deadline = now + self._phase.timeout_s
        stall_s = self._phase.stall_s
        pulse = Pulse(stall_s, sample, now, clock.suspended_s()) if stall_s is not None else None
        rounds = Rounds(now, always=always)
        halt = self._halt = Halt(self._is_paused, Freezer(child.processes), self._note_halt)
        tend_at: float | None = None
        while child.poll() is None:
            now = time.monotonic()
            if self._looks:
                self._looks = False
                if stood_s := halt.look(now):
                    # That took none of its time, and the silence was not the agent's.
                    deadline += stood_s
                    if pulse is not None:
                        pulse.begin_anew(now, clock.suspended_s())
            if now >= rounds.due_s:
                before, self._operations = self._operations, server.operations()
                rounds.made(now, quiet=self._operations == before and not self._stopped)
                cause = refresh()
                if cause is not None and self._cause is None:
                    self._end(child, cause)
                if not halt.is_on:
                    self._look_whether_stopped(child)
            if logs is not None and tend_at is not None and now >= tend_at:
                if logs.tend(now):
                    poll.register(logs.fileno(), select.POLLIN)
                    tend_at = None
                else:
                    tend_at = now + OFTEN_S
            if child.has_exited and self._stuck_at is None:
                self._stuck_at = now + _DEATH_S
            if self._stuck_at is not None and now >= self._stuck_at:
                if self._served and self._is_served(server, now):
                    pass
                elif self._served:
                    self._unblock(child, server, poll)
                else:
                    return self._give_up(child)
            elif self._kill_at is not None and now >= self._kill_at:
                self._kill(child)
            elif self._cause is None and not child.has_exited and not halt.is_on:
                if now >= deadline:
                    self._end(child, Cause.TIMEOUT)
                elif pulse is not None and pulse.has_stalled(now, clock.suspended_s()):
                    self._look_whether_stopped(child)
                    self._end(child, Cause.STALL)
                elif logs is not None and self._is_done(logs, now):
                    self._end(child, Cause.DONE)
            limits = [self._kill_at, self._stuck_at, rounds.due_s, tend_at]
            if self._cause is None and not halt.is_on:
                limits.append(deadline)
                limits.append(pulse.due_s if pulse is not None else None)
                limits.append(logs.finale.due_s if logs is not None and logs.finale else None)
            waits = [limit - now for limit in limits if limit is not None and limit > now]
            ready = {fd for fd, _ in poll.poll(min(waits, default=OFTEN_S) * 1000 + 1)}
            if logs is not None and logs.fileno() in ready:
                poll.unregister(logs.fileno())
                tend_at = time.monotonic() + _TEND_S
                rounds.stir(now)
            if self._wakeup.fileno() in ready:
                self._answer(child)
            if server.fileno() in ready:
                # The command can do nothing any more but wait for a file system that is gone.
                self._cause, self._served = self._cause or Cause.MOUNT, False
                poll.unregister(server.fileno())
                self._kill(child)
        halt.close()
        return Ending(self._cause or Cause.EXIT, self._stopped, self._served, child.left)

    def _note_halt(self, stands_still: bool) -> None:
        self._tell("attempt.paused" if stands_still else "attempt.resumed")

    def _answer(self, child: Held) -> None:
        for number in self._wakeup.read():
            if number == LOOK:
                self._looks = True
                continue
            if number == signal.SIGHUP and not self._foreground:
                continue
            again = self._cause is not None
            if number == signal.SIGINT and (again or not self._foreground):
                self._cause = self._cause or Cause.REQUEST
                self._kill(child)
            elif not again:
                self._end(child, Cause.REQUEST, number if self._foreground else signal.SIGTERM)

    def _is_done(self, logs: Logs, now: float) -> bool:
        finale = logs.finale
        if finale is None or finale.due_s is None or now < finale.due_s:
            return False
        logs.tend(now)  # it may have gone on a moment ago
        return finale.due_s is not None and now >= finale.due_s

    def _look_whether_stopped(self, child: Held) -> None:
        stopped = child.agent_state() in _STOPPED
        if stopped != self._stopped:
            self._tell("attempt.stopped" if stopped else "attempt.continued")
        self._stopped = stopped

    def _end(self, child: Held, cause: Cause, number: int = signal.SIGTERM) -> None:
        self._cause = cause
        if self._halt is not None:
            self._halt.lift(time.monotonic())  # or it could not hear us
        child.terminate(number)
        child.terminate(signal.SIGCONT)  # who is stopped does not hear it else
        self._kill_at = time.monotonic() + self._phase.grace_s

    def _kill(self, child: Held) -> None:
        child.kill()
        self._kill_at = None
        self._stuck_at = self._stuck_at or time.monotonic() + _DEATH_S

    def _is_served(self, server: Mount, now: float) -> bool:
        """Whether the dying are only slow, since what they have written is being written out."""
        before, self._operations = self._operations, server.operations()
        if self._operations == before:
            return False
        self._stuck_at = now + _DEATH_S
        return True

    def _unblock(self, child: Held, server: Mount, poll: select.poll) -> None:
        """Kills the server under processes that SIGKILL does not end.

        Who waits for its answer does so in the kernel, deaf to all signals (fuse: the request is
        with user space already); the connection being aborted is the answer.
        """
        self._tell("attempt.stuck", processes=_named(child.processes()))
        poll.unregister(server.fileno())
        child.kill()
        server.kill()
        self._served = False
        self._kill_at = None
        self._stuck_at = time.monotonic() + _DEATH_S

    def _give_up(self, child: Held) -> Ending:
        """Leaves behind what no signal ends: others are not to wait for it."""
        stuck = child.processes()
        child.abandon()
        if self._halt is not None:
            self._halt.close()
        return Ending(self._cause or Cause.EXIT, self._stopped, False, child.left, stuck)


def _named(processes: tuple[Process, ...]) -> list[str]:
    return [f"{one.name} ({one.pid}, state {one.state})" for one in processes]
