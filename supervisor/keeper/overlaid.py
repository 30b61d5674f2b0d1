"""A lane's view by the kernel's overlayfs: what `mount.Server` is, for the tier without FUSE."""

from __future__ import annotations

import gc
import os
import select
import signal
import stat
from types import TracebackType
from typing import IO, Self

from sandbox import syscalls
from sandbox.descriptor import close_others
from sandbox.tiers import overlayfs
from sandbox.tiers.checkout import EPOCH_NS
from sandbox.union.spec import MountSpec
from supervisor.keeper.unserved import Unserved


class Overlaid(Unserved):
    """Mounts `spec` over the checkout `tree`, in this process's own mount namespace.

    Nobody serves it. What `lock` locks stays locked by a process of its own until everything that
    could write to the upper directory is dead, whatever becomes of the keeper.

    Attributes:
        pid: of that process.
    """

    def __init__(self, spec: MountSpec, tree: str, grafts: str, lock: IO[bytes]) -> None:
        self._spec = spec
        self._tree = tree
        self._grafts = grafts
        super().__init__()
        self._mounted = False
        told, self._tell = os.pipe()
        keeper = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._tell)
                _hold(told, keeper, lock)
            finally:
                os._exit(0)
        os.close(told)
        self._pidfd = os.pidfd_open(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._close()
        os.close(self._tell)
        os.close(self._pidfd)
        if self._mounted:
            try:
                syscalls.umount2(self._spec.mountpoint, syscalls.MNT_DETACH)
            except OSError:
                pass  # it goes with the namespace

    def await_ready(self) -> None:
        """Mounts. Raises MountError."""
        spec = self._spec
        lowers = (*reversed(spec.layers), self._tree)
        _make_grafts(self._grafts, spec, lowers)
        overlayfs.mount(
            spec.mountpoint,
            lowers=(self._grafts, *lowers),
            upper=spec.upper,
            work=spec.work,
        )
        self._mounted = True

    def attend(self, jail: int) -> None:
        """Names the process with whose death everything in the jail is dead."""
        os.write(self._tell, b"%d" % jail)

    def stop(self) -> None:
        """Unmounts, and returns when everything written is in the upper layer (MountError)."""
        overlayfs.unmount(self._spec.mountpoint, upper=self._spec.upper, work=self._spec.work)
        self._mounted = False


def _hold(told: int, keeper: int, lock: IO[bytes]) -> None:
    """Lives as long as the keeper or the jail, and with it the lock that it has inherited."""
    gc.disable()  # files of the keeper that it would close: their numbers may be others' by then
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    close_others((told, lock.fileno()))
    try:
        watched = [os.pidfd_open(keeper)]
    except ProcessLookupError:
        return
    if answer := os.read(told, 32):  # empty: the keeper is dead, and there is no jail
        try:
            watched.append(os.pidfd_open(int(answer)))
        except ProcessLookupError:
            pass
    for pidfd in watched:
        select.select([pidfd], [], [])


def _make_grafts(directory: str, spec: MountSpec, lowers: tuple[str, ...]) -> None:
    """A layer, to be the topmost below the upper, with directories to mount over where none are."""
    os.mkdir(directory, 0o755)
    wanted = [path for path in spec.grafts if path != ".git"]
    if wanted:
        overlayfs.mount(spec.mountpoint, lowers=(directory, *lowers))
        try:
            missing = [path for path in wanted if not os.path.lexists(f"{spec.mountpoint}/{path}")]
            made = {
                part: _mode_of(f"{spec.mountpoint}/{part}")
                for path in missing
                for part in _prefixes(path)
            }
        finally:
            syscalls.umount2(spec.mountpoint)
        # Made only now: what is below an overlay must not change while it is mounted.
        for path, mode in sorted(made.items()):
            if mode is not None:
                _make(f"{directory}/{path}", spec, mode)
    _make(f"{directory}/.git", spec, 0o755)
    _settle(directory, spec, 0o755)


def _prefixes(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _mode_of(path: str) -> int | None:
    """Permissions of a directory, or of one to be; None where something else is in the way."""
    try:
        found = os.lstat(path).st_mode
    except FileNotFoundError:
        return 0o755
    except NotADirectoryError:
        return None
    return stat.S_IMODE(found) if stat.S_ISDIR(found) else None


def _make(path: str, spec: MountSpec, mode: int) -> None:
    try:
        os.mkdir(path)
    except (FileNotFoundError, FileExistsError):
        return  # below something that is in the way: the jail will say what
    _settle(path, spec, mode)


def _settle(path: str, spec: MountSpec, mode: int) -> None:
    if os.geteuid() != spec.uid:
        os.chown(path, spec.uid, spec.gid)
    os.chmod(path, mode)
    os.utime(path, ns=(EPOCH_NS, EPOCH_NS))
