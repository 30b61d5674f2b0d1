"""The way out of the lane of a phase with a list of hosts, and the record of who went where."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sandbox.jail.feature import Features
from sandbox.jail.view import WayOut
from sandbox.net.allowlist import Allowlist
from sandbox.net.egress import Egress
from supervisor.board import journal
from supervisor.board.journal import Journal
from supervisor.model.phase import Phase

RECORDS = 2000
"""Connections of one attempt that are written down one by one; of more, every hundredth."""


@contextmanager
def opened(
    phase: Phase, attempt: int, record: Journal, uid: int, gid: int, features: Features
) -> Iterator[WayOut | None]:
    """The way out while a lane runs; None where its phase has the host's network, or none.

    Raises:
        HostError: this host refuses a network namespace.
    """
    if isinstance(phase.network, str) or not phase.network:
        yield None
        return
    fd = os.open(record.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    count = 0

    def write(seen: Mapping[str, object]) -> None:
        nonlocal count
        count += 1
        if count > RECORDS and count % 100:
            return
        fields = {**seen, "phase": phase.name, "attempt": attempt}
        event = f"network.{fields.pop('event')}"
        try:
            os.write(fd, journal.line(event, fields))
        except OSError:  # a full disk: the connection matters more than its record
            pass

    try:
        allowlist = Allowlist.of(phase.network)
        with Egress(allowlist, write, uid=uid, gid=gid, features=features, keep=(fd,)) as egress:
            yield egress.way_out
        if egress.has_died:
            record.append("network.lost", phase=phase.name, attempt=attempt)
    finally:
        os.close(fd)
