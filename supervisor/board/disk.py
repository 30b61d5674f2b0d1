"""Writing to the board: everything appears whole, once, or not at all.

A file or directory is made under a `tmp.…` name beside its place, written through (fsync(2)), and
then published by one system call that fails where something is there already: renameat2(2) with
RENAME_NOREPLACE for a directory, link(2) for a file. So a reader never sees half of anything, of
several writers one wins, and a crash leaves a `tmp.…` that means nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.descriptor import write_whole
from supervisor.board import owner
from supervisor.errors import BoardError, NotFoundError
from supervisor.model.name import tmp_name

# A file system that cannot do a call says so in one of these ways (rename(2), link(2)).
_UNABLE = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK, errno.ENOTSUP}
)

_SENTENCES = {
    errno.ENOSPC: ("there is no space left for {}", "Free some space; the board is unchanged."),
    errno.EDQUOT: ("the disk quota is used up, writing {}", "The board is unchanged."),
    errno.EROFS: ("{} is on a read-only file system", "Set NANOSUP_STATE to a writable directory."),
    errno.EACCES: ("there is no permission to write {}", "Run as the owner of the board."),
    errno.EPERM: ("there is no permission to write {}", "Run as the owner of the board."),
    errno.EMFILE: ("this process has too many open files to write {}", "Raise `ulimit -n`."),
    errno.ENFILE: ("this host has too many open files to write {}", ""),
    errno.EIO: ("the disk failed while writing {}", "See the kernel's log."),
}


def tmp_path(directory: str) -> str:
    """A new name, beside what will be published, that tells whose it is."""
    return os.path.join(directory, tmp_name(owner.maker(), os.urandom(6)))


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns an OSError while `path` is written into a BoardError of one sentence.

    Raises:
        BoardError: no space, no permission, read-only, or any other refusal.
        NotFoundError: the directory that `path` is in was removed meanwhile.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotFoundError(f"{os.path.dirname(path)} does not exist any more") from error
        sentence, hint = _SENTENCES.get(
            error.errno or 0, (f"{{}} cannot be written: {error.strerror}", "")
        )
        raise BoardError(sentence.format(path), hint=hint) from error


def write_file(path: str, data: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Creates a file, which must not exist, and writes it through."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        write_whole(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Makes the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: str, *, mode: int = 0o700) -> None:
    """mkdir -p, durable: where a directory is made, its parent is synced."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return
    except FileNotFoundError:
        _make_below_missing(path, mode)
        return
    sync_directory(os.path.dirname(path))


def _make_below_missing(path: str, mode: int) -> None:
    make_directories(os.path.dirname(path), mode=mode)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return
    except FileNotFoundError as error:
        # The parent is there now, so this is a file system in which nobody makes directories,
        # such as proc(5). (To ask for the parent first would be a race with another maker of it.)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path) from error
    sync_directory(os.path.dirname(path))


def sync_published(path: str) -> None:
    """Makes durable what was published in a directory, as far as the disk goes along.

    What is published others have seen and may have acted on, so that a failure now must not be
    told as if nothing had happened. Only a power cut could still undo it, and that ends the
    holder too.
    """
    try:
        sync_directory(path)
    except OSError:
        pass


def publish_directory(tmp: str, path: str) -> None:
    """Renames a finished directory into its place.

    Raises:
        FileExistsError: something is there already; `tmp` is untouched.
        OSError: the rename failed.
    """
    # ctypes costs milliseconds to import, and commands that only read never come here.
    from sandbox.syscalls import RENAME_NOREPLACE, renameat2

    made = os.lstat(tmp)
    try:
        try:
            renameat2(tmp, path, RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            # rename(2) alone replaces a directory only where that is empty, and none on the board
            # ever is; so this is as good, unless somebody else made an empty one by hand.
            os.rename(tmp, path)
    except OSError as error:
        # NFS repeats a call whose answer was lost, and then refuses what it has done itself.
        if _is(path, made):
            return
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        raise


def publish_file(tmp: str, path: str) -> None:
    """Links a finished file into its place. `tmp` is left over, or gone.

    Raises:
        FileExistsError: something is there already.
        OSError: the link failed.
    """
    made = os.lstat(tmp)
    try:
        try:
            os.link(tmp, path)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            from sandbox.syscalls import RENAME_NOREPLACE, renameat2

            renameat2(tmp, path, RENAME_NOREPLACE)
    except OSError:
        if not _is(path, made):  # NFS, as above
            raise


def replace(path: str, data: bytes) -> None:
    """Puts a file in the place of the one that is there, if any: the last wins. Not written
    through, so only for what means nothing after a crash.

    Raises:
        BoardError: it cannot be written.
        NotFoundError: its directory is gone.
    """
    tmp = tmp_path(os.path.dirname(path))
    with explained(path):
        try:
            write_file(tmp, data, sync=False)
            os.rename(tmp, path)
        except BaseException:
            remove(tmp)
            raise


def remove(path: str) -> None:
    """Removes something half-made, as far as that can be done."""
    try:
        if not os.path.isdir(path) or os.path.islink(path):
            os.unlink(path)
            return
        with os.scandir(path) as entries:
            names = [entry.path for entry in entries]
        for name in names:
            remove(name)
        os.rmdir(path)
    except OSError:
        pass  # it means nothing where it is, and a later sweep tries again


def _is(path: str, made: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), made)
    except OSError:
        return False
