"""The FUSE protocol's messages that are answered without libfuse (linux/fuse.h). Pure.

Layouts of protocol 7.31 and later, which grew only at the end since.
"""

from __future__ import annotations

import struct
from enum import IntEnum


class Opcode(IntEnum):
    """What the kernel asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    FLUSH = 25
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    TMPFILE = 51


# length opcode unique nodeid uid gid pid
IN_HEADER = struct.Struct("=IIQQIIII")
# opcode unique nodeid uid: what every answer depends on
IN_HEAD = struct.Struct("=4xIQQI")
# length error unique
OUT_HEADER = struct.Struct("=IiQ")

# fh offset size flags lock_owner flags padding, of both
READ_IN = struct.Struct("=QQIIQII")
WRITE_OUT = struct.Struct("=IiQII")  # size padding
OPEN_IN = struct.Struct("=II")
OPEN_OUT = struct.Struct("=IiQQII")
CREATE_IN = struct.Struct("=IIII")
RELEASE_IN = struct.Struct("=QIIQ")
# valid padding fh size lock_owner atime mtime ctime atimensec mtimensec ctimensec mode - uid gid -
SETATTR_IN = struct.Struct("=IIQQQQQQIIIIIIII")
FORGET_IN = struct.Struct("=Q")
FORGET_ONE = struct.Struct("=QQ")
FALLOCATE_IN = struct.Struct("=QQQII")  # fh offset length mode padding
LSEEK_IN = struct.Struct("=QqII")  # fh offset whence padding
LSEEK_OUT = struct.Struct("=IiQQ")
# fh and offset of the source; node, fh and offset of the target; length flags
COPY_FILE_RANGE_IN = struct.Struct("=QQQQQQQ")
RENAME2_IN = struct.Struct("=QII")

# ino size blocks atime mtime ctime, their nanoseconds, mode nlink uid gid rdev blksize flags
_ATTR = "QQQQQQIIIIIIIIII"
# nodeid generation entry_valid attr_valid, their nanoseconds
_ENTRY = "QQQQII"
ATTR_OUT = struct.Struct(f"=IiQQII{_ATTR}")
ENTRY_OUT = struct.Struct(f"=IiQ{_ENTRY}{_ATTR}")
CREATE_OUT = struct.Struct(f"=IiQ{_ENTRY}{_ATTR}QII")
# ino offset namelen type
DIRENT = struct.Struct("=QQII")
DIRENT_PLUS = struct.Struct(f"={_ENTRY}{_ATTR}QQII")

FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_NOFLUSH = 1 << 5
FOPEN_PASSTHROUGH = 1 << 7

WRITE_KILL_SUIDGID = 1 << 2  # the writer has no CAP_FSETID

FATTR_MODE = 1 << 0
FATTR_UID = 1 << 1
FATTR_GID = 1 << 2
FATTR_SIZE = 1 << 3
FATTR_ATIME = 1 << 4
FATTR_MTIME = 1 << 5
FATTR_FH = 1 << 6
FATTR_ATIME_NOW = 1 << 7
FATTR_MTIME_NOW = 1 << 8

_NOTIFY_INVAL_INODE = 2
# length code unique, ino offset length
_INVAL_INODE_OUT = struct.Struct("=IiQQqq")


def bare(unique: int, number: int = 0) -> bytes:
    """An answer with nothing in it: that it was done, or the errno for which it was not."""
    return OUT_HEADER.pack(OUT_HEADER.size, -number, unique)


def invalidation(nodeid: int, *, attributes_only: bool = False) -> bytes:
    """The notice that the kernel's attributes and pages of a file are out of date."""
    size, offset = _INVAL_INODE_OUT.size, -1 if attributes_only else 0
    return _INVAL_INODE_OUT.pack(size, _NOTIFY_INVAL_INODE, 0, nodeid, offset, 0)


def device_number(rdev: int) -> int:
    """`dev_t` of the C library as the kernel's 32 bits (new_encode_dev)."""
    major, minor = rdev >> 8 & 0xFFF | rdev >> 32 & ~0xFFF, rdev & 0xFF | rdev >> 12 & ~0xFF
    return minor & 0xFF | major << 8 & 0xFFF00 | (minor & ~0xFF) << 12 & 0xFFF00000
