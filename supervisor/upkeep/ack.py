"""Acknowledgements: somebody has seen what a sprint or an attempt left, and needs it no more.

    sprints/<id>/ack.json                                 of all of it
    sprints/<id>/phases/<phase>/attempts/0001/ack.json    of what an attempt's lane has left

Made once by link(2). Nothing follows but that `clean` may remove it.
"""

from __future__ import annotations

import os
from enum import StrEnum

import msgspec

from supervisor import clock
from supervisor.board import disk, document, owner
from supervisor.model.record import Stamp

FILE = "ack.json"


class Reason(StrEnum):
    """Why something counts as acknowledged."""

    SEEN = "seen"  # `nanosup ack`
    SHIPPED = "shipped"  # `nanosup ship`


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """An acknowledgement. `at` and `user` are to be shown; `stamp` is what its age goes by."""

    at: str
    user: str
    reason: Reason
    stamp: Stamp


def acknowledge(directory: str, reason: Reason) -> bool:
    """Acknowledges a sprint or an attempt. False if somebody has done so before.

    Raises:
        NotFoundError: it was removed meanwhile.
        BoardError: it cannot be written. The board is unchanged.
    """
    path = os.path.join(directory, FILE)
    if os.path.lexists(path):
        return False
    made = Ack(
        at=clock.utc_now(), user=owner.this_process().user, reason=reason, stamp=owner.stamp()
    )
    with disk.explained(path):
        tmp = disk.tmp_path(directory)
        try:
            disk.write_file(tmp, document.encode(made))
            disk.publish_file(tmp, path)
        except FileExistsError:
            return False
        finally:
            disk.remove(tmp)
        disk.sync_published(directory)
    return True


def age_s(directory: str) -> float | None:
    """Seconds since a sprint or an attempt was acknowledged; None where it was not.

    Raises:
        BoardError: the acknowledgement is damaged.
    """
    found = document.read(os.path.join(directory, FILE), Ack)
    return None if found is None else owner.age_s(found.stamp)
