"""Tries out what the tiers without FUSE need, by doing it."""

from __future__ import annotations

import os
import tempfile

from sandbox.jail import namespace
from sandbox.jail.end import Exited, Unstarted
from sandbox.jail.feature import Features
from sandbox.tiers import overlayfs, ward
from sandbox.tiers.confinement import SYSTEM, Confinement

_PROBE_S = 10.0


def mount_overlay(where: str) -> None:
    """A writable overlay whose layers are in `where`, and a change of what is below in it."""
    with tempfile.TemporaryDirectory(prefix="probe.", dir=where) as directory:
        lower, upper, work, target = (f"{directory}/{name}" for name in "luwm")
        for path in (lower, upper, work, target):
            os.mkdir(path)
        os.close(os.open(f"{lower}/file", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        overlayfs.mount(target, lowers=(lower,), upper=upper, work=work)
        try:
            os.unlink(f"{target}/file")
        finally:
            overlayfs.unmount(target, work=work)


def confine(features: Features) -> str:
    """Runs a command in a real lane without namespaces: landlock, both filters, a warden. Says why
    that does not work here; "" where it does. Forks."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(receive)
            os.write(send, _confine_true(features).encode())
        except BaseException as error:
            os.write(send, str(error).encode(errors="replace") or b"?")
        finally:
            os._exit(0)
    os.close(send)
    with open(receive, encoding="utf-8", errors="replace") as report:
        said = report.read()
    os.waitpid(pid, 0)
    return said


def _confine_true(features: Features) -> str:
    uid, gid = namespace.lane_ids()
    # What it changes is refused by the warden: so the way to it and back is tried too.
    confinement = Confinement(
        argv=("sh", "-c", "chmod 0 / 2>/dev/null && exit 1; exit 0"),
        cwd="/",
        uid=uid,
        gid=gid,
        reads=SYSTEM,
        writes=(),
        env={"PATH": os.defpath},
    )
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    with ward.start(confinement, features, stdout=null, stderr=null, lock=null) as held:
        end = held.wait(_PROBE_S)
    if end == Exited(0):
        return ""
    return end.message if isinstance(end, Unstarted) else f"it ended oddly: {end!r}"
