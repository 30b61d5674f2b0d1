"""From how a lane ended to how its attempt did: the state, and the reason in words. Pure."""

from __future__ import annotations

from sandbox.jail.end import End, Exited, Signaled, Unstarted
from supervisor.model.ending import Cause, Ending, Result
from supervisor.model.phase import Phase
from supervisor.model.record import AttemptState, Exit

UNSERVED = "the lane's file system went away: its server died"


def judge(
    ending: Ending, end: End | None, phase: Phase, result: Result | None
) -> tuple[AttemptState, str]:
    """How the attempt ended, before its outputs are looked at.

    Args:
        end: how the command ended; None where nobody knows.
        result: the agent's own end-of-work event, if it printed one last.
    """
    state, reason = _state(ending, end, phase, result)
    if ending.stuck:
        who = ", ".join(f"{one.name} (pid {one.pid}, state {one.state})" for one in ending.stuck)
        reason = f"{reason or 'ended'}; cannot be killed: {who}"
    if state is AttemptState.COMPLETED and not ending.served and phase.access.writes:
        # What was written last may be missing.
        state = AttemptState.LOST
        reason = f"{reason or 'ended'}; its file system did not answer and was taken away"
    return state, reason


def exit_of(end: End | None) -> Exit | None:
    """The same as a value for the board."""
    match end:
        case Exited(code):
            return Exit(code=code)
        case Signaled(number):
            return Exit(signal=number)
        case Unstarted():
            return Exit(code=end.code)
    return None


def _state(
    ending: Ending, end: End | None, phase: Phase, result: Result | None
) -> tuple[AttemptState, str]:
    stopped = "; it was stopped (SIGSTOP)" if ending.stopped else ""
    match ending.cause:
        case Cause.TIMEOUT:
            said = f"still running after timeout_s = {phase.timeout_s:g}{stopped}"
            return AttemptState.TIMED_OUT, said
        case Cause.STALL:
            said = f"no sign of life for stall_s = {phase.stall_s:g}{stopped}"
            return AttemptState.STALLED, said
        case Cause.REQUEST:
            return AttemptState.REVOKED, "ended on request"
        case Cause.DISK:
            allowed = phase.limits.disk
            more = "" if allowed is None else f" = {allowed} bytes"
            return AttemptState.FAILED, f"more on disk than limits.disk{more}"
        case Cause.MOUNT:
            return AttemptState.LOST, UNSERVED
        case Cause.DONE if result is not None:
            if result.failed:
                said = f"said itself that it failed ({result.type!r}), and then hung"
                return AttemptState.FAILED, said
            return AttemptState.COMPLETED, f"ended after its {result.type!r} event and silence"
    match end:
        case Exited(0):
            return AttemptState.COMPLETED, ""
        case Exited(code):
            return AttemptState.FAILED, f"exit status {code}"
        case Signaled():
            return AttemptState.FAILED, f"killed by {end.name}"
        case Unstarted():
            return AttemptState.FAILED, f"its command is {end.cause}: {end.message}"
    return AttemptState.FAILED, "nobody knows how it ended"
