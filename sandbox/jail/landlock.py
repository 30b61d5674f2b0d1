"""Landlock's rights and rules, as values (landlock(7), linux/landlock.h). Pure.

A domain takes rights away from a process and all that it starts, for good; rules give them back
below single directories. What is handled without a rule is refused with EACCES, whatever the
mounts, modes and capabilities say.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag

# Before it, a file cannot be moved to another directory, not even inside of one that is allowed:
# nothing that builds software works like that (Linux 5.19).
ABI_MINIMUM = 2
ABI_SCOPES = 6


class Right(IntFlag):
    """LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


class Scope(IntFlag):
    """LANDLOCK_SCOPE_*: what stays inside the domain."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


# What a rule about something that is no directory may give (landlock_add_rule(2): else EINVAL).
FILE_RIGHTS = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV
READS = Right.EXECUTE | Right.READ_FILE | Right.READ_DIR
WRITES = Right(sum(Right)) & ~READS

# Nobody builds software with device nodes; mknod(2) is refused to a lane everywhere.
_NODES = Right.MAKE_CHAR | Right.MAKE_BLOCK
_SINCE = {Right.REFER: 2, Right.TRUNCATE: 3, Right.IOCTL_DEV: 5}


@dataclass(frozen=True, slots=True)
class Rule:
    """Gives `rights` back below `path`.

    Attributes:
        path: a directory or file; a number: an open descriptor.
        optional: where there is no such path, or it is no file that rules can be about (a pipe),
            the rule is left out. Otherwise that is an error.
    """

    path: str | int
    rights: Right
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Domain:
    """What landlock_create_ruleset(2) and landlock_add_rule(2) are told."""

    handled: Right
    scoped: Scope
    rules: tuple[Rule, ...] = ()

    @property
    def attributes(self) -> bytes:
        """struct landlock_ruleset_attr, as long as the ABI that knows what is in it."""
        if self.scoped:
            return struct.pack("=QQQ", self.handled, 0, self.scoped)
        return struct.pack("=Q", self.handled)


def known(abi: int) -> Right:
    """The rights that a kernel of this ABI can handle."""
    return Right(sum(right for right in Right if _SINCE.get(right, 1) <= abi))


def scopes(abi: int) -> Scope:
    """The scopes that a kernel of this ABI knows."""
    return Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL if abi >= ABI_SCOPES else Scope(0)


def writes_only_below(
    abi: int,
    writable: Iterable[str],
    *,
    devices: Iterable[str] = ("/dev",),
    contents: Iterable[str] = ("/proc",),
    open_files: Iterable[int] = (1, 2),
) -> Domain:
    """A domain that reads as before, and writes below `writable`.

    Attributes:
        devices: existing files below may be written to and asked by ioctl(2); nothing can be made
            there.
        contents: existing files below may be written to.
        open_files: descriptors that may be opened once more, as /dev/stderr is by scripts.
    """
    handled = WRITES & known(abi)
    below = handled & ~_NODES
    existing = handled & FILE_RIGHTS
    return Domain(
        handled,
        # In this domain and not in one of their own: a domain that handles no REFER refuses it as
        # soon as a second one decides about files, and rename(2) between directories is EXDEV.
        scopes(abi),
        (
            *(Rule(path, below) for path in dict.fromkeys(writable)),
            *(Rule(path, existing) for path in devices),
            # A shell's `>` truncates, which means nothing to /proc but needs the right.
            *(Rule(path, existing & ~Right.IOCTL_DEV) for path in contents),
            *(Rule(fd, existing, optional=True) for fd in open_files),
        ),
    )
