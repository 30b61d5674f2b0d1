"""A lane's own directory with the content of a checkout and the layers over it; and, when a writer
has ended, the difference as a layer. For lanes that have no mounts.

A reader's replica has hard links to the checkout's files, which nobody may write; a writer's has
copies. What a replica was when it was made is kept in a manifest beside it.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sandbox.descriptor import write_whole
from sandbox.errors import MountError
from sandbox.union import layer
from sandbox.union.strata import DEPTH_LIMIT, Level, What, open_file, open_strata

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_LIMIT = 800  # of directories in directories; git itself ends at PATH_MAX


class Manifest(msgspec.Struct, frozen=True):
    """What a replica was like.

    Attributes:
        made_ns: by the clock of its file system; what has an older change time is unchanged.
        entries: path → type and permissions.
        extra: paths that were added, and are no part of the content.
    """

    made_ns: int
    entries: dict[bytes, int]
    extra: tuple[bytes, ...] = ()


@dataclass(slots=True)
class _Maker:
    private: bool
    uid: int
    gid: int
    entries: dict[bytes, int] = field(default_factory=dict)


def make(
    target: str,
    manifest: str,
    *,
    checkout: str,
    layers: Sequence[str],
    private: bool,
    uid: int,
    gid: int,
    extra: Sequence[tuple[str, str | None]] = (),
) -> None:
    """Makes the replica `target`, which does not exist, and writes `manifest`.

    Args:
        layers: sealed layers over the checkout, bottom to top.
        private: files are copies, of `uid`:`gid`. Else they are links, and belong to whom they do.
        extra: (path in it, what a symbolic link there leads to, or None for a directory of
            `uid`:`gid`), added where nothing is; not part of the manifest.

    Raises MountError: it cannot be written, or is too deep.
    """
    maker = _Maker(private, uid, gid)
    try:
        os.mkdir(target, 0o755)
        out = os.open(target, _DIRECTORY)
        base = os.open(checkout, _DIRECTORY)
        try:
            with open_strata([Path(path) for path in layers]) as level:
                _merge(maker, base, level, out, b"", 0)
            for path, leads_to in extra:
                _add(maker, target, path, leads_to)
            # git wants the top of a working tree to be its user's own.
            os.chmod(out, 0o755)
            _own(maker, out)
        finally:
            os.close(out)
            os.close(base)
        made_ns = _later(manifest, os.stat(target).st_ctime_ns)
        added = tuple(os.fsencode(path) for path, _ in extra)
        content = msgspec.msgpack.encode(Manifest(made_ns, maker.entries, added))
        Path(f"{manifest}.new").write_bytes(content)
        os.rename(f"{manifest}.new", manifest)
    except OSError as error:
        raise MountError(
            f"the lane's directory {target} cannot be made: {error.strerror}",
            hint="free some space, or set NANOSUP_STATE to a directory on another disk",
        ) from error


def _later(path: str, than_ns: int) -> int:
    """A change time, given to `path`, that is after `than_ns`: the kernel's clock for these ticks
    every few milliseconds."""
    while True:
        Path(path).write_bytes(b"")
        now_ns = os.stat(path).st_ctime_ns
        if now_ns > than_ns:
            return now_ns
        time.sleep(0.0005)


def settle(target: str, manifest: str, upper: str) -> None:
    """Makes the layer `upper` of what has changed in a writer's replica since it was made.

    Nothing may run that could change it any more. May be done again after it was interrupted; the
    replica stays as it is. Raises MountError.
    """
    if os.path.isdir(upper):
        return
    try:
        before = msgspec.msgpack.decode(Path(manifest).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        # It was killed before its replica was whole, so before its command was started.
        os.mkdir(upper, 0o755)
        return
    temporary = f"{upper}.new"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        os.mkdir(temporary, 0o755)
        source, out = _open_mended(None, target), os.open(temporary, _DIRECTORY)
        try:
            found = os.fstat(source)
            _Settling(before).directory(source, out, b"", 0)
            # Its owner must be able to read it, whatever was done to the lane's.
            os.fchmod(out, stat.S_IMODE(found.st_mode) | 0o700)
            if os.geteuid() == 0:
                os.fchown(out, found.st_uid, found.st_gid)
        finally:
            os.close(source)
            os.close(out)
        os.rename(temporary, upper)
    except OSError as error:
        raise MountError(
            f"what the lane has changed cannot be made a layer: {error}",
            hint="free some space; its work is kept in " + target,
        ) from error


# -- making


def _merge(
    maker: _Maker, base: int | None, level: Level, out: int, prefix: bytes, depth: int
) -> None:
    """Fills the directory `out` with what `base` and the layers over it have."""
    if depth > _DEPTH_LIMIT:
        raise OSError(36, "directories are nested too deep")
    below = {os.fsencode(name) for name in os.listdir(base)} if base is not None else set()
    for name in below | level.names(every=True):
        path = prefix + name
        found = level.find(name)
        if found is None:
            assert base is not None
            _take(maker, base, name, out, path, depth)
            continue
        member, what = found
        status = os.stat(name, dir_fd=member.fd, follow_symlinks=False)
        match what:
            case What.FILE:
                with os.fdopen(open_file(name, member), "rb", buffering=0) as file:
                    _copy(maker, file.fileno(), status, out, name)
            case What.SYMLINK:
                os.symlink(os.readlink(name, dir_fd=member.fd), name, dir_fd=out)
                _dress(maker, status, out, name)
            case What.DIRECTORY:
                with level.descend(name) as inner:
                    under = None
                    if name in below and not inner.cut:
                        under = _open_directory(base, name)
                    try:
                        _descend(maker, under, inner, status, out, name, path, depth)
                    finally:
                        if under is not None:
                            os.close(under)
            case _:
                continue  # whiteouts; and sockets and the like mean nothing to another lane
        maker.entries[path] = status.st_mode


def _take(maker: _Maker, base: int, name: bytes, out: int, path: bytes, depth: int) -> None:
    """What only the checkout has."""
    status = os.stat(name, dir_fd=base, follow_symlinks=False)
    maker.entries[path] = status.st_mode
    if stat.S_ISDIR(status.st_mode):
        under = os.open(name, _DIRECTORY, dir_fd=base)
        try:
            _descend(maker, under, Level([], False), status, out, name, path, depth)
        finally:
            os.close(under)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=base), name, dir_fd=out)
        _dress(maker, status, out, name)
    elif maker.private:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
        try:
            _copy(maker, fd, status, out, name)
        finally:
            os.close(fd)
    else:
        os.link(name, name, src_dir_fd=base, dst_dir_fd=out, follow_symlinks=False)


def _descend(
    maker: _Maker,
    under: int | None,
    level: Level,
    status: os.stat_result,
    out: int,
    name: bytes,
    path: bytes,
    depth: int,
) -> None:
    os.mkdir(name, 0o700, dir_fd=out)
    inner = os.open(name, _DIRECTORY, dir_fd=out)
    try:
        _merge(maker, under, level, inner, path + b"/", depth + 1)
    finally:
        os.close(inner)
    os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=out)
    _dress(maker, status, out, name)


def _open_directory(base: int | None, name: bytes) -> int | None:
    try:
        return os.open(name, _DIRECTORY, dir_fd=base)
    except NotADirectoryError:
        return None


def _copy(maker: _Maker, fd: int, status: os.stat_result, out: int, name: bytes) -> None:
    target = os.open(name, _NEW, 0o600, dir_fd=out)
    try:
        copy_content(fd, target, status.st_size)
        os.fchmod(target, stat.S_IMODE(status.st_mode) & 0o777)
    finally:
        os.close(target)
    _dress(maker, status, out, name)


def _dress(maker: _Maker, status: os.stat_result, out: int, name: bytes) -> None:
    if os.geteuid() == 0:
        uid, gid = (maker.uid, maker.gid) if maker.private else (0, 0)
        os.chown(name, uid, gid, dir_fd=out, follow_symlinks=False)
    times = (status.st_mtime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=out, follow_symlinks=False)


def _own(maker: _Maker, fd: int) -> None:
    if os.geteuid() == 0:
        os.fchown(fd, maker.uid, maker.gid)


def _add(maker: _Maker, target: str, path: str, leads_to: str | None) -> None:
    """Directories above are made where they are missing; never through a symbolic link."""
    here = os.open(target, _DIRECTORY)
    try:
        *above, name = path.split("/")
        for part in above:
            if not _exists(here, part):
                os.mkdir(part, 0o755, dir_fd=here)
            inner = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = inner
        if leads_to is not None:
            if not _exists(here, name):
                os.symlink(leads_to, name, dir_fd=here)
            return
        if not _exists(here, name):
            os.mkdir(name, 0o755, dir_fd=here)
        inner = os.open(name, _DIRECTORY, dir_fd=here)
        try:
            _own(maker, inner)
        finally:
            os.close(inner)
    finally:
        os.close(here)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def copy_content(source: int, target: int, size: int) -> None:
    """Copies a file's content, sharing blocks where the file system can."""
    done = 0
    try:
        while done < size:
            count = os.copy_file_range(source, target, size - done)
            if count == 0:
                return
            done += count
    except OSError:
        os.lseek(source, done, os.SEEK_SET)
        os.lseek(target, done, os.SEEK_SET)
        while chunk := os.read(source, 1 << 20):
            write_whole(target, chunk)


# -- settling


class _Settling:
    """The search for what differs from a manifest."""

    def __init__(self, before: Manifest) -> None:
        self._before = before
        self._names: dict[bytes, set[bytes]] = {}
        for path in before.entries:
            above, slash, name = path.rpartition(b"/")
            self._names.setdefault(above + slash, set()).add(name)

    def directory(self, source: int, out: int, prefix: bytes, depth: int) -> bool:
        """Puts into `out` what differs in one directory. Returns whether anything does."""
        if depth > DEPTH_LIMIT:
            raise OSError(36, f"{os.fsdecode(prefix)}: directories are nested too deep")
        changed = False
        names = {os.fsencode(name) for name in os.listdir(source)}
        for name in self._names.get(prefix, set()) - names:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=out)
            changed = True
        for name in names:
            path = prefix + name
            if path in self._before.extra or path == b".git":
                continue
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            was = self._before.entries.get(path, 0)
            if stat.S_ISDIR(status.st_mode):
                changed |= self._descend(source, out, prefix, name, status, was, depth)
            elif (
                stat.S_IFMT(was) != stat.S_IFMT(status.st_mode)
                or status.st_ctime_ns >= self._before.made_ns
            ):
                changed |= _keep(source, out, name, status)
        return changed

    def _descend(
        self,
        source: int,
        out: int,
        prefix: bytes,
        name: bytes,
        status: os.stat_result,
        was: int,
        depth: int,
    ) -> bool:
        inner = _open_mended(source, name)
        os.mkdir(name, 0o700, dir_fd=out)
        into = os.open(name, _DIRECTORY, dir_fd=out)
        try:
            changed = self.directory(inner, into, prefix + name + b"/", depth + 1)
            if was and not stat.S_ISDIR(was):
                os.setxattr(into, layer.OPAQUE_XATTR, layer.OPAQUE)
        finally:
            os.close(inner)
            os.close(into)
        if not changed and was == status.st_mode:
            os.rmdir(name, dir_fd=out)
            return False
        _like(status, out, name)
        return True


def _open_mended(source: int | None, name: bytes | str) -> int:
    """Also a directory whose owner has taken its own permissions away."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=source)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=source)
        return os.open(name, _DIRECTORY, dir_fd=source)


def _keep(source: int, out: int, name: bytes, status: os.stat_result) -> bool:
    """A file as it is, by a link where that can be: nothing runs that could change it."""
    if stat.S_ISSOCK(status.st_mode) or stat.S_ISCHR(status.st_mode):
        return False
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=out, follow_symlinks=False)
        return True
    except OSError:
        pass  # another file system
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=out)
    elif stat.S_ISREG(status.st_mode):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=source)
        target = os.open(name, _NEW, 0o600, dir_fd=out)
        try:
            copy_content(fd, target, status.st_size)
        finally:
            os.close(fd)
            os.close(target)
    else:
        os.mkfifo(name, dir_fd=out)
    _like(status, out, name)
    return True


def _like(status: os.stat_result, out: int, name: bytes) -> None:
    if os.geteuid() == 0:
        os.chown(name, status.st_uid, status.st_gid, dir_fd=out, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=out)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=out, follow_symlinks=False)
