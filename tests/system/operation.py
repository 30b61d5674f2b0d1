"""File system operations as values, applied alike to any tree. The oracle compares the results."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Any

from sandbox.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

# Not through a symlink, and not waiting for the other end of a FIFO.
_NEVER_WAITING = os.O_NOFOLLOW | os.O_NONBLOCK
_RDWR = os.O_RDWR | _NEVER_WAITING
_WRONLY = os.O_WRONLY | _NEVER_WAITING

# A time that no file gets by itself.
SET_TIME_NS = 1_234_567_890_123_456_789


@dataclass
class Tree:
    """One of the trees under comparison, and the files that are held open in it."""

    root: str
    held: dict[int, int] = field(default_factory=dict)

    def path(self, relative: str) -> str:
        return os.path.join(self.root, relative)

    def close(self) -> None:
        for fd in self.held.values():
            os.close(fd)
        self.held.clear()


Result = Any


def apply(tree: Tree, operation: str, *arguments: Any) -> Result:
    """The operation's value, or ("error", errno)."""
    arguments = tuple(a[0] * a[1] if isinstance(a, tuple) else a for a in arguments)
    try:
        return OPERATIONS[operation](tree, *arguments)
    except OSError as error:
        return ("error", error.errno)


def _create(tree: Tree, path: str, content: bytes, mode: int) -> Result:
    fd = os.open(tree.path(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        return os.write(fd, content)
    finally:
        os.close(fd)


def _overwrite(tree: Tree, path: str, offset: int, content: bytes) -> Result:
    fd = os.open(tree.path(path), _RDWR)
    try:
        return os.pwrite(fd, content, offset), os.pread(fd, 64, 0), os.fstat(fd).st_size
    finally:
        os.close(fd)


def _append(tree: Tree, path: str, content: bytes) -> Result:
    fd = os.open(tree.path(path), _WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        return os.write(fd, content), os.fstat(fd).st_size
    finally:
        os.close(fd)


def _rewrite(tree: Tree, path: str, content: bytes) -> Result:
    fd = os.open(tree.path(path), _WRONLY | os.O_TRUNC)
    try:
        return os.write(fd, content)
    finally:
        os.close(fd)


def _read(tree: Tree, path: str) -> Result:
    fd = os.open(tree.path(path), os.O_RDONLY | _NEVER_WAITING)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


def _truncate(tree: Tree, path: str, size: int) -> Result:
    if stat.S_ISLNK(os.lstat(tree.path(path)).st_mode):
        return None
    os.truncate(tree.path(path), size)
    return os.lstat(tree.path(path)).st_size


def _rename(tree: Tree, old: str, new: str) -> Result:
    os.rename(tree.path(old), tree.path(new))


def _rename_noreplace(tree: Tree, old: str, new: str) -> Result:
    renameat2(tree.path(old), tree.path(new), RENAME_NOREPLACE)


def _exchange(tree: Tree, old: str, new: str) -> Result:
    renameat2(tree.path(old), tree.path(new), RENAME_EXCHANGE)


def _chmod(tree: Tree, path: str, mode: int) -> Result:
    if stat.S_ISLNK(os.lstat(tree.path(path)).st_mode):
        return None
    os.chmod(tree.path(path), mode)
    return oct(os.lstat(tree.path(path)).st_mode)


def _chown(tree: Tree, path: str, uid: int, gid: int) -> Result:
    os.lchown(tree.path(path), uid, gid)
    status = os.lstat(tree.path(path))
    return status.st_uid, status.st_gid, oct(status.st_mode)


def _utime(tree: Tree, path: str) -> Result:
    os.utime(tree.path(path), ns=(SET_TIME_NS, SET_TIME_NS), follow_symlinks=False)
    status = os.lstat(tree.path(path))
    return status.st_atime_ns, status.st_mtime_ns


def _setxattr(tree: Tree, path: str, name: str, value: bytes) -> Result:
    os.setxattr(tree.path(path), name, value, follow_symlinks=False)


def _removexattr(tree: Tree, path: str, name: str) -> Result:
    os.removexattr(tree.path(path), name, follow_symlinks=False)


def _xattrs(tree: Tree, path: str) -> Result:
    full = tree.path(path)
    names = sorted(os.listxattr(full, follow_symlinks=False))
    return {name: os.getxattr(full, name, follow_symlinks=False) for name in names}


def _stat(tree: Tree, path: str) -> Result:
    status = os.lstat(tree.path(path))
    if stat.S_ISDIR(status.st_mode):
        return oct(status.st_mode), status.st_uid
    return oct(status.st_mode), status.st_uid, status.st_nlink, status.st_size


def _list(tree: Tree, path: str) -> Result:
    return sorted(os.listdir(tree.path(path)))


def _link(tree: Tree, old: str, new: str) -> Result:
    os.link(tree.path(old), tree.path(new), follow_symlinks=False)
    return os.lstat(tree.path(old)).st_nlink


def _is_same_file(tree: Tree, old: str, new: str) -> Result:
    return os.lstat(tree.path(old)).st_ino == os.lstat(tree.path(new)).st_ino


def _hold(tree: Tree, slot: int, path: str, flags: int) -> Result:
    fd = os.open(tree.path(path), flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        return "directory"
    if slot in tree.held:
        os.close(tree.held.pop(slot))
    tree.held[slot] = fd
    return "held"


def _held_read(tree: Tree, slot: int) -> Result:
    if slot not in tree.held:
        return None
    fd = tree.held[slot]
    status = os.fstat(fd)
    return os.pread(fd, 1 << 16, 0), status.st_size, status.st_nlink, oct(status.st_mode)


def _held_write(tree: Tree, slot: int, offset: int, content: bytes) -> Result:
    if slot not in tree.held:
        return None
    return os.pwrite(tree.held[slot], content, offset), os.fstat(tree.held[slot]).st_size


def _held_chmod(tree: Tree, slot: int, mode: int) -> Result:
    if slot not in tree.held:
        return None
    os.fchmod(tree.held[slot], mode)
    return oct(os.fstat(tree.held[slot]).st_mode)


def _held_truncate(tree: Tree, slot: int, size: int) -> Result:
    if slot not in tree.held:
        return None
    os.ftruncate(tree.held[slot], size)
    return os.fstat(tree.held[slot]).st_size


OPERATIONS: dict[str, Any] = {
    "create": _create,
    "overwrite": _overwrite,
    "append": _append,
    "rewrite": _rewrite,
    "read": _read,
    "truncate": _truncate,
    "unlink": lambda tree, path: os.unlink(tree.path(path)),
    "mkdir": lambda tree, path, mode: os.mkdir(tree.path(path), mode),
    "rmdir": lambda tree, path: os.rmdir(tree.path(path)),
    "mkfifo": lambda tree, path: os.mkfifo(tree.path(path)),
    "whiteout": lambda tree, path: os.mknod(tree.path(path), stat.S_IFCHR | 0o600, 0),
    "symlink": lambda tree, path, target: os.symlink(target, tree.path(path)),
    "readlink": lambda tree, path: os.readlink(tree.path(path)),
    "link": _link,
    "is_same_file": _is_same_file,
    "rename": _rename,
    "rename_noreplace": _rename_noreplace,
    "exchange": _exchange,
    "chmod": _chmod,
    "chown": _chown,
    "utime": _utime,
    "setxattr": _setxattr,
    "removexattr": _removexattr,
    "xattrs": _xattrs,
    "stat": _stat,
    "list": _list,
    "hold": _hold,
    "held_read": _held_read,
    "held_write": _held_write,
    "held_chmod": _held_chmod,
    "held_truncate": _held_truncate,
}
