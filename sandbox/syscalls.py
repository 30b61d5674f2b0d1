"""The system calls that Python does not have, one wrapper each, named after it.

The only module that knows ctypes. Constants carry the kernel's names. Every wrapper raises
OSError with the errno of the call, so that callers handle them as they handle `os`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

# linux/sched.h
CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000

MADV_DONTNEED = 4

# linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_FORCE = 0x1
MNT_DETACH = 0x2
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
_MOUNT_ATTR = struct.Struct("=QQQQ")
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
_SYS_FCHMODAT2 = 452

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
CAP_FSETID = 4
CAP_SYS_ADMIN = 21

# linux/capability.h
_LINUX_CAPABILITY_VERSION_3 = 0x2008_0522
_CAPABILITY_HEADER = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
_CAPABILITY_BYTES = 24

# linux/fs.h
RENAME_NOREPLACE = 1 << 0
RENAME_EXCHANGE = 1 << 1
RENAME_WHITEOUT = 1 << 2

# linux/falloc.h
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02

# linux/memfd.h
MFD_EXEC = 0x10

# linux/inotify.h
IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_ONLYDIR = 0x0100_0000
IN_ONESHOT = 0x8000_0000
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC


def _check(result: int, *names: bytes | str | None) -> int:
    if result < 0:
        code = ctypes.get_errno()
        shown = [os.fsdecode(name) for name in names if name is not None]
        raise OSError(code, os.strerror(code), *shown[:1])
    return result


def _call(number: int, *arguments: Any, names: tuple[bytes | str, ...] = ()) -> int:
    """syscall(2), for what the libc has no function for; whole registers for numbers."""
    whole = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    return _check(_libc.syscall(ctypes.c_long(number), *whole), *names)


def reader(fd: int, buffer: mmap.mmap) -> Callable[[], int]:
    """read(2) of `fd` into `buffer`, over and over, for who cannot afford an exception where
    nothing is there: the number of bytes, or -1 whatever is wrong. The buffer stays open."""
    function = _libc["read"]
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    function.restype = ctypes.c_ssize_t
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    return functools.partial(function, fd, address, len(buffer))


def unshare(flags: int) -> None:
    """unshare(2). CLONE_NEWUSER is refused (EINVAL) to a process with more than one thread."""
    _check(_libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    """setns(2): into the namespace that `fd` is of, which is of the kind CLONE_NEW…."""
    _check(_libc.setns(fd, kind))


def mount(source: str, target: str, fstype: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            fstype.encode() if fstype is not None else None,
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        target,
    )


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def open_tree(path: str) -> int:
    """open_tree(2), OPEN_TREE_CLONE: a copy, mounted nowhere, of what is mounted at `path` and
    below. Returns a descriptor, which is close-on-exec."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    return _call(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags, names=(path,))


def move_mount(tree: int, target: str) -> None:
    """move_mount(2): mounts `tree`, of `open_tree`, at `target`, no symbolic link."""
    to = (_AT_FDCWD, os.fsencode(target))
    _call(_SYS_MOVE_MOUNT, tree, b"", *to, _MOVE_MOUNT_F_EMPTY_PATH, names=(target,))


def mount_setattr(where: int | str, *, add: int, recursive: bool = False) -> None:
    """mount_setattr(2) of a path, or of a tree that `open_tree` has returned: adds attributes, and
    makes it private, so that nothing that is mounted elsewhere appears in it (MS_PRIVATE)."""
    flags = _AT_RECURSIVE if recursive else 0
    attributes = _MOUNT_ATTR.pack(add, 0, MS_PRIVATE, 0)
    if isinstance(where, int):
        at: tuple[int, bytes, int] = (where, b"", flags | _AT_EMPTY_PATH)
    else:
        at = (_AT_FDCWD, os.fsencode(where), flags)
    _call(_SYS_MOUNT_SETATTR, *at, attributes, len(attributes), names=(at[1],))


def prctl(option: int, argument: int) -> None:
    """prctl(2), for options with one argument."""
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero))


def drop_capabilities() -> None:
    """capset(2), of this thread, to none: for who keeps its uid, or was never root."""
    capset(bytes(_CAPABILITY_BYTES))


def capget() -> bytes:
    """capget(2), of this thread: the words effective, permitted, inheritable; then of 32 and on."""
    sets = ctypes.create_string_buffer(_CAPABILITY_BYTES)
    _check(_libc.capget(_CAPABILITY_HEADER, sets))
    return sets.raw


def capset(sets: bytes) -> None:
    """capset(2), of this thread: what `capget` has returned, or less."""
    _check(_libc.capset(_CAPABILITY_HEADER, sets))


def raise_ambient(capability: int) -> None:
    """What this thread executes keeps a capability that it has (capabilities(7), PR_CAP_AMBIENT).

    capset(2) adds it to what is inherited before, without which the kernel refuses.
    """
    words = list(struct.unpack("=6I", capget()))
    words[2 + 3 * (capability // 32)] |= 1 << capability % 32
    capset(struct.pack("=6I", *words))
    _ambient(_PR_CAP_AMBIENT_RAISE, capability)


def clear_ambient() -> None:
    """Takes back what `raise_ambient` did for what is executed from now on."""
    _ambient(_PR_CAP_AMBIENT_CLEAR_ALL, 0)


def _ambient(operation: int, capability: int) -> None:
    arguments = (ctypes.c_ulong(n) for n in (operation, capability, 0, 0))
    _check(_libc.prctl(_PR_CAP_AMBIENT, *arguments))


def renameat2(
    old: bytes | str,
    new: bytes | str,
    flags: int,
    *,
    old_dir_fd: int = -100,
    new_dir_fd: int = -100,
) -> None:
    """renameat2(2). -100 is AT_FDCWD."""
    source, target = os.fsencode(old), os.fsencode(new)
    _check(_libc.renameat2(old_dir_fd, source, new_dir_fd, target, ctypes.c_uint(flags)), source)


def fchmodat2(fd: int, name: bytes, mode: int, flags: int) -> None:
    """fchmodat2(2): `name` in the directory `fd`, not followed with AT_SYMLINK_NOFOLLOW."""
    _call(_SYS_FCHMODAT2, fd, name, mode, flags, names=(name,))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    _check(_libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def madvise(address: int, length: int, advice: int) -> None:
    """madvise(2)."""
    _check(_libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), advice))


def syncfs(fd: int) -> None:
    """syncfs(2): writes out everything of the file system that `fd` is on."""
    _check(_libc.syncfs(fd))


def inotify_init1(flags: int = IN_NONBLOCK | IN_CLOEXEC) -> int:
    """inotify_init1(2). Returns a descriptor that the caller closes."""
    return _check(_libc.inotify_init1(flags))


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2). Returns the watch descriptor."""
    return _check(_libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)), path)


def inotify_events(buffer: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yields (watch descriptor, mask, name) for each event that read(2) returned (inotify(7))."""
    offset = 0
    header = struct.Struct("iIII")
    while offset < len(buffer):
        watch, mask, _cookie, length = header.unpack_from(buffer, offset)
        start = offset + header.size
        yield watch, mask, buffer[start : start + length].rstrip(b"\0")
        offset = start + length


# linux/landlock.h
LANDLOCK_CREATE_RULESET_VERSION = 1 << 0
_LANDLOCK_RULE_PATH_BENEATH = 1

# linux/pidfd.h
PIDFD_INFO_EXIT = 1 << 3
_PIDFD_GET_INFO = 0xC040_FF0B  # _IOWR(0xFF, 11, struct pidfd_info), first version: 64 bytes
_PIDFD_INFO = struct.Struct("QQ11Ii")

_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446


def join_session_keyring() -> None:
    """keyctl(2), KEYCTL_JOIN_SESSION_KEYRING: leaves the inherited session keyring for a new one.

    Without effect where the kernel has no keyrings.
    """
    number = _SYS_KEYCTL.get(os.uname().machine)
    if number is not None:
        _libc.syscall(ctypes.c_long(number), ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), None)


def landlock_abi() -> int:
    """landlock_create_ruleset(2): the newest ABI version of this kernel, 0 where there is none."""
    version = _libc.syscall(
        ctypes.c_long(_SYS_LANDLOCK_CREATE_RULESET),
        None,
        ctypes.c_size_t(0),
        ctypes.c_uint32(LANDLOCK_CREATE_RULESET_VERSION),
    )
    return max(int(version), 0)


def landlock_create_ruleset(attributes: bytes) -> int:
    """landlock_create_ruleset(2). `attributes` is a struct landlock_ruleset_attr, or the beginning
    of one. Returns a descriptor, which is close-on-exec.
    """
    return _call(_SYS_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)


def landlock_add_rule(ruleset: int, fd: int, rights: int) -> None:
    """landlock_add_rule(2), LANDLOCK_RULE_PATH_BENEATH: `rights` below the file that `fd` is of."""
    beneath = struct.pack("=Qi", rights, fd)
    _call(_SYS_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, beneath, 0)


def landlock_restrict_self(ruleset: int) -> None:
    """landlock_restrict_self(2), for this thread and what it starts.

    Needs no_new_privs or CAP_SYS_ADMIN. A domain that handles no file access leaves mount(2) alone,
    so that one can be entered before a jail is built.
    """
    _call(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)


def pidfd_exit_status(pidfd: int) -> int | None:
    """ioctl_pidfd(2), PIDFD_GET_INFO: the wait status of a process that has been reaped, by
    whomever. None where the kernel (before Linux 6.15) or the process's state cannot tell.
    """
    buffer = bytearray(_PIDFD_INFO.size)
    _PIDFD_INFO.pack_into(buffer, 0, PIDFD_INFO_EXIT, *([0] * 13))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    mask, *_, status = _PIDFD_INFO.unpack(buffer)
    return int(status) if mask & PIDFD_INFO_EXIT else None


# linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
_SYS_OPENAT2 = 437

# linux/seccomp.h
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1 << 0
_SECCOMP_SET_MODE_FILTER = 1
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
_NOTIF_RECV = 0xC050_2100  # _IOWR('!', 0, struct seccomp_notif)
_NOTIF_SEND = 0xC018_2101  # _IOWR('!', 1, struct seccomp_notif_resp)
_NOTIF_ID_VALID = 0x4008_2102  # _IOW('!', 2, __u64)
_NOTIF = struct.Struct("=QIIiIQ6Q")
_NOTIF_RESPONSE = struct.Struct("=QqiI")
_FILTER_BYTES = 8


class _Program(ctypes.Structure):  # struct sock_fprog
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def openat2(dir_fd: int, path: bytes, flags: int, resolve: int = 0) -> int:
    """openat2(2), for existing files. Returns a descriptor that the caller closes."""
    how = struct.pack("=QQQ", flags, 0, resolve)
    return _call(_SYS_OPENAT2, dir_fd, path, how, len(how), names=(path,))


def seccomp_filter(program: bytes, flags: int = 0) -> int:
    """seccomp(2), SECCOMP_SET_MODE_FILTER: adds a filter to this thread. Needs no_new_privs.

    With SECCOMP_FILTER_FLAG_NEW_LISTENER returns a descriptor for `notification` (which is
    close-on-exec), else 0. Raises OSError(ENOSYS) on other architectures.
    """
    number = _SYS_SECCOMP.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "seccomp")
    fprog = _Program(len(program) // _FILTER_BYTES, program)
    return _call(number, _SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(fprog))


def notification(listener: int) -> tuple[int, int, int, tuple[int, ...]]:
    """SECCOMP_IOCTL_NOTIF_RECV (seccomp_unotify(2)): the next call that a filter sends here.

    Returns (id, thread id, number of the call, its six arguments). Raises OSError (ENOENT) where
    the caller died before it was looked at.
    """
    buffer = bytearray(_NOTIF.size)
    fcntl.ioctl(listener, _NOTIF_RECV, buffer)
    number, pid, _flags, call, _arch, _ip, *arguments = _NOTIF.unpack(buffer)
    return int(number), int(pid), int(call), tuple(map(int, arguments))


def is_waiting(listener: int, notified: int) -> bool:
    """SECCOMP_IOCTL_NOTIF_ID_VALID: whether the caller still waits, so its pid is its own."""
    try:
        fcntl.ioctl(listener, _NOTIF_ID_VALID, struct.pack("=Q", notified))
    except OSError:
        return False
    return True


def respond(listener: int, notified: int, error: int = 0, flags: int = 0) -> None:
    """SECCOMP_IOCTL_NOTIF_SEND: lets the caller go on, with 0 or with errno `error`."""
    response = _NOTIF_RESPONSE.pack(notified, 0, -error, flags)
    try:
        fcntl.ioctl(listener, _NOTIF_SEND, response)
    except FileNotFoundError:
        pass  # it was killed while it waited
