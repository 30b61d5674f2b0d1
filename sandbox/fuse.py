"""Translates FUSE requests, as pyfuse3 hands them over, into operations of the overlay."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from sandbox import layer
from sandbox.attributes import Change
from sandbox.caller import Caller, locks_by_group
from sandbox.change import Changes
from sandbox.counter import Counter, Kind
from sandbox.handle import Handles
from sandbox.node import Directory, Handle, Node, Place
from sandbox.overlay import Overlay
from sandbox.rename import Renames
from sandbox.xattr import Xattrs

_log = logging.getLogger("nanosup.mount")

# All changes go through this server, so what the kernel was told stays true.
_FOR_EVER_S = 31_536_000

_LOOKUP = int(Kind.LOOKUP)
_GETATTR = int(Kind.GETATTR)
_READDIR = int(Kind.READDIR)
_OPENDIR = int(Kind.OPENDIR)
_OPEN = int(Kind.OPEN)
_READ = int(Kind.READ)
_READ_BYTES = int(Kind.READ_BYTES)
_RELEASE = int(Kind.RELEASE)
_WRITE = int(Kind.WRITE)
_WRITE_BYTES = int(Kind.WRITE_BYTES)
_ENTRY = int(Kind.ENTRY)
_FORGET = int(Kind.FORGET)


class _Listing:
    """An open directory: who is read, and what was in it when reading began."""

    __slots__ = ("directory", "names")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.names: list[bytes] = []


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
        self._changes = Changes(overlay)
        self._renames = Renames(overlay)
        self._xattrs = Xattrs(overlay)
        self._nodes = overlay.nodes
        self._counts = counter.totals
        self.handles = Handles()
        self._listings: dict[int, _Listing] = {}
        self._serial = 0
        self._has_xattrs = overlay.is_writable or overlay.has_layers
        self._file_info = FileInfo(keep_cache=True)
        self._absent = self._entry()
        # One object for each kind of answer, filled in anew: pyfuse3 has copied the last one to
        # the kernel before it asks again, and making one costs more than filling it.
        self._tree_entry = self._entry()
        self._tree_entry.st_uid = overlay.uid
        self._tree_entry.st_gid = overlay.gid
        self._tree_entry.st_atime_ns = overlay.epoch_ns
        self._tree_entry.st_mtime_ns = overlay.epoch_ns
        self._tree_entry.st_ctime_ns = overlay.epoch_ns
        self._other_entry = self._entry()

    @staticmethod
    def _entry() -> EntryAttributes:
        entry = EntryAttributes()
        entry.entry_timeout = _FOR_EVER_S
        entry.attr_timeout = _FOR_EVER_S
        entry.st_ino = 0
        entry.st_blksize = 4096
        return entry

    # -- attributes

    def _fill(self, node: Node) -> EntryAttributes:
        if node.place is Place.TREE and node.oid is not None and node.parent is not None:
            entry = self._tree_entry
            entry.st_ino = node.ino
            entry.st_mode = node.mode
            size = node.size
            if size < 0:
                size = 4096 if isinstance(node, Directory) else self._overlay.size(node)
            entry.st_size = size
            entry.st_blocks = size + 511 >> 9
            return entry
        found = self._overlay.attributes(node)
        entry = self._other_entry
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

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        self._counts[_LOOKUP] += 1
        try:
            parent = self._nodes[parent_inode]
            if name == b"." or name == b"..":
                node: Node | None = parent if name == b"." else parent.parent
                if node is None:
                    raise FUSEError(errno.ESTALE)
            else:
                node = self._overlay.lookup(parent, name)  # type: ignore[arg-type]
            if node is None:
                return self._absent
            entry = self._fill(node)
        except KeyError:
            raise FUSEError(errno.ESTALE) from None
        except FUSEError:
            raise
        except Exception as error:
            raise _failure(error) from None
        node.lookups += 1
        return entry

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        self._counts[_GETATTR] += 1
        try:
            return self._fill(self._nodes[inode])
        except KeyError:
            raise FUSEError(errno.ESTALE) from None
        except Exception as error:
            raise _failure(error) from None

    # Not a coroutine: pyfuse3 awaits what is returned only if it is not None.
    def forget(  # type: ignore[override]
        self, inode_list: Sequence[tuple[int, int]]
    ) -> None:
        self._counts[_FORGET] += len(inode_list)
        nodes = self._nodes
        for ino, count in inode_list:
            node = nodes.get(ino)
            if node is None:
                continue
            if node.parent is None:
                try:
                    self._overlay.forget(node, count)
                except OSError as error:
                    _log.error("forget failed", exc_info=error)
            else:
                node.lookups -= count

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        self._counts[Kind.SETATTR] += 1
        try:
            node = self._overlay.node(inode)
            change = Change(
                attr.st_mode if fields.update_mode else None,
                attr.st_uid if fields.update_uid else None,
                attr.st_gid if fields.update_gid else None,
                attr.st_size if fields.update_size else None,
                attr.st_atime_ns if fields.update_atime else None,
                attr.st_mtime_ns if fields.update_mtime else None,
            )
            handle = self.handles.get(fh) if fh is not None else None
            self._changes.setattr(node, change, handle, Caller(ctx.uid, ctx.gid, ctx.pid))
            return self._fill(node)
        except Exception as error:
            raise _failure(error) from None

    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        self._counts[Kind.READLINK] += 1
        try:
            return self._overlay.readlink(self._overlay.node(inode))
        except Exception as error:
            raise _failure(error) from None

    # -- directories

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        self._counts[_OPENDIR] += 1
        try:
            directory = self._overlay.directory(inode)
            self._overlay.trim()
        except Exception as error:
            raise _failure(error) from None
        self._serial += 1
        self._listings[self._serial] = _Listing(directory)
        return self._serial

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        self._counts[_READDIR] += 1
        listing = self._listings[fh]
        directory = listing.directory
        try:
            children = self._overlay.children(directory)
        except Exception as error:
            raise _failure(error) from None
        # Cookies number the names that were there when reading began: names that vanish are
        # left out, and no other name moves.
        if start_id == 0:
            listing.names = list(children)
        names = listing.names
        reply = pyfuse3.readdir_reply
        fill = self._fill
        position = start_id
        entries = 0
        try:
            if position == 0:
                if not reply(token, b".", fill(directory), 1):
                    return
                position = 1
            if position == 1:
                if not reply(token, b"..", fill(directory.parent or directory), 2):
                    return
                position = 2
            for name in names[position - 2 :] if position > 2 else names:
                position += 1
                node = children.get(name)
                if node is None:
                    continue
                if not reply(token, name, fill(node), position):
                    return
                node.lookups += 1
                entries += 1
        except FUSEError:
            raise
        except Exception as error:
            raise _failure(error) from None
        finally:
            self._counts[_ENTRY] += entries

    async def releasedir(self, fh: int) -> None:
        self._listings.pop(fh, None)

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        self._counts[Kind.FSYNC] += 1
        try:
            self._overlay.fsync_directory(self._listings[fh].directory)
        except Exception as error:
            raise _failure(error) from None

    # -- open files

    def _keep(self, handle: Handle) -> FileInfo:
        self._file_info.fh = self.handles.keep(handle)
        return self._file_info

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        self._counts[_OPEN] += 1
        try:
            node = self._nodes[inode]
            is_outsider = locks_by_group(node.mode) and self._is_outsider(node, ctx)
            place = node.place
            handle = self._overlay.open(
                node, flags, is_privileged=ctx.uid == 0, is_outsider=is_outsider
            )
            if node.place is not place:
                # Copy-up gave it a change time of its own.
                pyfuse3.invalidate_inode(inode, attr_only=True)
            return self._keep(handle)
        except KeyError:
            raise FUSEError(errno.ESTALE) from None
        except Exception as error:
            raise _failure(error) from None

    def _is_outsider(self, node: Node, ctx: RequestContext) -> bool:
        caller = Caller(ctx.uid, ctx.gid, ctx.pid)
        return not caller.is_in_group(self._overlay.attributes(node).gid)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        self._counts[Kind.CREATE] += 1
        try:
            parent = self._overlay.directory(parent_inode)
            handle = self._changes.create(parent, name, mode, flags, (ctx.uid, ctx.gid))
            handle.node.lookups += 1
            return self._keep(handle), self._fill(handle.node)
        except Exception as error:
            raise _failure(error) from None

    async def read(self, fh: int, off: int, size: int) -> bytes:
        counts = self._counts
        counts[_READ] += 1
        try:
            data = self._overlay.read(self.handles[fh], off, size)
        except Exception as error:
            raise _failure(error) from None
        counts[_READ_BYTES] += len(data)
        return data

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        counts = self._counts
        counts[_WRITE] += 1
        try:
            written = self._overlay.write(self.handles[fh], off, buf)
        except Exception as error:
            raise _failure(error) from None
        counts[_WRITE_BYTES] += written
        return written

    async def fsync(self, fh: int, datasync: bool) -> None:
        self._counts[Kind.FSYNC] += 1
        try:
            self._overlay.fsync(self.handles[fh], data_only=datasync)
        except Exception as error:
            raise _failure(error) from None

    async def release(self, fh: int) -> None:
        self._counts[_RELEASE] += 1
        try:
            handle = self.handles.pop(fh, None)
            if handle is not None:
                self._overlay.release(handle)
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
            return self._made(self._changes.mknod(parent, name, mode, rdev, (ctx.uid, ctx.gid)))
        except Exception as error:
            raise _failure(error) from None

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        self._counts[Kind.CREATE] += 1
        try:
            self._overlay.trim()
            parent = self._overlay.directory(parent_inode)
            return self._made(self._changes.mkdir(parent, name, mode, (ctx.uid, ctx.gid)))
        except Exception as error:
            raise _failure(error) from None

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        self._counts[Kind.CREATE] += 1
        try:
            parent = self._overlay.directory(parent_inode)
            return self._made(self._changes.symlink(parent, name, target, (ctx.uid, ctx.gid)))
        except Exception as error:
            raise _failure(error) from None

    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        self._counts[Kind.CREATE] += 1
        try:
            node = self._overlay.node(inode)
            parent = self._overlay.directory(new_parent_inode)
            self._changes.link(node, parent, new_name)
            return self._made(node)
        except Exception as error:
            raise _failure(error) from None

    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self._counts[Kind.REMOVE] += 1
        try:
            self._changes.unlink(self._overlay.directory(parent_inode), name)
        except Exception as error:
            raise _failure(error) from None

    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self._counts[Kind.REMOVE] += 1
        try:
            self._overlay.trim()
            self._changes.rmdir(self._overlay.directory(parent_inode), name)
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
