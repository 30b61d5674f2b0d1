"""Extended attributes: those of the format are hidden, ACLs are refused (xattr(7))."""

from __future__ import annotations

import errno
import os

from sandbox.union import layer
from sandbox.union.node import Directory, Node, Place
from sandbox.union.overlay import Overlay


class Xattrs:
    """The extended attributes of an overlay's nodes."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay

    def get(self, node: Node, name: bytes) -> bytes:
        """getxattr(2). Raises OSError (ENODATA, EOPNOTSUPP, EINVAL)."""
        refusal = layer.xattr_refusal(name)
        if refusal:
            raise OSError(errno.ENODATA if refusal == errno.EPERM else refusal, "hidden")
        path = self._path(node)
        if path is None:
            if self._overlay.upper is not None:
                _require_namespace(self._overlay.root.fd, name)
            raise OSError(errno.ENODATA, "no attribute")
        try:
            return os.getxattr(path[0], name, follow_symlinks=path[1])
        finally:
            self._done(path)

    def names(self, node: Node) -> list[bytes]:
        """listxattr(2)."""
        path = self._path(node)
        if path is None:
            return []
        try:
            found = os.listxattr(path[0], follow_symlinks=path[1])
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return []
            raise
        finally:
            self._done(path)
        return [name for name in map(os.fsencode, found) if not layer.xattr_refusal(name)]

    def set(self, node: Node, name: bytes, value: bytes) -> None:
        """setxattr(2). Raises OSError (EPERM for those of the format, EOPNOTSUPP for ACLs)."""
        self._overlay.require_upper().claim(len(name) + len(value))
        path = self._writable_path(node, name)
        try:
            os.setxattr(path[0], name, value, follow_symlinks=path[1])
        finally:
            self._done(path)

    def remove(self, node: Node, name: bytes) -> None:
        """removexattr(2)."""
        path = self._writable_path(node, name, is_removal=True)
        try:
            os.removexattr(path[0], name, follow_symlinks=path[1])
        finally:
            self._done(path)

    def _writable_path(
        self, node: Node, name: bytes, *, is_removal: bool = False
    ) -> tuple[bytes, bool, int]:
        upper = self._overlay.require_upper()
        refusal = layer.xattr_refusal(name)
        if refusal:
            raise OSError(refusal, "refused")
        if node.place is not Place.UPPER:
            # What is certain to fail copies nothing up.
            _require_namespace(upper.fd(self._overlay.root), name)
            if is_removal:
                self.get(node, name)
            self._overlay.lift(node)
        path = self._path(node)
        assert path is not None
        return path

    def _path(self, node: Node) -> tuple[bytes, bool, int] | None:
        """(path, whether to follow its last part, descriptor to close or -1), None for git's.

        The *at() forms of these calls are younger than the kernels that matter, so they go
        through /proc/self/fd.
        """
        overlay = self._overlay
        if node.place is Place.UPPER:
            assert overlay.upper is not None
            if isinstance(node, Directory):
                return b"/proc/self/fd/%d" % overlay.upper.fd(node), True, -1
            if node.parent is not None:
                return b"/proc/self/fd/%d/%s" % overlay.upper.where(node), False, -1
            fd = overlay.upper.handle(node)
        elif node.place is Place.LAYER:
            fd = overlay.stack.handle(node)
        else:
            return None
        return b"/proc/self/fd/%d" % fd, True, fd

    @staticmethod
    def _done(path: tuple[bytes, bool, int]) -> None:
        if path[2] >= 0:
            os.close(path[2])


def _require_namespace(fd: int, name: bytes) -> None:
    """Raises OSError (EOPNOTSUPP, EINVAL) if the file system of a descriptor has no such names."""
    try:
        os.getxattr(b"/proc/self/fd/%d" % fd, name)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
