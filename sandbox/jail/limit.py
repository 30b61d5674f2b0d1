"""How much of the host a lane may use, and what that is enforced by. Pure.

A control group limits a lane as a whole. Where none can be had, the limits of each process do what
they can (getrlimit(2)); what they cannot do is *missing*, which is said, and refused where it is
required.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

# asm-generic/resource.h, the same on x86_64 and aarch64
_RLIMIT_FSIZE, _RLIMIT_DATA, _RLIMIT_NPROC, _RLIMIT_NOFILE = 1, 2, 6, 7
RESOURCES = (_RLIMIT_FSIZE, _RLIMIT_DATA, _RLIMIT_NPROC, _RLIMIT_NOFILE)

# bubblewrap's two processes are in the lane's control group, and one of them in its user namespace.
_OWN_IN_GROUP, _OWN_IN_NAMESPACE = 2, 1

# An agent that forks without end is to hit something before the host does; builds need hundreds.
DEFAULT_PROCESSES = 4096

# One file may be as large as the whole lane: it is to get ENOSPC, not SIGXFSZ, on its last byte.
_FILE_SLACK_BYTES = 1 << 20
_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is asked for. None: as much as there is.

    Attributes:
        memory: bytes, page cache and swap included.
        pids: processes and threads.
        cpu: processors, e.g. 1.5.
        disk: bytes that the lane may have on disk.
        open_files: of each process.
        processes: as `pids`, counted by the user namespace of the lane.
        required: names of those without which the lane must not be started.
    """

    memory: int | None = None
    pids: int | None = None
    cpu: float | None = None
    disk: int | None = None
    open_files: int | None = None
    processes: int | None = None
    required: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of those that are set."""
        return tuple(name for name in NAMES if getattr(self, name) is not None)

    def over(self, other: Limits) -> Limits:
        """These, and for what they leave open those of `other`."""
        merged = {name: getattr(self, name) or getattr(other, name) for name in NAMES}
        required = tuple(dict.fromkeys((*other.required, *self.required)))
        return Limits(**merged, required=required)


NAMES = tuple(field.name for field in fields(Limits) if field.name != "required")


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a host has to limit a lane with.

    Attributes:
        version: of control groups; 0: none that may be made.
        controllers: of memory, pids, cpu: those that can be used.
        own_processes: RLIMIT_NPROC counts for each user namespace (Linux 5.14), not for the user.
        others: where it counts for the user, how many processes and threads the lane's user has
            besides; None: nobody has counted.
        counts_disk: the lane's file system is ours, and counts.
        ceilings: RLIMIT_* → what nanosup itself may have at most (its hard limit).
    """

    version: int = 0
    controllers: frozenset[str] = frozenset()
    own_processes: bool = False
    others: int | None = None
    counts_disk: bool = True
    ceilings: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How limits are enforced.

    Attributes:
        resources: RLIMIT_* → limit, set in the lane for each of its processes.
        group: (controller, file, content) to be written, in this order.
        disk: bytes; None: as much as there is.
        weak: name → what there is instead of the whole of it.
        missing: name → why nothing limits it.
    """

    resources: Mapping[int, int] = field(default_factory=dict)
    group: tuple[tuple[str, str, str], ...] = ()
    disk: int | None = None
    weak: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


_NO_GROUP = "no control group can be made here"


def plan(limits: Limits, means: Means) -> Plan:
    """How `limits` are enforced with `means`."""
    resources: dict[int, int] = {}
    group: list[tuple[str, str, str]] = []
    weak: dict[str, str] = {}
    missing: dict[str, str] = {}

    processes = _least(limits.processes, None if "pids" in means.controllers else limits.pids)
    if means.own_processes:
        count = DEFAULT_PROCESSES if processes is None else processes
        resources[_RLIMIT_NPROC] = count + _OWN_IN_NAMESPACE
    elif means.others is not None:
        count = DEFAULT_PROCESSES if processes is None else processes
        resources[_RLIMIT_NPROC] = count + means.others
        why = "counted together with what else the lane's user runs"
        weak |= dict.fromkeys(_named(limits, processes), why)
    elif processes is not None:
        why = "before Linux 5.14 processes are counted for the user, not for the lane"
        missing |= dict.fromkeys(_named(limits, processes), why)
    if limits.open_files is not None:
        resources[_RLIMIT_NOFILE] = limits.open_files
    if limits.pids is not None and "pids" in means.controllers:
        group.append(("pids", "pids.max", str(limits.pids + _OWN_IN_GROUP)))
    if limits.memory is not None:
        if "memory" in means.controllers:
            group += _memory(means.version, limits.memory)
        else:
            resources[_RLIMIT_DATA] = limits.memory
            weak["memory"] = f"each process is limited, and not the lane: {_NO_GROUP}"
    if limits.cpu is not None:
        if "cpu" in means.controllers:
            group += _cpu(means.version, limits.cpu)
        else:
            missing["cpu"] = _NO_GROUP
    if limits.disk is not None:
        resources[_RLIMIT_FSIZE] = limits.disk + _FILE_SLACK_BYTES
        if not means.counts_disk:
            weak["disk"] = "only each file is limited: the lane's file system is the kernel's"
    return Plan(
        # To raise a hard limit is not allowed (setrlimit(2)), and less is not more than was asked.
        resources={
            kind: min(most, means.ceilings.get(kind, most)) for kind, most in resources.items()
        },
        group=tuple(group),
        disk=limits.disk,
        weak=weak,
        missing=missing,
    )


def _named(limits: Limits, processes: int | None) -> tuple[str, ...]:
    """Which of the limits of processes were asked for, and are the one that counts."""
    names = ("processes", "pids") if limits.pids == processes else ("processes",)
    return tuple(name for name in names if getattr(limits, name) is not None)


def unmet(limits: Limits, found: Plan) -> dict[str, str]:
    """Those of the required limits that are not enforced in full, and why."""
    lacking = {**found.weak, **found.missing}
    return {name: lacking[name] for name in limits.required if name in lacking}


def _memory(version: int, size: int) -> list[tuple[str, str, str]]:
    if version == 2:
        return [("memory", "memory.max", str(size)), ("memory", "memory.swap.max?", "0")]
    return [
        ("memory", "memory.limit_in_bytes", str(size)),
        # Memory and swap together; not there where swap is not accounted for.
        ("memory", "memory.memsw.limit_in_bytes?", str(size)),
    ]


def _cpu(version: int, processors: float) -> list[tuple[str, str, str]]:
    quota_us = max(1000, round(processors * _PERIOD_US))
    if version == 2:
        return [("cpu", "cpu.max", f"{quota_us} {_PERIOD_US}")]
    return [
        ("cpu", "cpu.cfs_period_us", str(_PERIOD_US)),
        ("cpu", "cpu.cfs_quota_us", str(quota_us)),
    ]


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([kmgt]?)(?:i?b)?\Z")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def bytes_of(text: str) -> int | None:
    """`4G`, `512M`, `100k`, `1.5GiB` or a plain number of bytes; None for anything else."""
    match = _SIZE.match(text.strip().lower())
    size = float(match[1]) * _UNITS[match[2]] if match else 0
    return int(size) if 1 <= size < 1 << 60 else None
