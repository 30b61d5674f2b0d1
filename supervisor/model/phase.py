"""What a sprint is made of: phases, and the agents that carry them out. Values only.

These are frozen into `sprint.json` when a sprint starts, so that editing the configuration later
changes nothing that runs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from sandbox.jail.limit import Limits

LOG_LIMIT = 1 << 30
"""Bytes that a log may take, unless the configuration says otherwise."""


class Access(StrEnum):
    """What a phase may do to the repository."""

    READ = "read"
    WRITE = "write"
    EXCLUSIVE = "exclusive"

    @property
    def writes(self) -> bool:
        return self is not Access.READ


class Carry(StrEnum):
    """What a new attempt at a write phase starts from."""

    RESUME = "resume"  # the snapshot, and what the last attempt left in its upper layer
    FRESH = "fresh"  # the snapshot alone


class Sign(StrEnum):
    """What counts as a sign of life of a lane. A beat always does."""

    OUTPUT = "output"  # bytes in its logs
    CPU = "cpu"  # processor time used in its jail
    FS = "fs"  # operations that reach its file system's server
    BEAT = "beat"  # a touch of $NANOSUP_BEAT


class Symptom(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a failed agent shows what ails it: any of these is enough.

    Attributes:
        exit: exit codes.
        output: text in the last lines that it printed; upper or lower case is the same.
    """

    exit: tuple[int, ...] = ()
    output: tuple[str, ...] = ()


class OnFail(StrEnum):
    """What follows when a gate says "fail"."""

    REJECT = "reject"  # the sprint is rejected
    REWORK = "rework"  # the write phase before the gate is opened again, with the verdict


class Agent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command line tool that carries out phases, as resolved from a preset and changes to it.

    Attributes:
        command: argv, with {prompt}, {prompt_file}, {phase}, {outputs}, … to be filled in.
        env: variables set in the lane.
        pass_env: names of host variables handed on where they are set (API keys).
        credentials: paths under the user's HOME, copied into the lane's HOME before each attempt.
        write_back: those of them that come back to the user's HOME if the agent refreshed them.
        home_read: toolchain paths under the user's HOME, bound read-only.
        end_events: an output line that is a JSON object whose "type" is one of these ends the work.
        fail_events: those of them that say that the work failed.
        end_grace_s: seconds of silence after such a line after which the lane is ended.
        rate_limited: it may go on later: its provider lets it wait.
        not_logged_in: it cannot go on before a person has done something.
        limits: for phases that do not say themselves.
    """

    name: str
    command: tuple[str, ...]
    preset: str | None = None
    env: dict[str, str] = {}
    pass_env: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    write_back: tuple[str, ...] = ()
    home_read: tuple[str, ...] = ()
    end_events: tuple[str, ...] = ()
    fail_events: tuple[str, ...] = ()
    end_grace_s: float = 10.0
    rate_limited: Symptom = Symptom()
    not_logged_in: Symptom = Symptom()
    limits: Limits = Limits()


class Phase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node of the graph.

    Attributes:
        agents: names, first choice first; the next takes over when one fails for good.
        outputs: file names that a completed attempt must have left in $NANOSUP_OUTPUTS.
        scratch: repository paths that are private, writable and discarded.
        share: directories of the host's working tree, bound read-only.
        network: "none", "host", or the host names that may be reached.
        stall_s: seconds without a sign of life after which the lane is ended; None = never.
        signs: what counts as a sign of life.
        restarts: how many attempts may follow the first, for each agent.
        window_s: only failures of the last so many seconds count against `restarts`; None = all.
        backoff_s: seconds to wait after the first failure; doubled after each further one.
        log_limit: bytes that each log may take; what is older is dropped.
        gate: the first output is JSON with a verdict, and nothing downstream starts on "fail".
        max_rounds: how often the gate may open the write phase again.
        schemas: JSON Schema of an output, by its name.
        limits: how much of the host a lane may use.
    """

    name: str
    depends_on: tuple[str, ...] = ()
    access: Access = Access.READ
    agents: tuple[str, ...] = ()
    prompt: str = ""
    outputs: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()
    share: tuple[str, ...] = ()
    env: dict[str, str] = {}
    network: str | tuple[str, ...] = "host"
    timeout_s: float = 3600.0
    stall_s: float | None = None
    signs: tuple[Sign, ...] = (Sign.OUTPUT, Sign.CPU, Sign.FS)
    grace_s: float = 10.0
    restarts: int = 1
    window_s: float | None = None
    backoff_s: float = 0.5
    carry: Carry = Carry.RESUME
    gate: bool = False
    log_limit: int = LOG_LIMIT
    on_fail: OnFail = OnFail.REJECT
    max_rounds: int = 2
    schemas: dict[str, Any] = {}
    limits: Limits = Limits()
