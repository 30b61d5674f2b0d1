"""Removing whole trees that agents have filled: of any depth, with any modes, through no link.

A tree is moved aside first, by one rename(2), to a `tmp.…` name that tells whose it is. So it is
there or not, and what a crash leaves half removed means nothing and is swept.
"""

from __future__ import annotations

import errno
import os
import stat

from supervisor.board import disk, owner
from supervisor.model.name import tmp_name

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 512  # st_blocks counts in these, whatever the file system's own (stat(2))


def set_aside(path: str, directory: str | None = None) -> str:
    """Renames something to a new `tmp.…` beside it, or in `directory`. Returns where it is now.

    Raises:
        FileNotFoundError: it is not there any more.
        BoardError: it cannot be moved.
    """
    aside = disk.tmp_path(directory or os.path.dirname(path))
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        raise
    except OSError:
        with disk.explained(path):
            raise
    return aside


def remove(path: str) -> int:
    """Removes a file or a tree. Returns the bytes on disk that it had.

    Directories below are moved up to be emptied, so that no path ever gets long, however deep an
    agent has nested them.

    Raises:
        BoardError: not all of it could be removed; the rest is left under names that mean nothing.
    """
    parent, name = os.path.split(path)
    with disk.explained(path):
        top = os.open(parent, _OPEN_DIRECTORY)
        try:
            freed, failure = 0, None
            pending = [name]
            while pending:
                try:
                    freed += _take_down(top, pending.pop(), pending)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    failure = failure or error
            if failure is not None:
                raise failure
        finally:
            os.close(top)
    return freed


def usage(path: str) -> int:
    """Bytes on disk of a file or a tree, as far as it can be read."""
    try:
        total = _bytes(os.lstat(path))
    except OSError:
        return 0
    pending = [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    total += _bytes(entry.stat(follow_symlinks=False))
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError:
            continue
    return total


def _take_down(top: int, name: str, pending: list[str]) -> int:
    """Empties and removes `name` in `top`; directories in it that are not empty go to `pending`."""
    found = os.lstat(name, dir_fd=top)
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=top)
        return _bytes(found)
    if found.st_mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=top)
    freed = _bytes(found)
    directory = os.open(name, _OPEN_DIRECTORY, dir_fd=top)
    try:
        for entry in os.listdir(directory):
            inside = os.lstat(entry, dir_fd=directory)
            if not stat.S_ISDIR(inside.st_mode):
                os.unlink(entry, dir_fd=directory)
                freed += _bytes(inside)
                continue
            try:
                os.rmdir(entry, dir_fd=directory)
                freed += _bytes(inside)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if inside.st_mode & 0o700 != 0o700:
                    # To move a directory its own `..` is written.
                    os.chmod(entry, 0o700, dir_fd=directory)
                up = tmp_name(owner.maker(), os.urandom(6))
                os.rename(entry, up, src_dir_fd=directory, dst_dir_fd=top)
                pending.append(up)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=top)
    return freed


def _bytes(found: os.stat_result) -> int:
    # Of a file with further names nothing is freed.
    shared = not stat.S_ISDIR(found.st_mode) and found.st_nlink > 1
    return 0 if shared else found.st_blocks * _BLOCK_BYTES
