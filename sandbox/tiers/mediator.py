"""Carries out for a lane what it may not do itself: changes of metadata, in its own directories.

A filter sends such calls here (`fence.py`). Nothing that the caller could change meanwhile is
looked at twice: the file is opened by us, checked, and changed through that one descriptor; the
caller gets the result. (seccomp_unotify(2) warns of those who check and then let the caller go on.)
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import time
from collections.abc import Callable, Sequence

from sandbox import syscalls
from sandbox.jail import census
from sandbox.tiers import fence
from sandbox.union import layer

_AT_FDCWD = 0xFFFF_FF9C
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_UTIME_NOW, _UTIME_OMIT = 0x3FFF_FFFF, 0x3FFF_FFFE
_NOBODY = 0xFFFF_FFFF  # chown(2): leave it
_PATH_LIMIT_BYTES = 4096
_XATTR_LIMIT_BYTES = 65536
# What the caller means by these is a descriptor of its own; opened by us it would be one of ours.
_DESCRIPTOR = re.compile(rb"/(?:proc/(?:self|thread-self|[0-9]+)|dev)/fd/([0-9]{1,9})")
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK)


class Mediator:
    """Answers one lane's notifications.

    Args:
        listener: descriptor of the filter.
        writable: canonical directories below which the lane may change metadata.
        root: process whose descendants the lane's processes are.
    """

    def __init__(self, listener: int, writable: Sequence[str], root: int) -> None:
        self._listener = listener
        self._writable = tuple(os.fsencode(path) for path in writable)
        self._root = root
        self._names = fence.names(os.uname().machine)

    def answer(self) -> None:
        """Takes one notification and answers it. Never raises for what a lane does."""
        try:
            notified, pid, number, arguments = syscalls.notification(self._listener)
        except OSError:
            return  # the caller died
        name = self._names.get(number, "")
        if name in fence.OF_PROCESSES:
            self._judge(notified, pid, int(arguments[fence.OF_PROCESSES[name][1]]) & 0xFFFF_FFFF)
            return
        try:
            self._carry_out(notified, pid, name, arguments)
        except OSError as error:
            syscalls.respond(self._listener, notified, error.errno or errno.EPERM)
        except (ValueError, OverflowError):
            syscalls.respond(self._listener, notified, errno.EINVAL)
        else:
            syscalls.respond(self._listener, notified)

    def _judge(self, notified: int, caller: int, target: int) -> None:
        """Calls about a process: the kernel carries them out if it is one of the lane's."""
        own = {process.pid for process in census.descend(self._root)} - {self._root}
        if target == caller or _leader(target) in own:
            flags = syscalls.SECCOMP_USER_NOTIF_FLAG_CONTINUE
            syscalls.respond(self._listener, notified, flags=flags)
        else:
            syscalls.respond(self._listener, notified, errno.EPERM)

    def _carry_out(self, notified: int, pid: int, name: str, a: tuple[int, ...]) -> None:
        act: Callable[[str], None]
        follow, empty, times_at = True, False, 0
        at, path_at = _AT_FDCWD, a[0]
        match name:
            case "fchmod" | "fchown" | "fsetxattr" | "fremovexattr":
                at, path_at, empty = a[0], 0, True
            case "fchmodat" | "fchmodat2" | "fchownat" | "utimensat" | "futimesat":
                at, path_at = a[0], a[1]
        match name:
            case "chmod" | "fchmod":
                act = _chmod(a[1])
            case "fchmodat" | "fchmodat2":
                act = _chmod(a[2])
                if name == "fchmodat2":
                    follow, empty = _flags(a[3])
            case "chown" | "fchown" | "lchown":
                act, follow = _chown(a[1], a[2]), name != "lchown"
            case "fchownat":
                act = _chown(a[2], a[3])
                follow, empty = _flags(a[4])
            case "utimensat":
                times_at = a[2]
                follow, empty = _flags(a[3])
                empty = empty or path_at == 0
                act = _utime(_times(_read(pid, times_at, 32), 1) if times_at else None)
            case "utime":
                act = _utime(_whole(_read(pid, a[1], 16)) if a[1] else None)
            case "utimes" | "futimesat":
                times_at = a[1] if name == "utimes" else a[2]
                empty = path_at == 0
                act = _utime(_times(_read(pid, times_at, 32), 1000) if times_at else None)
            case "setxattr" | "lsetxattr" | "fsetxattr":
                if a[3] > _XATTR_LIMIT_BYTES:
                    raise OSError(errno.E2BIG, "")
                value = _read(pid, a[2], a[3]) if a[3] else b""
                act, follow = _setxattr(_string(pid, a[1]), value, a[4]), name != "lsetxattr"
            case "removexattr" | "lremovexattr" | "fremovexattr":
                act, follow = _removexattr(_string(pid, a[1])), name != "lremovexattr"
            case _:
                raise OSError(errno.ENOSYS, "")
        fd = _open(pid, at & 0xFFFF_FFFF, path_at, follow=follow, empty=empty)
        try:
            if not syscalls.is_waiting(self._listener, notified):
                return
            self._check(fd)
            act(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    def _check(self, fd: int) -> None:
        if stat.S_IFMT(os.fstat(fd).st_mode) not in _KINDS:
            raise OSError(errno.EPERM, "")
        where = os.readlink(f"/proc/self/fd/{fd}".encode())
        if not where.startswith(b"/"):
            return  # a pipe or a socket: of nobody but those who have it
        if not any(where == path or where.startswith(path + b"/") for path in self._writable):
            raise OSError(errno.EPERM, "")


def _open(pid: int, at: int, path_at: int, *, follow: bool, empty: bool) -> int:
    """An O_PATH descriptor of what the caller means."""
    path = _string(pid, path_at) if path_at else b""
    named = _DESCRIPTOR.fullmatch(path)
    if named is not None:
        return os.open(f"/proc/{pid}/fd/{int(named[1])}", os.O_PATH | os.O_CLOEXEC)
    if not path:
        if not empty:
            raise OSError(errno.ENOENT, "")
        return os.open(_place(pid, at), os.O_PATH | os.O_CLOEXEC)
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    start = "/" if path.startswith(b"/") else _place(pid, at)
    base = os.open(start, os.O_PATH | os.O_CLOEXEC)
    try:
        return syscalls.openat2(base, path, flags, syscalls.RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(base)


def _place(pid: int, at: int) -> str:
    return f"/proc/{pid}/cwd" if at == _AT_FDCWD else f"/proc/{pid}/fd/{at}"


def _flags(flags: int) -> tuple[bool, bool]:
    if flags & ~(_AT_SYMLINK_NOFOLLOW | _AT_EMPTY_PATH) & 0xFFFF_FFFF:
        raise OSError(errno.EINVAL, "")
    return not flags & _AT_SYMLINK_NOFOLLOW, bool(flags & _AT_EMPTY_PATH)


def _read(pid: int, address: int, size: int) -> bytes:
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(fd, size, address)
    except OSError as error:
        raise OSError(errno.EFAULT, "") from error
    finally:
        os.close(fd)
    if len(data) != size:
        raise OSError(errno.EFAULT, "")
    return data


def _string(pid: int, address: int) -> bytes:
    """A NUL-terminated string; it may end just before a page that is not there."""
    found = b""
    while len(found) < _PATH_LIMIT_BYTES:
        size = 256 - (address + len(found)) % 256
        found += _read(pid, address + len(found), size)
        text, nul, _ = found.partition(b"\0")
        if nul:
            return text
    raise OSError(errno.ENAMETOOLONG, "")


def _chmod(mode: int) -> Callable[[str], None]:
    return lambda path: os.chmod(path, mode & 0o7777)


def _chown(uid: int, gid: int) -> Callable[[str], None]:
    ids = [-1 if number & 0xFFFF_FFFF == _NOBODY else number & 0xFFFF_FFFF for number in (uid, gid)]
    return lambda path: os.chown(path, ids[0], ids[1])


def _setxattr(name: bytes, value: bytes, flags: int) -> Callable[[str], None]:
    if layer.is_reserved(name):
        # What a lane leaves becomes a layer, and these would change what the layer means.
        raise OSError(errno.EPERM, "")
    return lambda path: os.setxattr(path, name, value, flags)


def _removexattr(name: bytes) -> Callable[[str], None]:
    return lambda path: os.removexattr(path, name)


def _times(data: bytes, unit_ns: int) -> tuple[int | None, int | None]:
    """Nanoseconds of struct timespec or timeval; None: leave it."""
    now = time.time_ns()
    found: list[int | None] = []
    for seconds, part in struct.iter_unpack("=qq", data):
        if unit_ns == 1 and part == _UTIME_OMIT:
            found.append(None)
        elif unit_ns == 1 and part == _UTIME_NOW:
            found.append(now)
        elif not 0 <= part < 1_000_000_000 // unit_ns:
            raise OSError(errno.EINVAL, "")
        else:
            found.append(seconds * 1_000_000_000 + part * unit_ns)
    return found[0], found[1]


def _whole(data: bytes) -> tuple[int | None, int | None]:
    first, second = struct.unpack("=qq", data)
    return first * 1_000_000_000, second * 1_000_000_000


def _utime(times: tuple[int | None, int | None] | None) -> Callable[[str], None]:
    def act(path: str) -> None:
        if times is None:
            os.utime(path)
            return
        now = os.stat(path)
        os.utime(
            path,
            ns=(
                now.st_atime_ns if times[0] is None else times[0],
                now.st_mtime_ns if times[1] is None else times[1],
            ),
        )

    return act


def _leader(pid: int) -> int:
    """The process that a thread belongs to."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("Tgid:"):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return -1
