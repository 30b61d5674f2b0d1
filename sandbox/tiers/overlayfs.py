"""The kernel's own overlay file system, mounted over a checkout: the tier without FUSE.

Layers have the same format as those of the FUSE tier, which took it from here (`userxattr`,
Documentation/filesystems/overlayfs.rst), so both can be over each other's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack

from sandbox import syscalls
from sandbox.errors import MountError

# mount(2) takes one page of options. Layers are named by descriptor, which is short and needs no
# escape of `:` and `,`.
_OPTIONS_LIMIT_BYTES = 4095
_HINT = "`nanosup doctor` shows what this host lacks"


def mount(
    mountpoint: str,
    *,
    lowers: Sequence[str],
    upper: str | None = None,
    work: str | None = None,
) -> None:
    """Mounts the merged view of `lowers`, top to bottom; with no `upper`, read-only for ever.

    Needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace. Raises MountError.
    """
    with ExitStack() as stack:

        def named(path: str) -> str:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return f"/proc/self/fd/{fd}"

        try:
            options = [f"lowerdir={':'.join(map(named, lowers))}"]
            if upper is not None and work is not None:
                options += [f"upperdir={named(upper)}", f"workdir={named(work)}"]
            # The first two by name: a kernel's defaults differ, and both would put more into
            # layers than whiteouts and opaque directories.
            options += ["index=off", "metacopy=off", "userxattr"]
            text = ",".join(options)
            if len(text) > _OPTIONS_LIMIT_BYTES:
                raise MountError(
                    f"there are too many layers ({len(lowers)}) for one overlay mount",
                    hint="ship what the sprint has made, and begin a new one",
                )
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
            flags |= syscalls.MS_RDONLY if upper is None else 0
            syscalls.mount("nanosup", mountpoint, "overlay", flags, text)
        except OSError as error:
            raise MountError(
                f"an overlay cannot be mounted on {mountpoint}: {error.strerror}", hint=_HINT
            ) from error


def unmount(mountpoint: str, *, upper: str | None = None, work: str | None = None) -> None:
    """Unmounts, once everything written is in the upper directory, and clears `work`.

    Raises MountError where the mount is still in use.
    """
    try:
        if upper is not None:
            _sync(mountpoint)
        syscalls.umount2(mountpoint)
    except OSError as error:
        raise MountError(f"{mountpoint} cannot be unmounted: {error.strerror}") from error
    if work is not None:
        clear_work(work)


def clear_work(work: str) -> None:
    """Removes what the kernel leaves in a work directory: a directory that nobody may enter."""
    inner = os.path.join(work, "work")
    try:
        if stat.S_ISDIR(os.lstat(inner).st_mode):
            os.chmod(inner, 0o700)
            os.rmdir(inner)
    except OSError:
        pass  # it is scratch, and in nobody's way


def _sync(mountpoint: str) -> None:
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)
