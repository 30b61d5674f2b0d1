"""What changes a tree: making, linking and removing files."""

from __future__ import annotations

import errno
import os
import stat

from sandbox.syscalls import RENAME_EXCHANGE, renameat2
from sandbox.union import layer
from sandbox.union.allowance import ENTRY_BYTES
from sandbox.union.node import Directory, Handle, Node, Place
from sandbox.union.overlay import Overlay
from sandbox.union.upper import Upper, remove_tree

_KEPT_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC


class Changes:
    """The changing operations of an overlay.

    `owner` is (uid, gid) of the process that asks. Whiteouts: an object made where one is, is
    made in `work` and renamed over it; an object removed that a lower layer has, is replaced by
    one.
    """

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._is_root = os.geteuid() == 0

    # -- making

    def create(
        self, parent: Directory, name: bytes, mode: int, flags: int, owner: tuple[int, int]
    ) -> Handle:
        """open(2) with O_CREAT of a name that does not exist."""
        upper, fd = self._enter(parent, name)
        covered = name in parent.covered
        at, target = (upper.work_fd, upper.temporary()) if covered else (fd, name)
        flags = flags & _KEPT_FLAGS | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(target, flags, stat.S_IMODE(mode), dir_fd=at)
        try:
            chowned = self._owner(upper, parent, fd, at, owner)
            if chowned != (-1, -1):
                os.fchown(file, *chowned)
                if mode & 0o6000:
                    os.fchmod(file, stat.S_IMODE(mode))
            if covered:
                self._uncover(upper, target, fd, name)
        except BaseException:
            os.close(file)
            os.unlink(target, dir_fd=at)
            raise
        node = self._add(parent, name, stat.S_IFREG | stat.S_IMODE(mode))
        handle = Handle(node, file)
        node.extras().handles.append(handle)
        return handle

    def create_nameless(
        self, parent: Directory, mode: int, flags: int, owner: tuple[int, int]
    ) -> Handle:
        """open(2) with O_TMPFILE. Raises OSError (EOPNOTSUPP) where the host has none."""
        overlay = self._overlay
        upper = overlay.require_upper()
        upper.claim(ENTRY_BYTES)
        overlay.lift(parent)
        fd = upper.fd(parent)
        mode = stat.S_IMODE(mode)
        flags = flags & _KEPT_FLAGS | os.O_TMPFILE | os.O_CLOEXEC
        file = os.open(b".", flags, mode, dir_fd=fd)
        try:
            chowned = self._owner(upper, parent, fd, fd, owner)
            if chowned != (-1, -1):
                os.fchown(file, *chowned)
                if mode & 0o6000:
                    os.fchmod(file, mode)
            anchor = os.open(f"/proc/self/fd/{file}", os.O_PATH | os.O_CLOEXEC)
        except BaseException:
            os.close(file)
            raise
        mode |= stat.S_IFREG
        node = Node(overlay.merge.born_ino(), mode, None, b"", Place.UPPER)
        overlay.nodes[node.ino] = node
        handle = Handle(node, file)
        node.extras().handles.append(handle)
        node.extras().anchor = anchor
        return handle

    def mknod(
        self, parent: Directory, name: bytes, mode: int, rdev: int, owner: tuple[int, int]
    ) -> Node:
        """mknod(2). Raises OSError (EPERM) for what would be a whiteout."""
        if layer.is_whiteout(mode, rdev):
            raise OSError(errno.EPERM, "a device 0:0 is a whiteout")
        upper, fd = self._enter(parent, name)
        covered = name in parent.covered
        at, target = (upper.work_fd, upper.temporary()) if covered else (fd, name)
        os.mknod(target, mode, rdev, dir_fd=at)
        self._finish(upper, parent, at, target, fd, name, owner, mode)
        return self._add(parent, name, mode)

    def symlink(
        self, parent: Directory, name: bytes, target: bytes, owner: tuple[int, int]
    ) -> Node:
        """symlink(2)."""
        upper, fd = self._enter(parent, name)
        covered = name in parent.covered
        at, temporary = (upper.work_fd, upper.temporary()) if covered else (fd, name)
        os.symlink(target, temporary, dir_fd=at)
        self._finish(upper, parent, at, temporary, fd, name, owner, 0)
        return self._add(parent, name, stat.S_IFLNK | 0o777)

    def mkdir(self, parent: Directory, name: bytes, mode: int, owner: tuple[int, int]) -> Directory:
        """mkdir(2). Over a whiteout the directory is opaque: nothing old shines through."""
        upper, fd = self._enter(parent, name)
        covered = name in parent.covered
        at, target = (upper.work_fd, upper.temporary()) if covered else (fd, name)
        mode = stat.S_IMODE(mode)
        if parent.mode & stat.S_ISGID:
            mode |= stat.S_ISGID
        os.mkdir(target, mode & 0o1777, dir_fd=at)
        try:
            chowned = self._owner(upper, parent, fd, at, owner)
            if chowned != (-1, -1):
                os.chown(target, *chowned, dir_fd=at, follow_symlinks=False)
            if mode & 0o6000:
                os.chmod(target, mode, dir_fd=at)
            if covered:
                new = os.open(
                    target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at
                )
                try:
                    os.setxattr(f"/proc/self/fd/{new}", layer.OPAQUE_XATTR, layer.OPAQUE)
                finally:
                    os.close(new)
                renameat2(target, name, RENAME_EXCHANGE, old_dir_fd=at, new_dir_fd=fd)
                os.unlink(target, dir_fd=at)
        except BaseException:
            remove_tree(at, target)
            raise
        node = Directory(
            self._overlay.merge.born_ino(), stat.S_IFDIR | mode, parent, name, Place.UPPER
        )
        node.children = {}
        self._insert(parent, name, node)
        return node

    def link(self, node: Node, parent: Directory, name: bytes) -> None:
        """link(2)."""
        overlay = self._overlay
        upper, fd = self._enter(parent, name)
        overlay.lift(node)
        fd = upper.fd(parent)
        covered = name in parent.covered
        at, target = (upper.work_fd, upper.temporary()) if covered else (fd, name)
        extra = node.extras()
        is_nameless = node.parent is None
        if is_nameless:
            # Of O_TMPFILE. linkat(2) refuses a file whose link count has fallen to zero.
            if extra.anchor < 0:
                raise OSError(errno.ENOENT, "unlinked")
            os.link(f"/proc/self/fd/{extra.anchor}", target, dst_dir_fd=at, follow_symlinks=True)
        else:
            source_fd, source = upper.where(node)
            os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=at, follow_symlinks=False)
        if covered:
            self._uncover(upper, target, fd, name)
        if is_nameless:
            node.parent, node.name = parent, name
            os.close(extra.anchor)
            extra.anchor = -1
            self._insert(parent, name, node)
            return
        assert node.parent is not None
        if not extra.links:
            extra.links.append((node.parent, node.name))
            overlay.merge.know_hard_link(node, upper.status(node).st_ino)
        extra.links.append((parent, name))
        self._insert(parent, name, node)

    def _enter(self, parent: Directory, name: bytes) -> tuple[Upper, int]:
        """Gets a directory ready for a new name in it."""
        overlay = self._overlay
        upper = overlay.require_upper()
        if len(name) > layer.NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, "name too long")
        if parent.parent is None and parent is not overlay.root:
            raise OSError(errno.ENOENT, "directory is gone")
        if name in overlay.children(parent):
            raise OSError(errno.EEXIST, "exists")
        upper.claim(ENTRY_BYTES)
        overlay.lift(parent)
        return upper, upper.fd(parent)

    def _owner(
        self, upper: Upper, parent: Directory, fd: int, at: int, owner: tuple[int, int]
    ) -> tuple[int, int]:
        """The arguments of chown(2) that give a new file to `owner`, -1 for what is right."""
        uid, gid = owner
        inherits = bool(parent.mode & stat.S_ISGID)
        if not self._is_root:
            return (-1, -1)
        if inherits:
            gid = os.fstat(fd).st_gid
        # What is made in `work` inherits nothing.
        given = gid if inherits and at == fd else upper.gid
        if (uid, gid) == (upper.uid, given):
            return (-1, -1)
        return (uid, gid)

    def _finish(
        self,
        upper: Upper,
        parent: Directory,
        at: int,
        target: bytes,
        fd: int,
        name: bytes,
        owner: tuple[int, int],
        mode: int,
    ) -> None:
        try:
            chowned = self._owner(upper, parent, fd, at, owner)
            if chowned != (-1, -1):
                os.chown(target, *chowned, dir_fd=at, follow_symlinks=False)
                if mode & 0o6000:
                    os.chmod(target, stat.S_IMODE(mode), dir_fd=at)
            if at != fd:
                self._uncover(upper, target, fd, name)
        except BaseException:
            os.unlink(target, dir_fd=at)
            raise

    def _uncover(self, upper: Upper, temporary: bytes, fd: int, name: bytes) -> None:
        os.rename(temporary, name, src_dir_fd=upper.work_fd, dst_dir_fd=fd)

    def _add(self, parent: Directory, name: bytes, mode: int) -> Node:
        node = Node(self._overlay.merge.born_ino(), mode, parent, name, Place.UPPER)
        self._insert(parent, name, node)
        return node

    def _insert(self, parent: Directory, name: bytes, node: Node) -> None:
        assert parent.children is not None
        parent.children[name] = node
        self._overlay.nodes[node.ino] = node

    # -- removing

    def unlink(self, parent: Directory, name: bytes) -> None:
        """unlink(2)."""
        overlay = self._overlay
        upper = overlay.require_upper()
        children = overlay.children(parent)
        node = children.get(name)
        if node is None:
            raise OSError(errno.ENOENT, "no such name")
        if isinstance(node, Directory):
            raise OSError(errno.EISDIR, "is a directory")
        overlay.lift(parent)
        if node.extra is not None and node.extra.links:
            # What remains has one name less, which a layer cannot say.
            overlay.lift(node)
        fd = upper.fd(parent)
        upper.note_freed()
        overlay.anchor(node)
        if node.place is not Place.UPPER:
            upper.make_whiteout(fd, name)
            parent.cover(name)
        elif name in parent.covered:
            upper.replace_by_whiteout(fd, name)
        else:
            os.unlink(name, dir_fd=fd)
        del children[name]
        overlay.lose_name(node, parent, name)

    def rmdir(self, parent: Directory, name: bytes) -> None:
        """rmdir(2). Raises OSError (EBUSY) for a directory at or above a graft."""
        overlay = self._overlay
        upper = overlay.require_upper()
        children = overlay.children(parent)
        node = children.get(name)
        if node is None:
            raise OSError(errno.ENOENT, "no such name")
        if not isinstance(node, Directory):
            raise OSError(errno.ENOTDIR, "not a directory")
        if node.pinned:
            raise OSError(errno.EBUSY, "a graft")
        if overlay.children(node):
            raise OSError(errno.ENOTEMPTY, "not empty")
        overlay.lift(parent)
        fd = upper.fd(parent)
        upper.note_freed()
        overlay.anchor(node)
        if node.place is not Place.UPPER:
            upper.make_whiteout(fd, name)
            parent.cover(name)
        elif name in parent.covered:
            temporary = upper.temporary()
            upper.make_whiteout(upper.work_fd, temporary)
            renameat2(temporary, name, RENAME_EXCHANGE, old_dir_fd=upper.work_fd, new_dir_fd=fd)
            remove_tree(upper.work_fd, temporary)
        else:
            self._remove_empty(upper, fd, name)
        del children[name]
        overlay.lose_name(node, parent, name)

    @staticmethod
    def _remove_empty(upper: Upper, fd: int, name: bytes) -> None:
        try:
            os.rmdir(name, dir_fd=fd)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Whiteouts that an earlier mount of this upper directory left behind.
            temporary = upper.temporary()
            os.rename(name, temporary, src_dir_fd=fd, dst_dir_fd=upper.work_fd)
            remove_tree(upper.work_fd, temporary)
