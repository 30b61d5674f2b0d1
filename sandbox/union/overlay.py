"""The overlay: one tree made of a git tree, sealed layers and an upper directory.

Knows no FUSE and no pyfuse3. Every operation raises OSError with the errno that the system call
of the same name has; permissions are the kernel's to check (`default_permissions`).

All changes of the upper directory go through here, so what was once read of it stays true.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import MutableSequence

from sandbox.union.attributes import Attributes, from_status
from sandbox.union.blob import Blobs
from sandbox.union.caller import Caller
from sandbox.union.copyup import CopyUp
from sandbox.union.counter import Kind
from sandbox.union.merge import Merge
from sandbox.union.node import ROOT_INO, Directory, Handle, Node, Place
from sandbox.union.spec import MountSpec
from sandbox.union.stack import LayerStack
from sandbox.union.tree import GitTree
from sandbox.union.upper import Upper, reopen_directory
from sandbox.union.walk import Walk

_DIRECTORY_BYTES = 4096
_DIRECTORY_HIT = int(Kind.DIRECTORY_HIT)
_DIRECTORY_MISS = int(Kind.DIRECTORY_MISS)
# What the server adds or leaves out: offsets come from the kernel, alignment is not ours to
# promise, and creation was decided by the caller.
_DROPPED_FLAGS = (
    os.O_APPEND
    | os.O_CREAT
    | os.O_EXCL
    | os.O_NOCTTY
    | os.O_DIRECT
    | os.O_NOATIME
    | os.O_NOFOLLOW
    | os.O_NONBLOCK
)


class Overlay:
    """A mounted tree, without the mount."""

    def __init__(
        self,
        spec: MountSpec,
        *,
        fd_limit: int = 1024,
        counts: MutableSequence[int] | memoryview[int] | None = None,
    ) -> None:
        """Opens everything that `spec` names. Raises MountError or GitError.

        `counts`, indexed by `Kind`, is told how requests were answered.
        """
        self._counts = counts if counts is not None else [0] * len(Kind)
        self.uid, self.gid = spec.uid, spec.gid
        self.epoch_ns = spec.epoch_ns
        self.is_writable = spec.upper is not None
        self.has_layers = bool(spec.layers)
        self._squash = None if os.geteuid() == 0 else (spec.uid, spec.gid)
        self.tree = GitTree(spec.git_dir, spec.tree, spec.object_dirs) if spec.tree else None
        layers = tuple(range(len(spec.layers) - 1, -1, -1))
        place = Place.LAYER if layers else Place.TREE
        self.root = Directory(
            ROOT_INO,
            stat.S_IFDIR | 0o755,
            None,
            b"",
            place,
            self.tree.root if self.tree is not None else None,
            layers=layers,
        )
        self.stack = LayerStack(spec.layers, self.root, fd_limit=fd_limit // 2)
        if layers:
            self.root.mode = self.stack.status(self.root).st_mode
        self.upper: Upper | None = None
        self._statfs_fd = -1
        if spec.upper is not None:
            self.upper = Upper.of(spec, self.root, fd_limit=fd_limit // 2)
            self._found_root()
        else:
            base = spec.layers[-1] if spec.layers else spec.git_dir
            self._statfs_fd = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.grafts = tuple(map(os.fsencode, spec.grafts))
        self.merge = Merge(self.tree, self.stack, self.upper, spec.grafts, self.root)
        self.nodes = self.merge.nodes
        self.blobs = Blobs(self.tree, self._counts)
        self.walk = Walk(self.children, self.blobs.tree_size, self.blobs.size)
        self._copy_up: CopyUp | None = None
        if self.upper is not None:
            self._copy_up = CopyUp(
                self.upper,
                self.stack,
                self.blobs,
                self.merge,
                uid=spec.uid,
                gid=spec.gid,
                epoch_ns=spec.epoch_ns,
            )

    def _found_root(self) -> None:
        """Makes the upper directory the root; an empty one takes the lower root's attributes."""
        assert self.upper is not None
        fd = self.root.fd
        readable = reopen_directory(fd)
        try:
            is_fresh = not os.listdir(readable)
            if is_fresh:
                status = self.stack.status(self.root) if self.root.layers else None
                if os.geteuid() == 0:
                    owner = (status.st_uid, status.st_gid) if status else (self.uid, self.gid)
                    os.fchown(readable, *owner)
                os.fchmod(readable, stat.S_IMODE(self.root.mode))
                times = (status.st_atime_ns, status.st_mtime_ns) if status else None
                os.utime(readable, ns=times or (self.epoch_ns, self.epoch_ns))
            self.root.mode = os.fstat(readable).st_mode
        finally:
            os.close(readable)
        self.root.place = Place.UPPER

    def close(self) -> None:
        """Closes every descriptor."""
        if self.upper is not None:
            self.upper.close()
        if self._statfs_fd >= 0:
            os.close(self._statfs_fd)
        self.stack.close()

    def roots(self) -> list[int]:
        """O_PATH descriptors of the upper directory and the layers; not to be closed."""
        own = [self.root.fd] if self.upper is not None else []
        return own + self.stack.roots()

    # -- finding

    def node(self, ino: int) -> Node:
        """The node of an inode number. Raises OSError (ESTALE)."""
        node = self.nodes.get(ino)
        if node is None:
            raise OSError(errno.ESTALE, "no such inode")
        return node

    def directory(self, ino: int) -> Directory:
        """The directory of an inode number. Raises OSError (ESTALE, ENOTDIR)."""
        node = self.nodes.get(ino)
        if isinstance(node, Directory):
            return node
        raise OSError(errno.ESTALE if node is None else errno.ENOTDIR, "not a directory")

    def children(self, directory: Directory) -> dict[bytes, Node]:
        """All children by name; the dictionary itself, not to be changed."""
        children = directory.children
        if children is not None:
            self._counts[_DIRECTORY_HIT] += 1
            return children
        self._counts[_DIRECTORY_MISS] += 1
        return self.merge.load(directory)

    def lookup(self, directory: Directory, name: bytes) -> Node | None:
        """The child of that name, or None."""
        children = directory.children
        if children is None:
            self._counts[_DIRECTORY_MISS] += 1
            children = self.merge.load(directory)
        else:
            self._counts[_DIRECTORY_HIT] += 1
        node = children.get(name)
        if node is None and len(name) > 255:
            raise OSError(errno.ENAMETOOLONG, "name too long")
        return node

    def attributes(self, node: Node) -> Attributes:
        """stat(2) of a node.

        Link count of directories: what the upper file system says of a directory that is in the
        upper layer alone, else 1, which tells find(1) to count for itself; as the kernel's
        overlayfs does.
        """
        place = node.place
        is_directory = isinstance(node, Directory)
        nlink = 1 if node.parent is not None or node.ino == ROOT_INO else 0
        if place is Place.UPPER:
            assert self.upper is not None
            merged = is_directory and node.is_merged  # type: ignore[attr-defined]
            return from_status(self.upper.status(node), nlink=1 if merged and nlink else None)
        if place is Place.LAYER:
            fixed = 1 if is_directory and nlink else None if nlink else 0
            return from_status(
                self.stack.status(node),
                nlink=fixed,
                owner=self._squash,
                is_sealed=self.upper is None,
            )
        size = _DIRECTORY_BYTES if is_directory else self.blobs.size(node)
        return Attributes(
            node.mode,
            nlink,
            self.uid,
            self.gid,
            0,
            size,
            size + 511 >> 9,
            self.epoch_ns,
            self.epoch_ns,
            self.epoch_ns,
        )

    def readlink(self, node: Node) -> bytes:
        """readlink(2)."""
        if node.place is Place.TREE:
            assert self.tree is not None and node.oid is not None
            return self.tree.read(node.oid)
        if node.place is Place.LAYER:
            return self.stack.readlink(node)
        assert self.upper is not None
        if node.extra is not None and node.extra.anchor >= 0:
            return os.readlink(b"", dir_fd=node.extra.anchor)
        fd, name = self.upper.where(node)
        return os.readlink(name, dir_fd=fd)

    def statfs(self) -> os.statvfs_result:
        """statvfs(3) of the file system that changes go to, or that the base is on."""
        return os.fstatvfs(self.root.fd if self.upper is not None else self._statfs_fd)

    # -- files

    def open(self, node: Node, flags: int, caller: Caller) -> Handle:
        """open(2) of an existing regular file. Raises OSError (EROFS, EISDIR…)."""
        writing = flags & (os.O_ACCMODE | os.O_TRUNC)
        if self.upper is None:
            if writing:
                raise OSError(errno.EROFS, "read-only")
            fd = self.stack.open(node) if node.place is Place.LAYER else -1
            return Handle(node, fd)
        if writing:
            self.lift(node, size=0 if flags & os.O_TRUNC else None)
        if node.place is Place.UPPER:
            fd = self.upper.open(node, flags & ~_DROPPED_FLAGS)
        elif node.place is Place.LAYER:
            fd = self.stack.open(node)
        else:
            fd = -1
        handle = Handle(node, fd)
        node.extras().handles.append(handle)
        if flags & os.O_TRUNC:
            drop_privilege(node, fd, caller)
        return handle

    def read(self, handle: Handle, offset: int, count: int) -> bytes:
        """pread(2)."""
        fd = handle.fd
        if fd >= 0:
            return os.pread(fd, count, offset)
        data = handle.data
        if data is None:
            data = handle.data = self.blobs.content(handle.node)
        if offset == 0 and count >= len(data):
            return data
        return data[offset : offset + count]

    def write(self, handle: Handle, offset: int, data: bytes | memoryview[int]) -> int:
        """pwrite(2)."""
        if self.upper is None:
            raise OSError(errno.EROFS, "read-only")
        return self.upper.write(handle.fd, data, offset)

    def fsync(self, handle: Handle, *, data_only: bool) -> None:
        """fsync(2), or fdatasync(2)."""
        if self.upper is not None and handle.node.place is Place.UPPER:
            (os.fdatasync if data_only else os.fsync)(handle.fd)

    def fsync_directory(self, directory: Directory) -> None:
        """fsync(2) of a directory."""
        if self.upper is not None and directory.place is Place.UPPER:
            fd = reopen_directory(self.upper.fd(directory))
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def release(self, handle: Handle) -> None:
        """close(2) of the last descriptor of an open file."""
        if handle.fd >= 0:
            os.close(handle.fd)
            handle.fd = -1
        node = handle.node
        extra = node.extra
        if extra is None:
            return
        if handle in extra.handles:
            extra.handles.remove(handle)
        self._settle(node)

    def forget(self, node: Node, count: int) -> None:
        """The kernel drops `count` of its references."""
        node.lookups -= count
        if node.parent is None:
            self._settle(node)

    def _settle(self, node: Node) -> None:
        """Lets go of what nobody needs any more."""
        extra = node.extra
        if node.parent is None and node.lookups <= 0 and node.ino != ROOT_INO:
            if extra is not None and extra.handles:
                return
            if extra is not None and extra.anchor >= 0:
                os.close(extra.anchor)
                extra.anchor = -1
            if isinstance(node, Directory) and node.fd >= 0:
                os.close(node.fd)
                node.fd = -1
            self.merge.drop(node)
        elif extra is not None and not (
            extra.handles or extra.links or extra.inode or extra.anchor >= 0
        ):
            node.extra = None

    def trim(self) -> None:
        """Closes directories that have not been used for long; between operations only."""
        if self.upper is not None:
            self.upper.trim_if_many()
        self.stack.trim_if_many()

    # -- for the modules that change the tree

    def require_upper(self) -> Upper:
        """The upper directory. Raises OSError (EROFS) on a read-only mount."""
        if self.upper is None:
            raise OSError(errno.EROFS, "read-only")
        return self.upper

    @property
    def copy_up(self) -> CopyUp:
        """Copy-up of a write mount. Raises OSError (EROFS) on a read-only mount."""
        if self._copy_up is None:
            raise OSError(errno.EROFS, "read-only")
        return self._copy_up

    def lift(self, node: Node, *, size: int | None = None) -> None:
        """Puts a node into the upper directory. Raises OSError (EROFS)."""
        if node.place is not Place.UPPER:
            self.copy_up.lift(node, size=size)
            self._counts[Kind.COPY_UP] += 1

    def anchor(self, node: Node) -> None:
        """Keeps a file reachable that is about to lose a name."""
        if node.lookups <= 0:
            return
        if node.place is Place.UPPER:
            upper = self.require_upper()
            if isinstance(node, Directory):
                upper.fd(node)
            elif node.extra is None or node.extra.anchor < 0:
                fd = upper.handle(node)
                node.extras().anchor = fd
        elif node.place is Place.LAYER and (node.extra is None or node.extra.anchor < 0):
            fd = self.stack.handle(node)
            node.extras().anchor = fd

    def lose_name(self, node: Node, parent: Directory, name: bytes) -> None:
        """Notes that the node is no longer found at `name`."""
        extra = node.extra
        if extra is not None and extra.links:
            extra.links.remove((parent, name))
            if extra.links:
                node.parent, node.name = extra.links[0]
                if extra.anchor >= 0:
                    os.close(extra.anchor)
                    extra.anchor = -1
                return
        node.parent = None
        self._settle(node)


def drop_privilege(node: Node, fd: int, caller: Caller) -> None:
    """Clears set-user-ID and set-group-ID bits of a file that `caller` writes to.

    Who opened it has no say. The server may be root, whose own writes would leave them.
    """
    if node.mode & 0o6000:
        mode = caller.after_writing(node.mode, os.fstat(fd).st_gid)
        if mode != node.mode:
            os.fchmod(fd, stat.S_IMODE(mode))
            node.mode = mode
