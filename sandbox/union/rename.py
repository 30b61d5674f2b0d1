"""rename(2) in all its forms.

Whatever is renamed is lifted first, a directory with all that is below it, so that the rename
itself is one atomic call in the upper directory. No redirect is ever recorded: a layer stays
mountable by the kernel with `userxattr`.
"""

from __future__ import annotations

import errno
import os

from sandbox.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2
from sandbox.union.node import Directory, Node, Place
from sandbox.union.overlay import Overlay
from sandbox.union.upper import Upper


class Renames:
    """The renaming operations of an overlay."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay

    def rename(
        self,
        old_parent: Directory,
        old_name: bytes,
        new_parent: Directory,
        new_name: bytes,
        flags: int,
    ) -> None:
        """renameat2(2) with RENAME_NOREPLACE, RENAME_EXCHANGE or neither.

        Raises OSError: EBUSY for a directory at or above a graft, EINVAL for other flags.
        """
        overlay = self._overlay
        upper = overlay.require_upper()
        upper.note_freed()
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise OSError(errno.EINVAL, "unknown flags")
        if len(new_name) > 255:
            raise OSError(errno.ENAMETOOLONG, "name too long")
        node = overlay.children(old_parent).get(old_name)
        target = overlay.children(new_parent).get(new_name)
        if node is None or (target is None and flags == RENAME_EXCHANGE):
            raise OSError(errno.ENOENT, "no such name")
        if target is not None and flags == RENAME_NOREPLACE:
            raise OSError(errno.EEXIST, "exists")
        if node is target:
            return
        for each in (node, target):
            if isinstance(each, Directory) and each.pinned:
                raise OSError(errno.EBUSY, "a graft")
        if target is not None and flags != RENAME_EXCHANGE:
            self._check_replaceable(node, target)
        overlay.lift(old_parent)
        overlay.lift(new_parent)
        self._free(node)
        if flags == RENAME_EXCHANGE:
            assert target is not None
            self._free(target)
            self._exchange(upper, node, old_parent, old_name, target, new_parent, new_name)
            return
        self._move(upper, node, old_parent, old_name, target, new_parent, new_name)

    def _check_replaceable(self, node: Node, target: Node) -> None:
        if isinstance(target, Directory):
            if not isinstance(node, Directory):
                raise OSError(errno.EISDIR, "is a directory")
            if self._overlay.children(target):
                raise OSError(errno.ENOTEMPTY, "not empty")
        elif isinstance(node, Directory):
            raise OSError(errno.ENOTDIR, "not a directory")

    def _free(self, node: Node) -> None:
        """Makes a node independent of its place in lower layers."""
        if isinstance(node, Directory):
            self._overlay.copy_up.materialise(node)
        else:
            self._overlay.lift(node)

    def _exchange(
        self,
        upper: Upper,
        node: Node,
        old_parent: Directory,
        old_name: bytes,
        target: Node,
        new_parent: Directory,
        new_name: bytes,
    ) -> None:
        if isinstance(node, Directory) and new_name in new_parent.covered:
            upper.set_opaque(node)
        if isinstance(target, Directory) and old_name in old_parent.covered:
            upper.set_opaque(target)
        old_fd, new_fd = upper.fd(old_parent), upper.fd(new_parent)
        renameat2(old_name, new_name, RENAME_EXCHANGE, old_dir_fd=old_fd, new_dir_fd=new_fd)
        self._settle(node, old_parent, old_name, new_parent, new_name)
        self._settle(target, new_parent, new_name, old_parent, old_name)

    def _move(
        self,
        upper: Upper,
        node: Node,
        old_parent: Directory,
        old_name: bytes,
        target: Node | None,
        new_parent: Directory,
        new_name: bytes,
    ) -> None:
        overlay = self._overlay
        if target is not None and target.extra is not None and target.extra.links:
            # What remains of it has one name less, which a layer cannot say.
            overlay.lift(target)
        covers = new_name in new_parent.covered
        if target is not None:
            overlay.anchor(target)
            if target.place is not Place.UPPER:
                covers = True
            elif isinstance(target, Directory) and (target.is_merged or target.covered):
                # Only whiteouts are in it; they would make the rename fail with ENOTEMPTY.
                overlay.copy_up.seal_off(target)
        if covers and isinstance(node, Directory):
            upper.set_opaque(node)
        old_fd, new_fd = upper.fd(old_parent), upper.fd(new_parent)
        leaves_whiteout = old_name in old_parent.covered
        lands_on_whiteout = target is None and new_name in new_parent.covered
        if lands_on_whiteout and isinstance(node, Directory):
            # A directory cannot replace a device, but it can change places with it.
            renameat2(old_name, new_name, RENAME_EXCHANGE, old_dir_fd=old_fd, new_dir_fd=new_fd)
            if not leaves_whiteout:
                os.unlink(old_name, dir_fd=old_fd)
        elif leaves_whiteout:
            renameat2(old_name, new_name, RENAME_WHITEOUT, old_dir_fd=old_fd, new_dir_fd=new_fd)
        else:
            os.rename(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)
        assert old_parent.children is not None
        del old_parent.children[old_name]
        if covers:
            new_parent.cover(new_name)
        if target is not None:
            overlay.lose_name(target, new_parent, new_name)
        self._settle(node, old_parent, old_name, new_parent, new_name)

    def _settle(
        self,
        node: Node,
        old_parent: Directory,
        old_name: bytes,
        new_parent: Directory,
        new_name: bytes,
    ) -> None:
        assert new_parent.children is not None
        new_parent.children[new_name] = node
        links = node.extra.links if node.extra is not None else None
        if links:
            links[links.index((old_parent, old_name))] = (new_parent, new_name)
        if node.parent is old_parent and node.name == old_name:
            node.parent, node.name = new_parent, new_name
