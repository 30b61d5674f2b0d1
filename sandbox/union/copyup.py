"""Copy-up: the first change to lower content moves it into the upper directory.

Each object is made complete in `work` and renamed into place, so that a server killed at any
moment leaves either nothing or all of it.
"""

from __future__ import annotations

import errno
import os
import stat

from sandbox.union import layer
from sandbox.union.allowance import ENTRY_BYTES
from sandbox.union.blob import Blobs
from sandbox.union.merge import Merge
from sandbox.union.node import Directory, Node, Place
from sandbox.union.stack import LayerStack
from sandbox.union.upper import Upper, set_opaque

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 30


class CopyUp:
    """Lifts nodes into the upper directory."""

    def __init__(
        self,
        upper: Upper,
        stack: LayerStack,
        blobs: Blobs,
        merge: Merge,
        *,
        uid: int,
        gid: int,
        epoch_ns: int,
    ) -> None:
        self._upper = upper
        self._stack = stack
        self._blobs = blobs
        self._merge = merge
        self._uid = uid
        self._gid = gid
        self._epoch_ns = epoch_ns
        self._is_root = os.geteuid() == 0

    def lift(self, node: Node, *, size: int | None = None) -> None:
        """Puts a node, and the directories above it, into the upper directory.

        `size` bounds how much of a regular file's content is worth copying: the caller is
        about to truncate it.
        """
        if node.place is Place.UPPER:
            return
        if node.parent is None:
            self._lift_unlinked(node)
            return
        chain: list[Node] = [node]
        above = node.parent
        while above.place is not Place.UPPER:
            chain.append(above)
            if above.parent is None:
                raise OSError(errno.ENOENT, "directory is gone")
            above = above.parent
        for each in reversed(chain):
            self._lift_one(each, size)

    def _lift_names(self, node: Node) -> None:
        """Gives a file that was just lifted its other names, which are in lower layers."""
        for directory, name in list(node.extras().links):
            if directory is node.parent and name == node.name:
                continue
            self.lift(directory)
            fd = self._upper.fd(directory)
            before = os.fstat(fd)
            source, known = self._upper.where(node)
            os.link(known, name, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
            _give_times_back(fd, before)
            directory.cover(name)
        self._merge.know_hard_link(node, self._upper.status(node).st_ino)

    def _lift_one(self, node: Node, size: int | None) -> None:
        upper = self._upper
        parent = node.parent
        assert parent is not None
        if node.place is Place.GRAFT and not self._leads_to_graft(node):
            raise OSError(errno.EROFS, "a graft is not part of the layer")
        has_links = node.place is Place.LAYER and node.extra is not None and node.extra.links
        if has_links:
            self._merge.complete_links(node)
        upper.claim(ENTRY_BYTES)
        parent_fd = upper.fd(parent)
        before = os.fstat(parent_fd)
        temporary = upper.temporary()
        if isinstance(node, Directory):
            self._copy_directory(node, temporary)
        elif stat.S_ISREG(node.mode):
            self._copy_file(node, temporary, size)
        else:
            self._copy_special(node, temporary)
        self._move_into_place(temporary, parent_fd, node)
        # Copy-up is no change of the directory that holds the name.
        _give_times_back(parent_fd, before)
        if node.place is not Place.GRAFT:
            parent.cover(node.name)
        self._arrive(node)
        if has_links:
            self._lift_names(node)

    def _leads_to_graft(self, node: Node) -> bool:
        assert isinstance(node, Directory)
        children = node.children if node.children is not None else self._merge.load(node)
        return any(isinstance(c, Directory) and c.pinned for c in children.values())

    def _arrive(self, node: Node) -> None:
        node.place = Place.UPPER
        node.layer = -1
        if isinstance(node, Directory):
            return
        node.oid = None
        extra = node.extra
        if extra is not None:
            if extra.anchor >= 0 and node.parent is not None:
                os.close(extra.anchor)
                extra.anchor = -1
            for handle in extra.handles:
                fd = self._upper.open(node, os.O_RDONLY)
                if handle.fd >= 0:
                    os.close(handle.fd)
                handle.fd = fd
                handle.data = None

    def _move_into_place(self, temporary: bytes, parent_fd: int, node: Node) -> None:
        work_fd = self._upper.work_fd
        try:
            os.rename(temporary, node.name, src_dir_fd=work_fd, dst_dir_fd=parent_fd)
        except PermissionError:
            # Moving a directory rewrites its "..": its owner needs write permission for that.
            mode = stat.S_IMODE(node.mode)
            os.chmod(temporary, mode | stat.S_IRWXU, dir_fd=work_fd)
            os.rename(temporary, node.name, src_dir_fd=work_fd, dst_dir_fd=parent_fd)
            os.chmod(node.name, mode, dir_fd=parent_fd)

    # -- kinds of nodes

    def _copy_directory(self, node: Directory, temporary: bytes) -> None:
        work_fd = self._upper.work_fd
        os.mkdir(temporary, 0o700, dir_fd=work_fd)
        if node.place is Place.LAYER:
            status = self._stack.status(node)
            source = self._stack.fd(node, node.layers[0])
            # xattrs need a real path: O_PATH descriptors refuse them.
            self._copy_xattrs(f"/proc/self/fd/{source}", self._temporary_path(temporary))
            self._chown(temporary, status.st_uid, status.st_gid)
            times = (status.st_atime_ns, status.st_mtime_ns)
        else:
            self._chown(temporary, self._uid, self._gid)
            times = (self._epoch_ns, self._epoch_ns)
        os.chmod(temporary, stat.S_IMODE(node.mode), dir_fd=work_fd)
        os.utime(temporary, ns=times, dir_fd=work_fd, follow_symlinks=False)

    def _copy_file(self, node: Node, temporary: bytes, size: int | None) -> None:
        fd = os.open(temporary, _CREATE, 0o600, dir_fd=self._upper.work_fd)
        try:
            self._fill(node, fd, size)
        except BaseException:
            os.unlink(temporary, dir_fd=self._upper.work_fd)
            raise
        finally:
            os.close(fd)

    def _fill(self, node: Node, fd: int, size: int | None) -> None:
        if node.place is Place.TREE:
            if size != 0:
                data = self._blobs.content(node)
                data = data if size is None else data[:size]
                self._upper.claim(len(data))
                write_all(fd, data)
            uid, gid = self._uid, self._gid
            times = (self._epoch_ns, self._epoch_ns)
        else:
            source = self._stack.open(node)
            try:
                status = os.fstat(source)
                length = status.st_size if size is None else min(size, status.st_size)
                self._upper.claim(min(length, status.st_blocks * 512))
                copy_sparse(source, fd, length)
                self._copy_xattrs(f"/proc/self/fd/{source}", f"/proc/self/fd/{fd}")
            finally:
                os.close(source)
            uid, gid = self._owner(status.st_uid, status.st_gid)
            times = (status.st_atime_ns, status.st_mtime_ns)
        if (uid, gid) != (self._upper.uid, self._upper.gid):
            os.fchown(fd, uid, gid)
        os.fchmod(fd, stat.S_IMODE(node.mode))
        os.utime(fd, ns=times)

    def _copy_special(self, node: Node, temporary: bytes) -> None:
        work_fd = self._upper.work_fd
        if node.place is Place.TREE:
            os.symlink(self._blobs.content(node), temporary, dir_fd=work_fd)
            self._chown(temporary, self._uid, self._gid)
            times = (self._epoch_ns, self._epoch_ns)
        else:
            status = self._stack.status(node)
            if stat.S_ISLNK(node.mode):
                os.symlink(self._stack.readlink(node), temporary, dir_fd=work_fd)
            else:
                os.mknod(temporary, node.mode, status.st_rdev, dir_fd=work_fd)
            source = self._stack.handle(node)
            try:
                if not stat.S_ISLNK(node.mode):
                    self._copy_xattrs(f"/proc/self/fd/{source}", self._temporary_path(temporary))
            finally:
                os.close(source)
            self._chown(temporary, status.st_uid, status.st_gid)
            if not stat.S_ISLNK(node.mode):
                os.chmod(temporary, stat.S_IMODE(node.mode), dir_fd=work_fd)
            times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(temporary, ns=times, dir_fd=work_fd, follow_symlinks=False)

    def _lift_unlinked(self, node: Node) -> None:
        """Gives an unlinked but still open file a nameless copy of its own."""
        if not stat.S_ISREG(node.mode):
            raise OSError(errno.ENOENT, "file is gone")
        work_fd = self._upper.work_fd
        temporary = self._upper.temporary()
        self._copy_file(node, temporary, None)
        anchor = os.open(temporary, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=work_fd)
        os.unlink(temporary, dir_fd=work_fd)
        extra = node.extras()
        if extra.anchor >= 0:
            os.close(extra.anchor)
        extra.anchor = anchor
        self._arrive(node)

    # -- attributes

    def _owner(self, uid: int, gid: int) -> tuple[int, int]:
        return (uid, gid) if self._is_root else (self._uid, self._gid)

    def _chown(self, temporary: bytes, uid: int, gid: int) -> None:
        uid, gid = self._owner(uid, gid)
        if (uid, gid) != (self._upper.uid, self._upper.gid):
            os.chown(temporary, uid, gid, dir_fd=self._upper.work_fd, follow_symlinks=False)

    def _temporary_path(self, temporary: bytes) -> str:
        return f"/proc/self/fd/{self._upper.work_fd}/{os.fsdecode(temporary)}"

    def _copy_xattrs(self, source: str, target: str) -> None:
        try:
            names = os.listxattr(source)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return
            raise
        for name in names:
            if layer.xattr_refusal(os.fsencode(name)):
                continue
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except PermissionError:
                # security.* and trusted.* are the host's; an ordinary user may not carry them.
                if name.startswith("user."):
                    raise

    # -- whole directories

    def materialise(self, top: Directory) -> None:
        """Makes a directory independent of all layers, so that it can be renamed.

        The merged view stays the same at every step: first everything below is lifted in place,
        then each directory is made opaque, and only then are whiteouts that hide nothing
        removed. What remains for the caller is one atomic rename.
        """
        self.lift(top)
        pending = [top]
        merged: list[Directory] = []
        while pending:
            directory = pending.pop()
            children = directory.children
            if children is None:
                children = self._merge.load(directory)
            if directory.is_merged:
                merged.append(directory)
            for child in children.values():
                self.lift(child)
                if isinstance(child, Directory):
                    pending.append(child)
            self._upper.trim_if_many()
            self._stack.trim_if_many()
        for directory in merged:
            self.seal_off(directory)

    def seal_off(self, directory: Directory) -> None:
        """Makes a directory opaque, of which nothing that shows is in a lower layer."""
        fd = self._upper.fd(directory)
        set_opaque(fd)
        directory.layers, directory.oid = (), None
        assert directory.children is not None
        whiteouts = directory.covered - directory.children.keys()
        if whiteouts:
            before = os.fstat(fd)
            for name in whiteouts:
                os.unlink(name, dir_fd=fd)
            # Nobody has seen them: to remove them is no change of the directory.
            _give_times_back(fd, before)
        directory.covered = set()


def _give_times_back(directory_fd: int, before: os.stat_result) -> None:
    os.utime(b".", ns=(before.st_atime_ns, before.st_mtime_ns), dir_fd=directory_fd)


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data` at the start of the file."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        at += os.pwrite(fd, view[at : at + _CHUNK_BYTES], at)


def copy_sparse(source: int, target: int, size: int) -> None:
    """Copies the first `size` bytes, leaving holes as holes (lseek(2), SEEK_DATA)."""
    at = 0
    while at < size:
        try:
            data = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        hole = min(os.lseek(source, data, os.SEEK_HOLE), size)
        at = data
        while at < hole:
            copied = _copy_range(source, target, at, min(hole - at, _CHUNK_BYTES))
            if copied == 0:
                break
            at += copied
        at = max(at, hole)
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, at: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count, at, at)
    except OSError as error:
        # Layers on another file system, or one without it.
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return os.pwrite(target, os.pread(source, min(count, 1 << 20), at), at)
