"""Reads sealed layers, merged: directories in kernel overlayfs's format with `userxattr`.

Everything is reached by directory descriptors and O_NOFOLLOW: what an agent left in a layer,
symbolic links above all, never leads out of it. Format: Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

OPAQUE = "user.overlay.opaque"

# Directories in directories that are followed. Each costs descriptors, and agents decide how deep
# they go; git itself gives up where a path exceeds PATH_MAX.
DEPTH_LIMIT = 200

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class What(Enum):
    """What a layer has under a name."""

    FILE = "file"
    SYMLINK = "symbolic link"
    DIRECTORY = "directory"
    WHITEOUT = "whiteout"
    SPECIAL = "special file"


@dataclass(slots=True)
class Member:
    """One layer's directory at some path.

    Attributes:
        own: this is one of the layers whose changes are asked for.
        mend: what cannot be read is opened up for the while; not so in the user's working tree.
        mode: to be given back to the directory, which was opened up to be read.
    """

    fd: int
    own: bool
    mend: bool
    names: dict[bytes, What]
    mode: int | None = None

    def close(self) -> None:
        """Closes the descriptor."""
        if self.mode is not None:
            os.fchmod(self.fd, self.mode)
        os.close(self.fd)


def _open_readable(name: bytes | Path, flags: int, dir_fd: int | None, mend: bool) -> int:
    try:
        return os.open(name, flags, dir_fd=dir_fd)
    except PermissionError:
        if not mend:
            raise
        # An agent may have taken its own permission away (mode 000); the layer is nanosup's, and
        # what is in it must not be lost. The mode is put back: it is part of the layer.
        held = os.open(name, _PATH, dir_fd=dir_fd)
        try:
            mode = os.fstat(held).st_mode
            if stat.S_ISLNK(mode):
                raise
            link = f"/proc/self/fd/{held}"
            os.chmod(link, stat.S_IMODE(mode) | 0o700)
            try:
                return os.open(name, flags, dir_fd=dir_fd)
            finally:
                os.chmod(link, stat.S_IMODE(mode))
        finally:
            os.close(held)


def _what(entry: os.DirEntry[str]) -> What:
    if entry.is_symlink():
        return What.SYMLINK
    if entry.is_file(follow_symlinks=False):
        return What.FILE
    if entry.is_dir(follow_symlinks=False):
        return What.DIRECTORY
    found = entry.stat(follow_symlinks=False)
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        return What.WHITEOUT
    return What.SPECIAL


def _member(
    name: bytes | Path, *, own: bool, mend: bool = True, dir_fd: int | None = None
) -> Member:
    member = Member(_open_readable(name, _DIRECTORY, dir_fd, mend), own, mend, {})
    try:
        mode = stat.S_IMODE(os.fstat(member.fd).st_mode)
        if mend and mode & 0o700 != 0o700 and os.geteuid() != 0:
            # To be searched, too, a directory must stay open to its owner until it is done with.
            os.fchmod(member.fd, mode | 0o700)
            member.mode = mode
        with os.scandir(member.fd) as entries:
            for entry in entries:
                member.names[os.fsencode(entry.name)] = _what(entry)
        return member
    except BaseException:
        member.close()
        raise


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError:
        return False


class Level:
    """A directory of the merged layers: its members top to bottom. A context manager.

    Attributes:
        cut: what lies below the layers does not show through here.
    """

    __slots__ = ("cut", "members")

    def __init__(self, members: list[Member], cut: bool) -> None:
        self.members = members
        self.cut = cut

    def __enter__(self) -> Level:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the descriptors."""
        for member in self.members:
            member.close()
        self.members = []

    def names(self, *, every: bool = False) -> set[bytes]:
        """Names in the layers whose changes are asked for, or in all of them."""
        found: set[bytes] = set()
        for member in self.members:
            if member.own or every:
                found.update(member.names)
        return found

    def find(self, name: bytes) -> tuple[Member, What] | None:
        """The topmost layer's idea of `name`."""
        for member in self.members:
            what = member.names.get(name)
            if what is not None:
                return member, what
        return None

    def descend(self, name: bytes) -> Level:
        """The merged directory `name`. Empty where no layer has it as a directory."""
        members: list[Member] = []
        cut = self.cut
        try:
            for member in self.members:
                what = member.names.get(name)
                if what is None:
                    continue
                if what is not What.DIRECTORY:
                    # A whiteout or a file ends the merge. One in the lower layers, whose
                    # result the tree below has already, does not hide that tree.
                    cut = cut or member.own
                    break
                members.append(_member(name, own=member.own, mend=member.mend, dir_fd=member.fd))
                if _is_opaque(members[-1].fd):
                    cut = cut or member.own
                    break
        except BaseException:
            Level(members, cut).close()
            raise
        return Level(members, cut)


def open_strata(own: Sequence[Path], below: Sequence[Path] = ()) -> Level:
    """The root of the merged layers. Both are given bottom to top; `own` lie over `below`.

    Raises:
        OSError: a layer is missing, or is no directory.
    """
    members: list[Member] = []
    try:
        for paths, is_own in ((own, True), (below, False)):
            for path in reversed(paths):
                # Not a comprehension: what was opened must be closed on failure.
                members.append(_member(path, own=is_own))  # noqa: PERF401
    except BaseException:
        Level(members, False).close()
        raise
    return Level(members, False)


def open_worktree(path: Path) -> Level:
    """A plain directory as if it were one layer under which nothing shows."""
    return Level([_member(path, own=True, mend=False)], cut=True)


def open_file(name: bytes, member: Member) -> int:
    """A descriptor of a regular file (OSError where it is none). The caller closes it."""
    fd = _open_readable(name, _FILE, member.fd, member.mend)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(22, "not a regular file", os.fsdecode(name))
    return fd


def walk_stats(root: Level) -> Iterator[tuple[bytes, os.stat_result]]:
    """Every file and symbolic link of the merged layers, with its lstat(2). Depth first.

    Only a directory and its ancestors are open at a time. `root` is left open.
    """
    pending = [(b"", root, iter(root.names(every=True)))]
    try:
        while pending:
            prefix, level, names = pending[-1]
            for name in names:
                found = level.find(name)
                if found is None:
                    continue
                member, what = found
                if what in {What.FILE, What.SYMLINK}:
                    yield prefix + name, os.stat(name, dir_fd=member.fd, follow_symlinks=False)
                elif what is What.DIRECTORY and len(pending) < DEPTH_LIMIT:
                    below = level.descend(name)
                    pending.append((prefix + name + b"/", below, iter(below.names(every=True))))
                    break
            else:
                pending.pop()
                if level is not root:
                    level.close()
    finally:
        for _, level, _ in pending[1:]:
            level.close()
