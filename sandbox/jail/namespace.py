"""The private mount namespace of a keeper, and the stage that a jail's sources stand on.

Everything of a lane that is mounted is mounted in here, so when the last of its processes is dead
the kernel has unmounted it all (mount_namespaces(7)): there are no stale mounts to clean up, and no
other process of the host sees a lane's view.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from sandbox import syscalls
from sandbox.errors import HostError, JailError
from sandbox.jail.jail import JailSpec, staged

STAGE = "/run/nanosup"

# Between what systemd gives to its dynamic users and `nobody`: assigned to nobody by any
# distribution (systemd.io/UIDS-GIDS), so nothing on the host is owned by these.
LANE_UIDS = range(65520, 65534)


@dataclass(slots=True)
class Stage:
    """Where sources are bound so that a lane's uid can reach them.

    As root the agent's uid is one that owns nothing and can traverse no private directory, and
    bubblewrap runs under it too. So each source is bound to a place that everyone can traverse. For
    an ordinary user every source is its own place.

    Attributes:
        root: directory of the stage; None: sources are used where they are.
    """

    root: str | None
    _places: dict[str, str] = field(default_factory=dict)

    def bind(self, source: str) -> str:
        """The path to give to bubblewrap for `source`, a directory or a file; always the same one.

        Raises JailError where `source` is not there (mount(2)).
        """
        # What is on the stage already stays one mount: a second one would keep a file system
        # mounted after the first is unmounted.
        if self.root is None or source.startswith(self.root + "/"):
            return source
        place = self._places.get(source)
        if place is None:
            place = os.path.join(self.root, str(len(self._places)))
            try:
                if stat.S_ISDIR(os.stat(source).st_mode):
                    os.mkdir(place, 0o755)
                else:
                    os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
                syscalls.mount(source, place, None, syscalls.MS_BIND | syscalls.MS_REC)
            except OSError as error:
                raise JailError(
                    f"{source} cannot be shown in the jail: {error.strerror}"
                ) from error
            self._places[source] = place
        return place

    def directory(self, name: str) -> str:
        """A new empty directory on the stage, e.g. to mount at. Only where there is a stage."""
        if self.root is None:
            raise JailError("there is no stage to make a directory on")
        path = os.path.join(self.root, name)
        os.mkdir(path, 0o755)
        return path

    def apply(self, spec: JailSpec) -> JailSpec:
        """`spec` with every source on the stage."""
        if self.root is None:
            return spec
        return staged(spec, {bind.source: self.bind(bind.source) for bind in spec.binds})


def enter() -> Stage:
    """Moves this process, which must be single-threaded, into a mount namespace of its own.

    As root: unshare(NEWNS), and a tmpfs on STAGE that only this namespace has. As an ordinary user:
    in a user namespace as well, which maps the user to itself and gives it CAP_SYS_ADMIN in it:
    enough to mount FUSE directly. Mounts of the host still propagate in, none propagates out.

    Raises HostError where the host forbids it (user_namespaces(7)).
    """
    uid, gid = os.getuid(), os.getgid()
    root = uid == 0
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS | (0 if root else syscalls.CLONE_NEWUSER))
        if not root:
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{uid} {uid} 1")
            _write("/proc/self/gid_map", f"{gid} {gid} 1")
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        if not root:
            return Stage(None)
        os.makedirs(STAGE, mode=0o755, exist_ok=True)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount("nanosup", STAGE, "tmpfs", flags, "mode=755,size=1m,nr_inodes=4096")
    except OSError as error:
        # unshare(2): ENOSPC is the limit of user.max_user_namespaces, not a full disk.
        full = error.errno == errno.ENOSPC
        why = "its limit of namespaces is reached" if full else error.strerror
        raise HostError(
            f"a private mount namespace is refused by this host: {why}",
            hint="`nanosup doctor` shows which setting forbids it and how to change that",
        ) from error
    return Stage(STAGE)


def lane_ids(candidates: Iterable[int] = LANE_UIDS) -> tuple[int, int]:
    """The uid and gid that agents run under: one's own, or as root a pair that owns nothing here.

    Always the same on one host, so that a retried lane can go on with the files of the last.

    Raises HostError where all candidates are taken by users or groups of this host.
    """
    uid = os.getuid()
    if uid != 0:
        return uid, os.getgid()
    for candidate in candidates:
        if not _is_user(candidate) and not _is_group(candidate):
            return candidate, candidate
    raise HostError(
        f"no user id of {LANE_UIDS.start} to {LANE_UIDS.stop - 1} is free for agents to run as",
        hint="remove an account from that range, or run nanosup as an ordinary user",
    )


def _is_user(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _is_group(gid: int) -> bool:
    try:
        grp.getgrgid(gid)
    except KeyError:
        return False
    return True


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
