"""The kernel's end of a mount: /dev/fuse, mount(2), and fusermount3 where that is refused."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat

from sandbox.errors import HostError, MountError
from sandbox.syscalls import MNT_DETACH, MS_NODEV, MS_NOSUID, MS_RDONLY, mount, umount2

_NAME = "nanosup"
READ_AHEAD_KIB = 512


def mount_device(mountpoint: str, *, is_writable: bool, allow_other: bool) -> int:
    """Mounts on `mountpoint` and returns the descriptor that requests come from.

    mount(2) is tried first: it needs CAP_SYS_ADMIN in the user namespace that owns the mount
    namespace. Without it, fusermount3 is asked, which is set-user-ID root. Raises HostError or
    MountError.
    """
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(
            f"cannot open /dev/fuse: {error.strerror}",
            hint="load the fuse module, pass the device to the container, or chmod 666 it",
        ) from error
    flags = MS_NOSUID | MS_NODEV | (0 if is_writable else MS_RDONLY)
    options = [
        f"fd={fd}",
        f"rootmode={stat.S_IFDIR:o}",
        f"user_id={os.geteuid()}",
        f"group_id={os.getegid()}",
        "default_permissions",
    ]
    if allow_other:
        options.append("allow_other")
    try:
        mount(_NAME, mountpoint, f"fuse.{_NAME}", flags, ",".join(options))
    except OSError as error:
        os.close(fd)
        if error.errno != errno.EPERM:
            raise MountError(f"cannot mount on {mountpoint}: {error.strerror}") from error
        return _fusermount(mountpoint, is_writable=is_writable, allow_other=allow_other)
    return fd


def _fusermount(mountpoint: str, *, is_writable: bool, allow_other: bool) -> int:
    options = ["default_permissions", "nosuid", "nodev", f"fsname={_NAME}", f"subtype={_NAME}"]
    if allow_other:
        options.append("allow_other")
    if not is_writable:
        options.append("ro")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.set_inheritable(True)
        command = ["fusermount3", "-o", ",".join(options), "--", mountpoint]
        try:
            pid = os.posix_spawnp(
                command[0], command, os.environ | {"_FUSE_COMMFD": str(theirs.fileno())}
            )
        except FileNotFoundError as error:
            raise HostError(
                "mount(2) is not permitted and there is no fusermount3",
                hint="install the package fuse3",
            ) from error
        theirs.close()
        _message, fds, _flags, _address = socket.recv_fds(ours, 1, 1)
    os.waitpid(pid, 0)
    if not fds:
        raise MountError(
            f"fusermount3 cannot mount on {mountpoint}",
            hint="its reason is on standard error; allow_other needs user_allow_other",
        )
    os.set_inheritable(fds[0], False)
    return fds[0]


def read_further_ahead(mountpoint: str) -> None:
    """Lets the kernel ask for READ_AHEAD_KIB at a time instead of 128, where it allows that.

    It is the superuser's to set. Nothing of the mount is asked, which nobody answers yet.
    """
    try:
        with open("/proc/self/mountinfo", "rb") as mounts:
            fields = [line.split(b" ", 5) for line in mounts]
        path = os.fsencode(mountpoint)
        device = next(f[2] for f in reversed(fields) if _unescaped(f[4]) == path)
        with open(f"/sys/class/bdi/{device.decode()}/read_ahead_kb", "wb") as setting:
            setting.write(b"%d" % READ_AHEAD_KIB)
    except (OSError, StopIteration):
        pass


def _unescaped(field: bytes) -> bytes:
    """A path as /proc/self/mountinfo writes it: space, tab, line end and backslash in octal."""
    if b"\\" not in field:
        return field
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)


def unmount(mountpoint: str) -> None:
    """Unmounts at once, or lazily if it is in use.

    Must not be called by the process that serves the mount: dirty pages of mapped files are
    written back first.
    """
    for flags in (0, MNT_DETACH):
        try:
            umount2(mountpoint, flags)
            return
        except OSError as error:
            failure = error
    if not isinstance(failure, PermissionError):
        return
    for lazily in ((), ("-z",)):
        command = ["fusermount3", "-u", "-q", *lazily, mountpoint]
        if os.spawnvp(os.P_WAIT, command[0], command) == 0:
            return
