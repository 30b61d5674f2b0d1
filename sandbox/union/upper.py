"""The upper directory of a write mount, and the scratch directory beside it.

Every object is reached through the descriptor of its directory and a single name that is never
followed, so paths may be of any length, and no symlink found on the way leads anywhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from typing import Self

from sandbox.errors import MountError
from sandbox.syscalls import FALLOC_FL_PUNCH_HOLE, fallocate
from sandbox.union import layer
from sandbox.union.allowance import Allowance
from sandbox.union.node import Directory, Node
from sandbox.union.spec import MountSpec

_OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Upper:
    """Addresses objects in the upper directory, and names temporary ones in `work`."""

    def __init__(self, upper: str, work: str, root: Directory, *, fd_limit: int = 1024) -> None:
        """Opens both. Raises MountError if they are missing or on different file systems."""
        self.uid = os.geteuid()
        self.gid = os.getegid()
        self.fd_limit = fd_limit
        self._opened: deque[Directory] = deque()
        self._serial = 0
        try:
            root.fd = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.work_fd = os.open(work, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise MountError(f"cannot open {error.filename}: {error.strerror}") from error
        if os.fstat(root.fd).st_dev != os.fstat(self.work_fd).st_dev:
            raise MountError(
                f"{upper} and {work} are on different file systems",
                hint="copy-up renames from one to the other; put them side by side",
            )
        self._root = root
        self._clear_work()
        self.allowance: Allowance | None = None

    @classmethod
    def of(cls, spec: MountSpec, root: Directory, *, fd_limit: int) -> Self:
        """That of a mount. What is in it already counts. Raises MountError."""
        if spec.upper is None or spec.work is None:
            raise MountError("an upper directory needs a work directory beside it")
        made = cls(spec.upper, spec.work, root, fd_limit=fd_limit)
        if spec.limit_bytes is not None:
            made.allowance = Allowance(spec.limit_bytes, (root.fd, made.work_fd))
        return made

    def _clear_work(self) -> None:
        # What a killed server was about to move into place; nobody has seen it.
        fd = reopen_directory(self.work_fd)
        try:
            names = os.listdir(fd)
        finally:
            os.close(fd)
        for name in names:
            remove_tree(self.work_fd, os.fsencode(name))

    def close(self) -> None:
        """Closes all descriptors."""
        self.trim(0)
        os.close(self.work_fd)
        os.close(self._root.fd)
        self._root.fd = -1

    # -- how much

    def write(self, fd: int, data: bytes | memoryview[int], offset: int) -> int:
        """pwrite(2), within the allowance."""
        if self.allowance is not None:
            return self.allowance.write(fd, data, offset)
        return os.pwrite(fd, data, offset)

    def allocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2), within the allowance."""

        def allocate() -> int:
            fallocate(fd, mode, offset, length)
            return 0

        if self.allowance is None or mode & FALLOC_FL_PUNCH_HOLE:
            allocate()
            self.note_freed()
        else:
            self.allowance.within(fd, offset, length, allocate)

    def copy_range(self, source: int, source_at: int, fd: int, offset: int, count: int) -> int:
        """copy_file_range(2), within the allowance."""

        def copy() -> int:
            return os.copy_file_range(source, fd, count, source_at, offset)

        if self.allowance is None:
            return copy()
        return self.allowance.within(fd, offset, count, copy)

    def claim(self, size: int) -> None:
        """Counts bytes that are about to be added. Raises OSError (ENOSPC)."""
        if self.allowance is not None:
            self.allowance.claim(size)

    def note_freed(self) -> None:
        """Something was removed, or is about to be."""
        if self.allowance is not None:
            self.allowance.note_freed()

    # -- directories

    def fd(self, directory: Directory) -> int:
        """An O_PATH descriptor of a directory that is in the upper directory.

        Valid until the next `trim`; do not close it.
        """
        if directory.fd >= 0:
            return directory.fd
        chain = [directory]
        above = directory.parent
        while above is not None and above.fd < 0:
            chain.append(above)
            above = above.parent
        if above is None:
            raise OSError(errno.ESTALE, "directory is gone")
        fd = above.fd
        for below in reversed(chain):
            fd = below.fd = os.open(below.name, _OPEN_DIRECTORY, dir_fd=fd)
            self._opened.append(below)
        return fd

    def trim(self, limit: int) -> None:
        """Closes the longest opened directories until at most `limit` are open.

        Called between operations only: within one, descriptors must stay.
        """
        opened = self._opened
        while len(opened) > limit:
            directory = opened.popleft()
            # An unlinked directory has no other way to be reached; `forget` closes it.
            if directory.parent is not None and directory.fd >= 0:
                os.close(directory.fd)
                directory.fd = -1

    def trim_if_many(self) -> None:
        """Keeps the number of open directories within the limit."""
        if len(self._opened) > self.fd_limit:
            self.trim(self.fd_limit // 2)

    # -- objects

    def where(self, node: Node) -> tuple[int, bytes]:
        """(directory descriptor, name) of a node in the upper directory, for *at() calls.

        Raises OSError (ENOENT) for a node without a name.
        """
        parent = node.parent
        if parent is None:
            raise OSError(errno.ENOENT, "unlinked")
        return (parent.fd if parent.fd >= 0 else self.fd(parent)), node.name

    def handle(self, node: Node) -> int:
        """A new O_PATH descriptor of the node, named or not; the caller closes it."""
        extra = node.extra
        if extra is not None and extra.anchor >= 0:
            return os.dup(extra.anchor)
        if isinstance(node, Directory) and node.fd >= 0:
            return os.dup(node.fd)
        if node.parent is None and extra is not None and extra.handles:
            return os.dup(extra.handles[0].fd)
        fd, name = self.where(node)
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)

    def status(self, node: Node) -> os.stat_result:
        """lstat(2) of a node, named or not."""
        extra = node.extra
        if extra is not None:
            if extra.handles and extra.handles[0].fd >= 0:
                return os.fstat(extra.handles[0].fd)
            if extra.anchor >= 0:
                return os.fstat(extra.anchor)
        if isinstance(node, Directory):
            return os.fstat(node.fd if node.fd >= 0 else self.fd(node))
        parent = node.parent
        if parent is None:
            raise OSError(errno.ESTALE, "file is gone")
        fd = parent.fd
        return os.stat(node.name, dir_fd=fd if fd >= 0 else self.fd(parent), follow_symlinks=False)

    def open(self, node: Node, flags: int) -> int:
        """open(2) of a regular file, named or not."""
        extra = node.extra
        if extra is not None and (extra.anchor >= 0 or node.parent is None):
            held = extra.anchor if extra.anchor >= 0 else extra.handles[0].fd
            return os.open(f"/proc/self/fd/{held}", flags | os.O_CLOEXEC)
        fd, name = self.where(node)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)

    # -- temporary objects in `work`

    def temporary(self) -> bytes:
        """A name that is free in `work`."""
        self._serial += 1
        return b"#%x" % self._serial

    def make_whiteout(self, fd: int, name: bytes) -> None:
        """Creates a whiteout where nothing is."""
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)

    def replace_by_whiteout(self, fd: int, name: bytes) -> None:
        """Atomically turns an object that is not a directory into a whiteout."""
        temporary = self.temporary()
        os.mknod(temporary, stat.S_IFCHR, 0, dir_fd=self.work_fd)
        os.rename(temporary, name, src_dir_fd=self.work_fd, dst_dir_fd=fd)

    def set_opaque(self, directory: Directory) -> None:
        """Hides all that lower layers have in this directory, once and for all."""
        set_opaque(self.fd(directory))


def reopen_directory(fd: int) -> int:
    """A readable descriptor of the directory that the O_PATH descriptor `fd` stands for."""
    return os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)


def set_opaque(fd: int) -> None:
    """Marks the directory as opaque."""
    os.setxattr(f"/proc/self/fd/{fd}", layer.OPAQUE_XATTR, layer.OPAQUE)


def is_opaque(fd: int) -> bool:
    """Tells whether the directory hides the layers below it."""
    try:
        return layer.is_opaque(os.getxattr(f"/proc/self/fd/{fd}", layer.OPAQUE_XATTR))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def remove_tree(dir_fd: int, name: bytes) -> None:
    """Removes a file, or a directory with all in it, never following a symlink."""
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except (IsADirectoryError, PermissionError):
        pass
    # Depth first with a stack of descriptors: trees may be deeper than Python's recursion limit.
    top = _open_for_removal(dir_fd, name)
    frames = [(top, dir_fd, name, _purge(top))]
    while frames:
        fd, above, own_name, directories = frames[-1]
        if directories:
            child = directories.pop()
            child_fd = _open_for_removal(fd, child)
            frames.append((child_fd, fd, child, _purge(child_fd)))
        else:
            frames.pop()
            os.close(fd)
            os.rmdir(own_name, dir_fd=above)


def _open_for_removal(dir_fd: int, name: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=dir_fd)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=dir_fd)
        return os.open(name, flags, dir_fd=dir_fd)


def _purge(fd: int) -> list[bytes]:
    """Unlinks all in a directory but its directories, whose names are returned."""
    directories = []
    with os.scandir(fd) as entries:
        found = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries]
    for name, is_directory in found:
        if is_directory:
            directories.append(name)
        else:
            os.unlink(name, dir_fd=fd)
    return directories
