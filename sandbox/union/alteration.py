"""What alters a file: its mode, its owner, its size, its times."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from sandbox.syscalls import AT_SYMLINK_NOFOLLOW, fchmodat2
from sandbox.union.attributes import Change
from sandbox.union.caller import Caller
from sandbox.union.node import Directory, Handle, Node, Place
from sandbox.union.overlay import Overlay, drop_privilege
from sandbox.union.upper import Upper

_NO_CHANGE = Change()


class Alterations:
    """The operations of an overlay that alter one file."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._chmods_by_name = True

    def setattr(self, node: Node, change: Change, handle: Handle | None, caller: Caller) -> None:
        """chmod(2), chown(2), truncate(2), utimensat(2), in any combination.

        Nothing at all is chown(2) with -1 for both.
        """
        overlay = self._overlay
        upper = overlay.require_upper()
        if (
            change == _NO_CHANGE
            and node.mode & 0o6000
            and not isinstance(node, Directory)
            and not caller.is_privileged
            and overlay.attributes(node).uid != caller.uid
        ):
            # The kernel says the same before each write to such a file, by anybody; the bits
            # are then taken away by the write.
            return
        if change.size is not None:
            upper.note_freed()
        if change.mode is not None and node.place is not Place.UPPER and _is_of_mode(node, change):
            self._lift_with(node, change.mode)
            change = change._replace(mode=None)
            if change == _NO_CHANGE:
                return
        overlay.lift(node, size=change.size)
        if change.size is not None:
            self._truncate(node, change.size, handle, caller)
        if change.uid is not None or change.gid is not None or change == _NO_CHANGE:
            self._chown(
                upper,
                node,
                -1 if change.uid is None else change.uid,
                -1 if change.gid is None else change.gid,
            )
        if change.mode is not None:
            self._chmod(upper, node, change.mode)
        if change.atime_ns is not None or change.mtime_ns is not None:
            self._utime(upper, node, change)

    def _lift_with(self, node: Node, mode: int) -> None:
        """Copies a file up as one that has this mode already."""
        before = node.mode
        node.mode = stat.S_IFREG | stat.S_IMODE(mode)
        try:
            self._overlay.lift(node)
        except BaseException:
            node.mode = before
            raise

    def _truncate(self, node: Node, size: int, handle: Handle | None, caller: Caller) -> None:
        own = handle is None or handle.fd < 0
        fd = self._overlay.upper.open(node, os.O_WRONLY) if own else handle.fd  # type: ignore[union-attr]
        try:
            os.ftruncate(fd, size)
            drop_privilege(node, fd, caller)
        finally:
            if own:
                os.close(fd)

    def _chown(self, upper: Upper, node: Node, uid: int, gid: int) -> None:
        if isinstance(node, Directory):
            os.chown(f"/proc/self/fd/{upper.fd(node)}", uid, gid)
        elif node.parent is not None:
            fd, name = upper.where(node)
            os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        else:
            self._on_descriptor(upper, node, lambda path: os.chown(path, uid, gid))
        if not stat.S_ISLNK(node.mode) and node.mode & 0o6000:
            node.mode = upper.status(node).st_mode

    def _chmod(self, upper: Upper, node: Node, mode: int) -> None:
        mode = stat.S_IMODE(mode)
        if isinstance(node, Directory):
            os.chmod(f"/proc/self/fd/{upper.fd(node)}", mode)
        elif node.extra is not None and node.extra.handles and node.extra.handles[0].fd >= 0:
            os.fchmod(node.extra.handles[0].fd, mode)
        elif node.parent is not None and self._chmods_by_name:
            fd, name = upper.where(node)
            try:
                fchmodat2(fd, name, mode, AT_SYMLINK_NOFOLLOW)
            except OSError as error:
                if error.errno != errno.ENOSYS:  # before Linux 6.6
                    raise
                self._chmods_by_name = False
                self._chmod(upper, node, mode)
        else:
            self._on_descriptor(upper, node, lambda path: os.chmod(path, mode))
        node.mode = stat.S_IFMT(node.mode) | mode

    def _utime(self, upper: Upper, node: Node, change: Change) -> None:
        atime_ns, mtime_ns = change.atime_ns, change.mtime_ns
        if atime_ns is None or mtime_ns is None:
            status = upper.status(node)
            atime_ns = status.st_atime_ns if atime_ns is None else atime_ns
            mtime_ns = status.st_mtime_ns if mtime_ns is None else mtime_ns
        times = (atime_ns, mtime_ns)
        if isinstance(node, Directory):
            os.utime(f"/proc/self/fd/{upper.fd(node)}", ns=times)
        elif node.parent is not None:
            fd, name = upper.where(node)
            os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
        else:
            self._on_descriptor(upper, node, lambda path: os.utime(path, ns=times))

    @staticmethod
    def _on_descriptor(upper: Upper, node: Node, act: Callable[[str], None]) -> None:
        fd = upper.handle(node)
        try:
            act(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)


def _is_of_mode(node: Node, change: Change) -> bool:
    """Whether a regular file gets another mode, and perhaps other times; nothing else.

    A change of owner takes bits of the mode away, so the mode comes after it.
    """
    return stat.S_ISREG(node.mode) and change.size is change.uid is change.gid is None
