"""The command of a lane while it runs: its logs, what it is watched for, and what ailed it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from sandbox.jail.end import End, Signaled
from sandbox.jail.held import Held
from sandbox.jail.oom import OomWatch
from supervisor import clock
from supervisor.board import room, tail
from supervisor.keeper import sign
from supervisor.keeper.finale import Finale
from supervisor.keeper.log import Log, Logs
from supervisor.keeper.mount import Mount
from supervisor.keeper.vigil import Vigil
from supervisor.model import symptom
from supervisor.model.ending import Cause, Ending, Result
from supervisor.model.judgement import exit_of, judge
from supervisor.model.phase import Agent, Phase
from supervisor.model.record import AttemptState, Exit, Trouble

_LAST_WORDS_BYTES = 4 << 10
_SIGKILL = 9


@dataclass(frozen=True, slots=True)
class Finding:
    """How an attempt ended, before its outputs are looked at. As in `record.Outcome`.

    Attributes:
        trouble: what ailed it, if it has failed after all.
    """

    state: AttemptState
    reason: str
    exit: Exit | None
    trouble: Trouble | None = None
    retry_s: float | None = None

    def failed(self, reason: str) -> Finding:
        """The same, but failed after all: its outputs are not what they should be."""
        return replace(self, state=AttemptState.FAILED, reason=_explained(reason, self.trouble))


class Session:
    """Use as a context manager.

    Args:
        path: the attempt's directory.
        logs: its logs; none where the command has the keeper's own stdin and stdout.
        beat: path of the file that is touched for a beat.
        tell: takes an event and its fields, for the journal.
    """

    def __init__(
        self,
        phase: Phase,
        agent: Agent,
        path: str,
        logs: tuple[Log, ...],
        *,
        beat: str,
        tell: Callable[..., None],
    ) -> None:
        self._phase = phase
        self._agent = agent
        self._path = path
        self._logs = logs
        self._beat = beat
        self._tell = tell
        self._stack = ExitStack()
        self._oom: OomWatch | None = None
        self._ending: Ending | None = None
        self._result: Result | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def watch(
        self,
        vigil: Vigil,
        child: Held,
        server: Mount,
        refresh: Callable[[], Cause | None],
        *,
        always: bool,
    ) -> Ending:
        """Watches the command to its end (`Vigil.keep`). What it left running, or cannot be
        killed, is told."""
        self._oom = OomWatch(child.agent or child.pid)
        self._stack.callback(self._oom.close)
        fds = [opened.fd for opened in self._logs]
        finale = None
        if self._logs and self._agent.end_events:
            finale = Finale(fds[0], self._agent, clock.monotonic_s())
        logs = Logs(self._logs, finale) if self._logs else None
        sample = sign.of(
            self._phase.signs,
            child=child,
            logs=fds,
            operations=server.operations,
            beat=self._beat,
        )
        self._ending = vigil.keep(
            child, server, sample=sample, refresh=refresh, always=always, logs=logs
        )
        self._result = finale.result if finale is not None else None
        if denied := child.denied:
            self._tell("jail.denied", calls=denied)
        if self._ending.left:
            names = [f"{one.name} ({one.pid})" for one in self._ending.left]
            self._tell("attempt.left", processes=names)
        self._put_away()
        return self._ending

    def find(self, child: Held, end: End | None) -> Finding:
        """What became of it. `end` is how the command ended."""
        assert self._ending is not None
        state, reason = judge(self._ending, end, self._phase, self._result)
        found = exit_of(end)
        if state in (AttemptState.REVOKED, AttemptState.LOST):
            return Finding(state, reason, found)
        if state is AttemptState.FAILED and (said := self._oom_said(child, end)):
            words = said if isinstance(end, Signaled) else f"{reason}; {said}"
            return Finding(state, words, found, Trouble.OUT_OF_MEMORY)
        if room.is_full(self._path):
            trouble: Trouble | None = Trouble.NO_SPACE
            retry_s: float | None = None
        else:
            trouble, retry_s = self._diagnose(found)
        if state is not AttemptState.COMPLETED:
            reason = _explained(reason, trouble)
        return Finding(state, reason, found, trouble, retry_s)

    def _diagnose(self, found: Exit | None) -> tuple[Trouble | None, float | None]:
        code = found.code if found is not None else None
        words = "".join(tail.last_words(opened.fd, _LAST_WORDS_BYTES) for opened in self._logs)
        return symptom.diagnose(self._agent, code, words, wall_s=clock.wall_s())

    def _oom_said(self, child: Held, end: End | None) -> str:
        """That the OOM killer ended it, in words; empty where it did not, or nobody can tell."""
        if self._oom is None:
            return ""
        ours = child.seen
        for victim in self._oom.victims():
            if victim.pid in ours:
                who = "" if victim.pid == child.agent else f" its process {victim.name}"
                return f"out of memory: the kernel killed{who or ' it'} (OOM killer)"
        killed = isinstance(end, Signaled) and end.signal == _SIGKILL
        if (killed or self._oom.is_own) and self._oom.has_counted():
            who = "it" if killed else "one of its processes"
            return f"out of memory: the kernel killed {who} (OOM killer)"
        return ""

    def _put_away(self) -> None:
        for opened in self._logs:
            opened.trim()
            opened.release()
            name = os.path.basename(opened.path)
            if opened.dropped_bytes:
                self._tell("log.dropped", log=name, bytes=opened.dropped_bytes)
            if opened.truncated_bytes:
                self._tell("log.truncated", log=name, bytes=opened.truncated_bytes)
            if opened.restore():
                self._tell("log.restored", log=name)


def _explained(reason: str, trouble: Trouble | None) -> str:
    match trouble:
        case Trouble.RATE_LIMITED:
            return f"rate limited: {reason}"
        case Trouble.NOT_LOGGED_IN:
            return f"not logged in: {reason}"
        case Trouble.NO_SPACE:
            return f"{reason}, and the disk is full"
    return reason
