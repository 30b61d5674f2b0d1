"""The documents on the board, as typed values. docs/board.md describes each file.

Wall-clock times are UTC strings, RFC 3339, and are only ever shown; nothing is decided by them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from supervisor.model.phase import Agent, Phase

FORMAT = 1

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""SHA-256 in hexadecimal. Documents with another are damaged: it is part of a path."""


class AttemptState(StrEnum):
    """How an attempt stands: RUNNING, or how it ended."""

    RUNNING = "running"  # never in an outcome
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    STALLED = "stalled"
    LOST = "lost"  # owner dead, or its file system gone
    REVOKED = "revoked"  # stopped by a person or a shutdown; does not count against `restarts`
    RELEASED = "released"  # handed back by its owner; does not count either


class Trouble(StrEnum):
    """What kept an attempt from its work that was not the work: what follows depends on it."""

    RATE_LIMITED = "rate_limited"  # the agent's provider lets it wait
    NOT_LOGGED_IN = "not_logged_in"
    NO_SPACE = "no_space"  # the disk was full
    OUT_OF_MEMORY = "out_of_memory"  # killed by the kernel's OOM killer


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """A moment whose age others can tell.

    Attributes:
        boottime_s: CLOCK_BOOTTIME, which only processes of the same boot can compare with theirs.
        wall_s: seconds since 1970, for everyone else.
    """

    boot_id: str
    boottime_s: float
    wall_s: float


class Verdict(StrEnum):
    """What a gate says of the tree that it saw."""

    PASS = "pass"
    FAIL = "fail"


class Exit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a child ended: exactly one of the two is set."""

    code: int | None = None
    signal: int | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable view of the repository: a base tree, and sealed layers over it.

    Attributes:
        commit: what the view is as a git commit (the base commit while there are no layers).
        tree: git tree of `commit`.
        base_tree: the git tree at the bottom of the mount.
        layers: ids of sealed layers over `base_tree`, bottom to top. They are part of `commit`.
        carried: ids of layers over those, left by failed attempts and not part of any commit yet.
        height: how many writers of the sprint have sealed so far.
        epoch_ns: time stamp (ns since 1970) of everything that comes from the git tree.
    """

    commit: str
    tree: str
    base_tree: str
    layers: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    height: int = 0
    epoch_ns: int = 0


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an attempt handed on. `size` in bytes."""

    name: str
    sha256: Sha256
    size: int
    media_type: str = "application/octet-stream"


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """An output of an upstream attempt, as this attempt was given it."""

    phase: str
    attempt: int
    name: str
    sha256: Sha256
    size: int


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a host, known beyond the reuse of its pid (see `model.liveness`)."""

    boot_id: str
    pid_ns: int
    pid: int
    start_ticks: int


class Owner(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who holds an attempt, and what the attempt was given. Written once, before the claim.

    An owner is either a process of a host (`pid`, `start_ticks`, `boot_id` set) or a lease
    (`lease_s` set, and no pid).

    Attributes:
        pid_ns: inode number of the PID namespace that `pid` is of.
        start_ticks: field 22 of /proc/<pid>/stat: clock ticks after boot.
        token_sha256: digest of the secret half of the token.
        giver: of a lease: the process that hands the token over. The lease begins with the first
            beat; until then the claim lives as long as this process, so that one killed before
            anybody has the token leaves nothing held.
        serves: `SPRINT/PHASE/N`: the attempt that a writer's turn is held for.
        after: the attempt at each phase further up that this one goes on from. It is superseded
            once one of those is; None in documents that do not say, which never are.
        revision: of the graph that the attempt was made by; 0 = that of sprint.json.
        locks: the process holds a lock (flock(2)) on the attempt's directory as long as it lives.
    """

    agent: str
    host: str
    user: str
    claimed_at: str
    boot_id: str | None = None
    pid: int | None = None
    pid_ns: int | None = None
    start_ticks: int | None = None
    lease_s: float | None = None
    token_sha256: Sha256 | None = None
    giver: Process | None = None
    serves: str | None = None
    snapshot: Snapshot | None = None
    inputs: tuple[Input, ...] = ()
    after: dict[str, int] | None = None
    revision: int = 0
    locks: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an attempt ended. Written once; the first wins.

    Attributes:
        ended: the same moment as `ended_at`, for durations.
        trouble: what ailed the agent, where that was recognised.
        retry_s: seconds after the end before which another try by this agent is in vain.
        sealed: what the repository looks like with this attempt's layer; write phases only.
        statement: name of the file beside this one that holds the signed statement.
        verdict: what the first output says; completed attempts at gates only.
    """

    state: AttemptState
    ended_at: str
    ended: Stamp | None = None
    exit: Exit | None = None
    reason: str = ""
    trouble: Trouble | None = None
    retry_s: float | None = None
    outputs: tuple[Output, ...] = ()
    sealed: Snapshot | None = None
    statement: str | None = None
    verdict: Verdict | None = None


class Sprint(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the graph towards one goal, from one base snapshot. Frozen at its start; what a
    `Revision` says since is put over it where it is read.

    Attributes:
        revision: the number of that revision; 0 = none.
        stacked_on: the sprint whose sealed tree the base is.
    """

    id: str
    goal: str
    created_at: str
    base: Snapshot
    phases: tuple[Phase, ...]
    agents: dict[str, Agent]
    branch: str = ""
    max_lanes: int = 4
    mount: str = "auto"
    require: tuple[str, ...] = ()
    stacked_on: str | None = None
    revision: int = 0
    format: int = FORMAT


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """What `nanosup reload` has made of the graph of a sprint that runs.

    Attributes:
        at: shown only.
        signature: key id, colon, base64: of this document with an empty signature.
    """

    at: str
    phases: tuple[Phase, ...]
    agents: dict[str, Agent]
    max_lanes: int
    signature: str = ""
