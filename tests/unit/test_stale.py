"""Lines of /proc/self/mountinfo."""

from __future__ import annotations

import pytest

from supervisor.upkeep.stale import Mounted, parse


@pytest.mark.parametrize(
    ("line", "mounted", "ours"),
    [
        (
            b"36 35 98:0 / /a\\040b/mnt rw,noatime master:1 - fuse.nanosup nanosup rw,user_id=0\n",
            Mounted("/a b/mnt", "fuse.nanosup", "nanosup"),
            True,
        ),
        (
            b"37 35 0:50 / /m rw shared:2 master:1 - tmpfs tmpfs rw\n",
            Mounted("/m", "tmpfs", "tmpfs"),
            False,
        ),
        (b"38 35 0:50 / /m rw - fuse.x \\134y rw\n", Mounted("/m", "fuse.x", "\\y"), False),
    ],
)
def test_mount_is_told_from_a_line(line: bytes, mounted: Mounted, ours: bool) -> None:
    assert parse(line) == mounted
    assert parse(line).is_ours is ours
