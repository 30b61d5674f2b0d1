"""The second filter of system calls, for lanes that have no namespaces. Pure.

What namespaces would keep apart and landlock has no rule for is refused here, or sent to the
lane's warden (`mediator.py`), who looks at what no filter can: landlock says nothing about modes,
owners, times and extended attributes (landlock(7), "Current limitations"), and a process can
set limits and priorities of any other of its user.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass

# linux/seccomp.h
_ALLOW, _ERRNO, _USER_NOTIF = 0x7FFF_0000, 0x0005_0000, 0x7FC0_0000
_ARGS = 16  # offset in struct seccomp_data

# linux/bpf_common.h
_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_INSTRUCTION = struct.Struct("=HBBI")

_AF_UNIX, _SOCK_DGRAM, _SOCK_TYPE_MASK = 1, 2, 0xF

# File systems' own ioctls, by their type (linux/fs.h, ext4.h, btrfs.h, msdos_fs.h, f2fs.h, and
# bcachefs). An owner may set flags, versions and encryption, and on btrfs make and delete
# subvolumes, through a descriptor that he can only read from: no rule of landlock is about those.
_FILE_IOCTL_TYPES = (0x58, 0x66, 0x72, 0x76, 0x94, 0xBC, 0xF5)
_TYPE_MASK = 0xFF00
# Those of them that only ask, and those that the kernel lets nobody do who may not write: GETFLAGS
# (both spellings), GETVERSION, FSGETXATTR, FIEMAP; FICLONE, FICLONERANGE.
_ALLOWED_IOCTLS = (
    0x8008_6601,
    0x8004_6601,
    0x8008_7601,
    0x801C_581F,
    0xC020_660B,
    0x4004_9409,
    0x4020_940D,
)

# Sent to the warden: name → number on x86_64, on aarch64.
MEDIATED: Mapping[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "chown": (92, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "fremovexattr": (199, 16),
    "fsetxattr": (190, 7),
    "futimesat": (261, None),
    "lchown": (94, None),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "setxattr": (188, 5),
    "utime": (132, None),
    "utimensat": (280, 88),
    "utimes": (235, None),
}

# The same where this argument, a process, is not 0 (oneself).
OF_PROCESSES: Mapping[str, tuple[tuple[int, int], int]] = {
    "ioprio_set": ((251, 30), 1),
    "prlimit64": ((302, 261), 0),
    "sched_setaffinity": ((203, 122), 0),
    "sched_setattr": ((314, 274), 0),
    "sched_setparam": ((142, 118), 0),
    "sched_setscheduler": ((144, 119), 0),
    "setpriority": ((141, 140), 1),
}

# What the first argument of these must be for the second to be a process (PRIO_PROCESS,
# IOPRIO_WHO_PROCESS). A user or a group is refused: 0 is then all that the user has running.
_OF_ONE: Mapping[str, int] = {"ioprio_set": 1, "setpriority": 0}

# System V and POSIX objects are found by key or name, whoever made them; inotify watches what
# cannot be read; the last three do what is mediated above, in ways that nobody uses yet.
_REFUSED: Mapping[str, tuple[int, int]] = {
    "inotify_add_watch": (254, 27),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "msgctl": (71, 187),
    "msgget": (68, 186),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "semctl": (66, 191),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmget": (29, 194),
    "file_setattr": (469, 469),
    "removexattrat": (466, 466),
    "setxattrat": (463, 463),
}

_SOCKET, _SOCKETPAIR, _IOCTL = (41, 198), (53, 199), (16, 29)


@dataclass(frozen=True, slots=True)
class _Block:
    number: int
    body: list[bytes]


def assemble(machine: str, *, network: bool) -> bytes:
    """The program for `machine` (x86_64 or aarch64). Comes on top of `seccomp.assemble`'s, which
    has ended all that is of another architecture.

    Args:
        network: sockets of the internet may be made; without, none at all.
    """
    column = 0 if machine == "x86_64" else 1
    blocks = [
        _Block(number, [_return(_USER_NOTIF)])
        for numbers in MEDIATED.values()
        if (number := numbers[column]) is not None
    ]
    refused = _return(_ERRNO | errno.EPERM)
    for name, (numbers, argument) in OF_PROCESSES.items():
        body = [_load(argument), _equal(0, otherwise=1), _return(_ALLOW), _return(_USER_NOTIF)]
        if name in _OF_ONE:
            body = [_load(0), _equal(_OF_ONE[name], otherwise=len(body)), *body, refused]
        blocks.append(_Block(numbers[column], body))
    blocks += [_Block(numbers[column], [refused]) for numbers in _REFUSED.values()]
    # A name in the file system is the way to docker, D-Bus, tmux and the like, and no rule of
    # landlock is about connect(2) to one. A pair of datagram sockets can send to names, too.
    no_socket = _return(_ERRNO | errno.EAFNOSUPPORT)
    by_family = [_load(0), _equal(_AF_UNIX, otherwise=1), no_socket, _return(_ALLOW)]
    blocks.append(_Block(_SOCKET[column], by_family if network else [no_socket]))
    blocks.append(
        _Block(
            _SOCKETPAIR[column],
            [
                _load(1),
                _INSTRUCTION.pack(_AND, 0, 0, _SOCK_TYPE_MASK),
                _equal(_SOCK_DGRAM, otherwise=1),
                refused,
                _return(_ALLOW),
            ],
        )
    )
    allowed = _return(_ALLOW)
    checks = [part for code in _ALLOWED_IOCTLS for part in (_equal(code, otherwise=1), allowed)]
    checks.append(_INSTRUCTION.pack(_AND, 0, 0, _TYPE_MASK))
    for kind in _FILE_IOCTL_TYPES:
        checks += [_equal(kind << 8, otherwise=1), refused]
    blocks.append(_Block(_IOCTL[column], [_load(1), *checks, allowed]))
    program = [_INSTRUCTION.pack(_LOAD, 0, 0, 0)]
    for block in blocks:
        program += [_equal(block.number, otherwise=len(block.body)), *block.body]
    return b"".join([*program, _return(_ALLOW)])


def names(machine: str) -> dict[int, str]:
    """The calls that are sent to the warden, by number."""
    column = 0 if machine == "x86_64" else 1
    found = {n: name for name, both in MEDIATED.items() if (n := both[column]) is not None}
    return found | {both[column]: name for name, (both, _) in OF_PROCESSES.items()}


def _load(argument: int) -> bytes:
    """The lower half: all that the kernel looks at for these."""
    return _INSTRUCTION.pack(_LOAD, 0, 0, _ARGS + 8 * argument)


def _equal(value: int, *, otherwise: int) -> bytes:
    return _INSTRUCTION.pack(_EQUAL, 0, otherwise, value)


def _return(value: int) -> bytes:
    return _INSTRUCTION.pack(_RETURN, 0, 0, value)
