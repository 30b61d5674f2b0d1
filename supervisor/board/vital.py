"""A lock that shows to other containers of this kernel whether a process lives.

A pid means nothing outside of its PID namespace, and a container that is killed and started again
has a new one. So whoever claims for itself holds a lock (flock(2)) on the attempt's directory: the
kernel gives it up when the process is dead, and only then. It is asked for by processes of the
same boot alone: what other hosts see of locks depends on the file system.
"""

from __future__ import annotations

import fcntl
import os

_held: dict[str, int] = {}


def lock(directory: str) -> int | None:
    """Locks a directory that nobody else knows of yet. Returns the descriptor that holds the lock;
    None where there are no locks to be had."""
    try:
        return _locked(directory, fcntl.LOCK_EX)
    except OSError:
        return None


def keep(path: str, fd: int | None) -> None:
    """Holds a lock until `release`, or until this process ends; the directory is now at `path`."""
    if fd is not None:
        _held[path] = fd


def held() -> dict[str, int]:
    """The locks that this process holds: where, and by which descriptor."""
    return dict(_held)


def release(path: str) -> None:
    """Gives up the lock of the directory at `path`, if this process holds it."""
    if (fd := _held.pop(path, None)) is not None:
        os.close(fd)


def is_held(path: str) -> bool | None:
    """Whether somebody holds the lock of a directory; None where nobody can tell."""
    try:
        os.close(_locked(path, fcntl.LOCK_SH))
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _locked(directory: str, how: int) -> int:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd
