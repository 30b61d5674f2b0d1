"""Whether the owner of an attempt is alive, judged from what was seen. No I/O.

A process is known by boot id, PID namespace, pid and start time together: the pid alone is used
again, by another process, sooner or later. A lease is renewed by beats. Where the process cannot
be seen (another host, another container) the lease alone decides, and without one nobody knows.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from supervisor.model.record import Owner, Process


class Liveness(StrEnum):
    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Sight(StrEnum):
    """What /proc showed of a pid."""

    RUNNING = "running"
    ZOMBIE = "zombie"
    ABSENT = "absent"
    HIDDEN = "hidden"  # there is such a process, but /proc is mounted with hidepid


class Seen(msgspec.Struct, frozen=True):
    """A pid as it was seen. `start_ticks` is set unless it is absent or hidden."""

    sight: Sight
    start_ticks: int | None = None


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A process, and where it runs.

    Attributes:
        pid_ns: inode number of the PID namespace: containers share the boot id, and often the
            host name, but not the meaning of a pid.
        start_ticks: field 22 of /proc/<pid>/stat: clock ticks after boot.
    """

    host: str
    user: str
    boot_id: str
    pid_ns: int
    pid: int
    start_ticks: int

    def owner(self, agent: str, claimed_at: str) -> Owner:
        """An owner document for a claim by this process; add to it with msgspec.structs.replace."""
        return Owner(
            agent=agent,
            host=self.host,
            user=self.user,
            claimed_at=claimed_at,
            boot_id=self.boot_id,
            pid_ns=self.pid_ns,
            pid=self.pid,
            start_ticks=self.start_ticks,
        )

    def lease(self, agent: str, claimed_at: str, lease_s: float, token_sha256: str) -> Owner:
        """An owner document for a claim that outlives this process once it has had a beat, and is
        kept up by beats from then on."""
        return Owner(
            agent=agent,
            host=self.host,
            user=self.user,
            claimed_at=claimed_at,
            lease_s=lease_s,
            token_sha256=token_sha256,
            giver=Process(
                boot_id=self.boot_id,
                pid_ns=self.pid_ns,
                pid=self.pid,
                start_ticks=self.start_ticks,
            ),
        )


def before_first_beat(owner: Owner) -> Owner:
    """Who is to be judged in place of a lease that no beat has begun yet: who hands it over."""
    if owner.giver is None:
        return owner
    return msgspec.structs.replace(owner, **msgspec.structs.asdict(owner.giver))


def can_see(owner: Owner, here: Identity) -> bool:
    """Whether the owner is a process that /proc of `here` shows, if it still runs."""
    if owner.pid is None or owner.boot_id != here.boot_id:
        return False
    # The host's name is not asked where the namespace is known: a laptop changes it on the move.
    return owner.pid_ns == here.pid_ns if owner.pid_ns is not None else owner.host == here.host


def judge(owner: Owner, here: Identity, seen: Seen | None, beat_age_s: float | None) -> Liveness:
    """Judges an owner.

    Args:
        seen: what /proc shows of the owner's pid; needed where `can_see` is true.
        beat_age_s: seconds since the last beat; None where there was none.
    """
    if owner.pid is not None:
        if can_see(owner, here) and seen is not None:
            return judge_process(owner.start_ticks, seen)
        if owner.host == here.host and owner.boot_id != here.boot_id:
            return Liveness.DEAD  # nothing lives through a reboot
    if owner.lease_s is None or beat_age_s is None:
        return Liveness.UNKNOWN
    return Liveness.ALIVE if beat_age_s < owner.lease_s else Liveness.DEAD


def judge_process(start_ticks: int | None, seen: Seen) -> Liveness:
    """Judges a process that started at `start_ticks` by what /proc shows of its pid."""
    match seen.sight:
        case Sight.ABSENT | Sight.ZOMBIE:
            return Liveness.DEAD
        case Sight.HIDDEN:
            return Liveness.UNKNOWN
        case Sight.RUNNING:
            return Liveness.ALIVE if seen.start_ticks == start_ticks else Liveness.DEAD
