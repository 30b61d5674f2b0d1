"""Translates the rarer FUSE requests, as pyfuse3 hands them over, into operations of the overlay.

The others are answered before they come here (`sandbox.mount.express`).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

import pyfuse3
from pyfuse3 import EntryAttributes, FUSEError, RequestContext

from sandbox.mount.handle import Handles
from sandbox.mount.reply import FOR_EVER_S
from sandbox.union import layer
from sandbox.union.change import Changes
from sandbox.union.counter import Counter, Kind
from sandbox.union.node import Node
from sandbox.union.overlay import Overlay
from sandbox.union.rename import Renames
from sandbox.union.xattr import Xattrs

_log = logging.getLogger("nanosup.mount")


def _failure(error: Exception) -> FUSEError:
    if isinstance(error, OSError) and error.errno:
        return FUSEError(error.errno)
    _log.error("unexpected failure", exc_info=error)
    return FUSEError(errno.EIO)


class Adapter(pyfuse3.Operations):
    """The handlers. None of them ever suspends."""

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, overlay: Overlay, counter: Counter) -> None:
        super().__init__()
        self._overlay = overlay
        self.changes = Changes(overlay)
        self._renames = Renames(overlay)
        self._xattrs = Xattrs(overlay)
        self._counts = counter.totals
        self.handles = Handles()
        self._has_xattrs = overlay.is_writable or overlay.has_layers
        # Filled in anew for each answer: pyfuse3 has copied the last one to the kernel by then.
        self._entry = EntryAttributes()
        self._entry.entry_timeout = FOR_EVER_S
        self._entry.attr_timeout = FOR_EVER_S
        self._entry.st_blksize = 4096

    # -- attributes

    def _fill(self, node: Node) -> EntryAttributes:
        found = self._overlay.attributes(node)
        entry = self._entry
        entry.st_ino = node.ino
        entry.st_mode = found.mode
        entry.st_nlink = found.nlink
        entry.st_uid = found.uid
        entry.st_gid = found.gid
        entry.st_rdev = found.rdev
        entry.st_size = found.size
        entry.st_blocks = found.blocks
        entry.st_atime_ns = found.atime_ns
        entry.st_mtime_ns = found.mtime_ns
        entry.st_ctime_ns = found.ctime_ns
        return entry

    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        self._counts[Kind.READLINK] += 1
        try:
            return self._overlay.readlink(self._overlay.node(inode))
        except Exception as error:
            raise _failure(error) from None

    async def fsync(self, fh: int, datasync: bool) -> None:
        self._counts[Kind.FSYNC] += 1
        try:
            handle = self.handles.get(fh)
            # Where the kernel opens files by itself there is none, and nothing to be written.
            if handle is not None:
                self._overlay.fsync(handle, data_only=datasync)
        except Exception as error:
            raise _failure(error) from None

    # -- changes of the tree

    def _made(self, node: Node) -> EntryAttributes:
        entry = self._fill(node)
        node.lookups += 1
        return entry

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        self._counts[Kind.CREATE] += 1
        try:
            parent = self._overlay.directory(parent_inode)
            return self._made(self.changes.mknod(parent, name, mode, rdev, (ctx.uid, ctx.gid)))
        except Exception as error:
            raise _failure(error) from None

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        self._counts[Kind.CREATE] += 1
        try:
            parent = self._overlay.directory(parent_inode)
            return self._made(self.changes.symlink(parent, name, target, (ctx.uid, ctx.gid)))
        except Exception as error:
            raise _failure(error) from None

    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        self._counts[Kind.CREATE] += 1
        try:
            node = self._overlay.node(inode)
            parent = self._overlay.directory(new_parent_inode)
            self.changes.link(node, parent, new_name)
            return self._made(node)
        except Exception as error:
            raise _failure(error) from None

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        self._counts[Kind.RENAME] += 1
        try:
            self._overlay.trim()
            old_parent = self._overlay.directory(parent_inode_old)
            new_parent = self._overlay.directory(parent_inode_new)
            self._renames.rename(old_parent, name_old, new_parent, name_new, flags)
        except Exception as error:
            raise _failure(error) from None

    # -- the rest

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        self._counts[Kind.STATFS] += 1
        try:
            found = self._overlay.statfs()
        except Exception as error:
            raise _failure(error) from None
        data = pyfuse3.StatvfsData()
        data.f_bsize, data.f_frsize = found.f_bsize, found.f_frsize
        data.f_blocks, data.f_bfree, data.f_bavail = (
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
        )
        data.f_files, data.f_ffree, data.f_favail = found.f_files, found.f_ffree, found.f_favail
        allowance = self._overlay.upper and self._overlay.upper.allowance
        if allowance:
            left = allowance.left_bytes // data.f_frsize
            data.f_blocks = allowance.limit_bytes // data.f_frsize
            data.f_bfree, data.f_bavail = min(left, data.f_bfree), min(left, data.f_bavail)
        data.f_namemax = layer.NAME_MAX
        return data

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        self._counts[Kind.XATTR] += 1
        if not self._has_xattrs:
            # The kernel never asks again.
            raise FUSEError(errno.ENOSYS)
        try:
            return self._xattrs.get(self._overlay.node(inode), name)
        except Exception as error:
            raise _failure(error) from None

    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        self._counts[Kind.XATTR] += 1
        if not self._has_xattrs:
            raise FUSEError(errno.ENOSYS)
        try:
            return self._xattrs.names(self._overlay.node(inode))
        except Exception as error:
            raise _failure(error) from None

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        self._counts[Kind.XATTR] += 1
        try:
            self._xattrs.set(self._overlay.node(inode), name, value)
        except Exception as error:
            raise _failure(error) from None

    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        self._counts[Kind.XATTR] += 1
        try:
            self._xattrs.remove(self._overlay.node(inode), name)
        except Exception as error:
            raise _failure(error) from None
