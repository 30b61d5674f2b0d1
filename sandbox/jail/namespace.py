"""The private mount namespace of a keeper.

Everything of a lane that is mounted is mounted in here, so when the last of its processes is dead
the kernel has unmounted it all (mount_namespaces(7)): there are no stale mounts to clean up, and no
other process of the host sees a lane's view.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Iterable

from sandbox import syscalls
from sandbox.errors import HostError

# Between what systemd gives to its dynamic users and `nobody`: assigned to nobody by any
# distribution (systemd.io/UIDS-GIDS), so nothing on the host is owned by these.
LANE_UIDS = range(65520, 65534)


def enter() -> None:
    """Moves this process, which must be single-threaded, into a mount namespace of its own.

    As an ordinary user: in a user namespace as well, which maps the user to itself and gives it
    CAP_SYS_ADMIN in it, enough to mount FUSE directly. Mounts of the host still propagate in, none
    propagates out.

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
    except OSError as error:
        # unshare(2): ENOSPC is the limit of user.max_user_namespaces, not a full disk.
        full = error.errno == errno.ENOSPC
        why = "its limit of namespaces is reached" if full else error.strerror
        raise HostError(
            f"a private mount namespace is refused by this host: {why}",
            hint="`nanosup doctor` shows which setting forbids it and how to change that",
        ) from error


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
