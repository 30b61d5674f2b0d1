"""What an ending comes to, in a table."""

from __future__ import annotations

import pytest

from sandbox.jail.census import Process
from sandbox.jail.end import End, Exited, Signaled
from supervisor.model.ending import Cause, Ending, Result
from supervisor.model.judgement import exit_of, judge
from supervisor.model.phase import Access, Phase
from supervisor.model.record import AttemptState, Exit

S = AttemptState
READ = Phase(name="p", timeout_s=5, stall_s=6)
WRITE = Phase(name="p", timeout_s=5, stall_s=6, access=Access.WRITE)
TERM = Signaled(15)
STUCK = (Process(pid=7, parent=1, name="tar", state="D", cpu_ticks=0),)


@pytest.mark.parametrize(
    ("ending", "end", "phase", "result", "state", "said"),
    [
        (Ending(Cause.EXIT), Exited(0), WRITE, None, S.COMPLETED, ""),
        (Ending(Cause.EXIT), Exited(3), READ, None, S.FAILED, "exit status 3"),
        (Ending(Cause.EXIT), Signaled(11), READ, None, S.FAILED, "killed by SIGSEGV"),
        (Ending(Cause.EXIT), None, READ, None, S.FAILED, "nobody knows"),
        (Ending(Cause.TIMEOUT), TERM, READ, None, S.TIMED_OUT, "timeout_s = 5"),
        (Ending(Cause.STALL), TERM, READ, None, S.STALLED, "stall_s = 6"),
        (Ending(Cause.STALL, stopped=True), TERM, READ, None, S.STALLED, "stopped (SIGSTOP)"),
        (Ending(Cause.REQUEST), TERM, READ, None, S.REVOKED, "on request"),
        (Ending(Cause.MOUNT), Signaled(9), READ, None, S.LOST, "server died"),
        (Ending(Cause.DONE), TERM, READ, Result("result", False), S.COMPLETED, "'result'"),
        (Ending(Cause.DONE), TERM, READ, Result("result", True), S.FAILED, "itself"),
        (Ending(Cause.EXIT, served=False, stuck=STUCK), Exited(0), READ, None, S.COMPLETED, "tar"),
        (Ending(Cause.EXIT, served=False, stuck=STUCK), Exited(0), WRITE, None, S.LOST, "tar"),
        (Ending(Cause.TIMEOUT, served=False, stuck=STUCK), None, READ, None, S.TIMED_OUT, "tar"),
    ],
)
def test_ending_is_judged_as_what_it_is(
    ending: Ending,
    end: End | None,
    phase: Phase,
    result: Result | None,
    state: AttemptState,
    said: str,
) -> None:
    judged, reason = judge(ending, end, phase, result)

    assert judged is state
    assert said in reason
    assert bool(said) == bool(reason)


def test_exit_is_a_code_or_a_signal() -> None:
    assert exit_of(Exited(3)) == Exit(code=3)
    assert exit_of(TERM) == Exit(signal=15)
    assert exit_of(None) is None
