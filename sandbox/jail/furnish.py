"""What a jail shows, mounted by the keeper before bubblewrap starts.

bubblewrap could mount all of it, but reads the list of all mounts again for each: with the masks
and binds of a lane that is most of a jail's start. It gets a mount namespace whose root is what the
jail is to show, and only puts the jail's own /proc and message queues into it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from sandbox import syscalls
from sandbox.descriptor import write_whole
from sandbox.errors import JailError
from sandbox.jail.jail import Bind, File, JailSpec, Mask, Operation, Symlink, operations
from sandbox.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY

_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_LINKS = {
    "core": "/proc/kcore",
    "fd": "/proc/self/fd",
    "ptmx": "pts/ptmx",
    "stderr": "/proc/self/fd/2",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
}
_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV
_SEALED = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV


@contextmanager
def furnished(spec: JailSpec, *, console: str | None = None) -> Iterator[None]:
    """Has this process, while the block lasts, be in a mount namespace that shows what `spec` says.

    Where it is left, the process is back in the one from before, with its working directory at the
    root (setns(2)); the namespace goes with the last of the processes that were started meanwhile.
    No other thread may run: all of them would have to be in one namespace (CLONE_FS).

    Args:
        console: a terminal that is to be found as /dev/console.

    The caller has CAP_SYS_ADMIN and CAP_SYS_CHROOT in its user namespace (`namespace.enter`).
    Raises JailError where something cannot be shown.
    """
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        try:
            with ExitStack() as opened:
                _Furnisher(spec, opened).furnish(console)
            yield
        finally:
            syscalls.setns(before, syscalls.CLONE_NEWNS)
    finally:
        os.close(before)


class _Furnisher:
    """Mounts one jail's view over the root of this process's mount namespace.

    Attributes:
        opened: closes what is not mounted.
    """

    def __init__(self, spec: JailSpec, opened: ExitStack) -> None:
        self._spec = spec
        self._opened = opened
        self._owner = (spec.uid, spec.gid)
        self._empty: str | None = None

    def furnish(self, console: str | None) -> None:
        ordered = operations(self._spec)
        # All before anything is mounted over a place that one of them is in.
        trees = {each: self._tree(each.source) for each in ordered if isinstance(each, Bind)}
        devices = {name: self._tree(f"/dev/{name}") for name in _DEVICES}
        if console is not None:
            devices["console"] = self._tree(console)
        with _telling("the host's file systems cannot be shown read-only"):
            syscalls.mount_setattr("/", add=_SEALED, recursive=True)
        with _telling("a /dev of its own cannot be given to the jail"):
            self._devices(devices)
        unfinished = ["/dev"]
        occupied = _occupied(ordered)
        for operation in ordered:
            with _telling(f"{operation.target} cannot be shown in the jail"):
                match operation:
                    case Bind(_, target, writable):
                        tree = trees[operation]
                        flags = _SEALED & ~MOUNT_ATTR_RDONLY if writable else _SEALED
                        syscalls.mount_setattr(tree, add=flags, recursive=True)
                        self._place(target, is_directory=_is_directory(tree))
                        syscalls.move_mount(tree, target)
                    case Mask(target) if target not in occupied and _is_plain(operation):
                        self._hide(target)
                    case Mask(target, writable, mode, size_bytes):
                        self._place(target, is_directory=True)
                        self._tmpfs(target, mode, size_bytes)
                        if not writable:
                            unfinished.append(target)
                    case File(target, content):
                        self._place(target, is_directory=False)
                        self._file(target, content)
                    case Symlink(target, points_to):
                        self._parents(target)
                        os.symlink(points_to, target)
        for target in unfinished:
            with _telling(f"{target} cannot be made read-only"):
                syscalls.mount_setattr(target, add=_SEALED)

    def _tree(self, source: str) -> int:
        with _telling(f"{source} cannot be shown in the jail"):
            tree = syscalls.open_tree(source)
        self._opened.callback(os.close, tree)
        return tree

    def _devices(self, trees: dict[str, int]) -> None:
        self._tmpfs("/dev", 0o755)
        for name, tree in trees.items():
            _touch(f"/dev/{name}")
            syscalls.mount_setattr(tree, add=MOUNT_ATTR_NOSUID)
            syscalls.move_mount(tree, f"/dev/{name}")
        for name, points_to in _LINKS.items():
            os.symlink(points_to, f"/dev/{name}")
        for name in ("mqueue", "pts", "shm"):
            os.mkdir(f"/dev/{name}", 0o755)
        terminals = syscalls.MS_NOSUID | syscalls.MS_NOEXEC
        options = "newinstance,ptmxmode=0666,mode=620"
        syscalls.mount("devpts", "/dev/pts", "devpts", terminals, options)
        self._tmpfs("/dev/shm", 0o1777, self._spec.shm_bytes)

    def _file(self, target: str, content: bytes) -> None:
        """In the jail's own /dev for a moment: once it is mounted, it needs no name there."""
        place = "/dev/.file"
        _touch(place, content)
        tree = self._tree(place)
        syscalls.mount_setattr(tree, add=_SEALED)
        syscalls.move_mount(tree, target)
        os.unlink(place)

    def _hide(self, target: str) -> None:
        """One empty directory does for all that stay empty."""
        self._place(target, is_directory=True)
        if self._empty is None:
            self._tmpfs(target, 0o755)
            syscalls.mount_setattr(target, add=_SEALED)
            self._empty = target
        else:
            syscalls.move_mount(self._tree(self._empty), target)

    def _tmpfs(self, target: str, mode: int, size_bytes: int | None = None) -> None:
        uid, gid = self._owner
        size = "" if size_bytes is None else f",size={size_bytes}"
        syscalls.mount("tmpfs", target, "tmpfs", _FLAGS, f"mode={mode:o},uid={uid},gid={gid}{size}")

    def _place(self, target: str, *, is_directory: bool) -> None:
        """Something to mount over at `target`, where nothing is."""
        try:
            os.lstat(target)
        except FileNotFoundError:
            self._parents(target)
            if is_directory:
                os.mkdir(target, 0o755)
            else:
                _touch(target)
            self._give(target)

    def _parents(self, target: str) -> None:
        parent = os.path.dirname(target)
        if not os.path.lexists(parent):
            self._place(parent, is_directory=True)

    def _give(self, made: str) -> None:
        """What is below HOME belongs to the lane, and is where it may go on writing."""
        if os.geteuid() != self._spec.uid:
            os.chown(made, *self._owner, follow_symlinks=False)


def _is_plain(mask: Mask) -> bool:
    """Whether it is an empty directory like all others."""
    return not mask.writable and mask.mode == 0o755 and mask.size_bytes is None


def _occupied(ordered: Iterable[Operation]) -> set[str]:
    """The directories in or below which something is mounted."""
    found: set[str] = set()
    for operation in ordered:
        above = os.path.dirname(operation.target)
        while above not in found:
            found.add(above)
            above = os.path.dirname(above)
    return found


def _is_directory(tree: int) -> bool:
    return stat.S_ISDIR(os.fstat(tree).st_mode)


def _touch(path: str, content: bytes = b"") -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    try:
        write_whole(fd, content)
    finally:
        os.close(fd)


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Says of an OSError what could not be done."""
    try:
        yield
    except OSError as error:
        raise JailError(
            f"{what}: {error.strerror}", hint="`nanosup doctor` shows what this host forbids"
        ) from error
