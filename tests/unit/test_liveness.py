from __future__ import annotations

import pytest

from supervisor.board.owner import parse_stat
from supervisor.model.liveness import Identity, Liveness, Seen, Sight, can_see, judge
from supervisor.model.record import Owner

HERE = Identity(host="mill", user="ann", boot_id="boot-1", pid_ns=4026531836, pid=10, start_ticks=5)
RUNNING = Seen(Sight.RUNNING, 77)


def process(**changes: object) -> Owner:
    fields: dict[str, object] = {
        "agent": "claude", "host": "mill", "user": "ann", "claimed_at": "2026-01-01T00:00:00.000Z",
        "boot_id": "boot-1", "pid_ns": 4026531836, "pid": 42, "start_ticks": 77,
    }  # fmt: skip
    return Owner(**(fields | changes))  # type: ignore[arg-type]


LEASE = Owner(agent="a", host="mill", user="ann", claimed_at="", lease_s=60.0)


@pytest.mark.parametrize(
    ("owner", "seen", "age_s", "expected"),
    [
        (process(), RUNNING, None, Liveness.ALIVE),
        (process(), Seen(Sight.ABSENT), None, Liveness.DEAD),
        (process(), Seen(Sight.ZOMBIE, 77), None, Liveness.DEAD),
        (process(), Seen(Sight.RUNNING, 78), None, Liveness.DEAD),  # the pid was used again
        (process(), Seen(Sight.HIDDEN), None, Liveness.UNKNOWN),
        (process(boot_id="boot-0"), None, None, Liveness.DEAD),  # rebooted
        (process(host="loom"), RUNNING, None, Liveness.ALIVE),  # this host was renamed
        (process(host="loom", boot_id="boot-0"), None, None, Liveness.UNKNOWN),
        (process(pid_ns=1), None, None, Liveness.UNKNOWN),  # another container of this host
        (process(host="loom", boot_id="b", lease_s=60.0), None, 59.0, Liveness.ALIVE),
        (process(host="loom", boot_id="b", lease_s=60.0), None, 60.0, Liveness.DEAD),
        (process(lease_s=60.0), Seen(Sight.ABSENT), 1.0, Liveness.DEAD),
        (LEASE, None, 0.0, Liveness.ALIVE),
        (LEASE, None, 61.0, Liveness.DEAD),
        (LEASE, None, None, Liveness.UNKNOWN),
    ],
)
def test_owners_are_judged_by_what_can_be_seen(
    owner: Owner, seen: Seen | None, age_s: float | None, expected: Liveness
) -> None:
    assert judge(owner, HERE, seen if can_see(owner, HERE) else None, age_s) is expected


@pytest.mark.parametrize("comm", [b"python3", b"a b", b") R 1 (", b"((", b"x)) Z"])
def test_a_command_name_with_parentheses_does_not_shift_the_fields(comm: bytes) -> None:
    rest = b" ".join(b"%d" % n for n in range(4, 22))
    stat = b"42 (" + comm + b") S " + rest + b" 987654 1 2 3\n"
    assert parse_stat(stat) == Seen(Sight.RUNNING, 987654)


def test_a_zombie_is_seen_as_one() -> None:
    stat = b"42 (x) Z " + b" ".join(b"%d" % n for n in range(4, 23)) + b"\n"
    assert parse_stat(stat).sight is Sight.ZOMBIE
