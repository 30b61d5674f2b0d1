"""Who this process is, and whether another one still lives: the reading of /proc.

See proc(5): /proc/<pid>/stat, /proc/sys/kernel/random/boot_id; pid_namespaces(7).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from supervisor import clock
from supervisor.board import beat, vital
from supervisor.board.attempt import Attempt
from supervisor.model.liveness import (
    Identity,
    Liveness,
    Seen,
    Sight,
    before_first_beat,
    can_see,
    judge,
    judge_process,
)
from supervisor.model.name import Maker
from supervisor.model.record import Owner, Stamp

_mine: tuple[int, Identity] | None = None


def this_process() -> Identity:
    """Who this process is, or acts for. Read once in a process; a fork reads again."""
    if _mine is None or _mine[0] != os.getpid():
        act_for(os.getpid())
    assert _mine is not None
    return _mine[1]


def act_for(pid: int) -> None:
    """From now on this process is taken for `pid`, which lives and with whose death it dies."""
    global _mine
    _mine = os.getpid(), _read_identity(pid)


def observe(pid: int) -> Seen:
    """What /proc shows of a pid."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            stat = os.read(fd, 4096)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return Seen(Sight.HIDDEN if _exists(pid) else Sight.ABSENT)
    except OSError:
        return Seen(Sight.HIDDEN)
    return parse_stat(stat)


def parse_stat(stat: bytes) -> Seen:
    """Reads a line of /proc/<pid>/stat. The second field, the command's name in parentheses, may
    hold spaces and parentheses of its own; so fields are counted from the last parenthesis."""
    fields = stat[stat.rindex(b")") + 2 :].split()
    sight = Sight.ZOMBIE if fields[0] in (b"Z", b"X", b"x") else Sight.RUNNING
    return Seen(sight, int(fields[19]))


def liveness(attempt: Attempt) -> Liveness:
    """Whether the owner of an attempt is alive. Says nothing of an attempt that has an outcome."""
    owner, here = attempt.owner, this_process()
    if owner.giver is not None and not beat.has_begun(attempt.path):
        owner = before_first_beat(owner)
    is_seen = can_see(owner, here)
    if owner.locks and not is_seen and owner.boot_id == here.boot_id:
        held = vital.is_held(attempt.path)
        if held is not None:
            return Liveness.ALIVE if held else Liveness.DEAD
    seen = observe(owner.pid) if owner.pid is not None and is_seen else None
    age_s = beat.age_s(attempt.path, here.boot_id) if owner.lease_s is not None else None
    return judge(owner, here, seen, age_s)


def visible_pids(owners: Iterable[Owner]) -> set[int]:
    """The pids of those that are processes whose end can be seen from here."""
    here = this_process()
    return {o.pid for o in owners if o.pid is not None and can_see(o, here)}


def stamp() -> Stamp:
    """This moment, for others to tell its age."""
    return Stamp(
        boot_id=this_process().boot_id, boottime_s=clock.boottime_s(), wall_s=clock.wall_s()
    )


def age_s(then: Stamp, now: Stamp | None = None) -> float:
    """Seconds since `then`. By the wall clock, which may have been set, only after a reboot."""
    now = now or stamp()
    if then.boot_id == now.boot_id:
        return max(0.0, now.boottime_s - then.boottime_s)
    return max(0.0, now.wall_s - then.wall_s)


def maker_liveness(maker: Maker) -> Liveness:
    """Whether the maker of a temporary file is alive."""
    here = this_process()
    if maker.boot != here.boot_id[:8] or maker.pid_ns != here.pid_ns:
        return Liveness.UNKNOWN
    return judge_process(maker.start_ticks, observe(maker.pid))


def maker() -> Maker:
    """This process, as the maker of temporary files."""
    me = this_process()
    return Maker(me.boot_id[:8], me.pid_ns, me.pid, me.start_ticks)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read_identity(pid: int) -> Identity:
    import pwd

    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)  # a container may run a uid that has no name
    seen = observe(pid)
    return Identity(
        host=os.uname().nodename,
        user=user,
        boot_id=boot_id,
        pid_ns=os.stat("/proc/self/ns/pid").st_ino,
        pid=pid,
        start_ticks=seen.start_ticks or 0,
    )
