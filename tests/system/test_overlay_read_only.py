"""A mount without an upper directory cannot be changed: not by anybody, not in any way."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mounting import enter_private_namespace, served, staged
from view import assert_same, tree

from sandbox.syscalls import (
    MS_BIND,
    MS_REMOUNT,
    RENAME_EXCHANGE,
    fallocate,
    mount,
    renameat2,
)


@contextmanager
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A read-only mount of a git tree and a layer."""
    enter_private_namespace()
    base = tmp_path / "base"
    (base / "directory/below").mkdir(parents=True)
    (base / "file").write_text("content")
    (base / "program").write_text("#!/bin/sh\n")
    (base / "program").chmod(0o755)
    (base / "directory/file").write_text("other")
    (base / "directory/below/file").write_text("deep")
    (base / "link").symlink_to("file")
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "new").write_text("from a layer")
    os.setxattr(layer / "new", "user.a", b"1")
    with served(staged(tmp_path).read_only(layers=(str(layer),))) as mounted:
        yield mounted.mountpoint


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Path]:
    with read_only(tmp_path) as root:
        yield root


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One mount for all attempts that must leave it as it was."""
    with read_only(tmp_path_factory.mktemp("unchanged")) as root:
        yield root


def _reopen(root: Path) -> None:
    fd = os.open(root / "file", os.O_RDONLY)
    try:
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
    finally:
        os.close(fd)


def _on_read_only_descriptor(act: Callable[[int], object]) -> Callable[[Path], None]:
    def attempt(root: Path) -> None:
        fd = os.open(root / "file", os.O_RDONLY)
        try:
            act(fd)
        finally:
            os.close(fd)

    return attempt


def _shared_mapping(fd: int) -> None:
    with mmap.mmap(fd, 4, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        mapped[0] = 0


def _copy_range(root: Path) -> None:
    source, target = os.open(root / "new", os.O_RDONLY), os.open(root / "file", os.O_RDONLY)
    try:
        os.copy_file_range(source, target, 5)
    finally:
        os.close(source)
        os.close(target)


def _ioctl_flags(fd: int) -> None:
    set_flags = 0x4008_6602
    fcntl.ioctl(fd, set_flags, ctypes.c_long(0x10))


def _memory(root: Path) -> None:
    fd = os.open(root / "file", os.O_RDONLY)
    try:
        with mmap.mmap(fd, 4, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
            mapped[0]
            with open("/proc/self/maps") as maps:
                (line,) = (x for x in maps if x.endswith(f"{root}/file\n"))
            with open("/proc/self/mem", "r+b", buffering=0) as memory:
                memory.seek(int(line.split("-")[0], 16))
                memory.write(b"X")
    finally:
        os.close(fd)


def _send(root: Path) -> None:
    source, target = os.open(root / "new", os.O_RDONLY), os.open(root / "file", os.O_RDONLY)
    try:
        os.sendfile(target, source, 0, 5)
    finally:
        os.close(source)
        os.close(target)


def _splice(root: Path) -> None:
    reader, writer = os.pipe()
    target = os.open(root / "file", os.O_RDONLY)
    try:
        os.write(writer, b"x")
        os.splice(reader, target, 1)
    finally:
        for fd in (reader, writer, target):
            os.close(fd)


def _reopen_to_truncate(root: Path) -> None:
    fd = os.open(root / "file", os.O_RDONLY)
    try:
        os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_TRUNC)
    finally:
        os.close(fd)


def _socket(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "socket"))


ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "create": lambda root: (root / "x").write_text(""),
    "open for writing": lambda root: os.open(root / "file", os.O_WRONLY),
    "open for both": lambda root: os.open(root / "file", os.O_RDWR),
    "truncate while opening": lambda root: os.open(root / "file", os.O_RDONLY | os.O_TRUNC),
    "append": lambda root: os.open(root / "file", os.O_WRONLY | os.O_APPEND),
    "O_TMPFILE": lambda root: os.open(root, os.O_TMPFILE | os.O_WRONLY),
    "reopen through /proc": _reopen,
    "truncate": lambda root: os.truncate(root / "file", 0),
    "ftruncate": _on_read_only_descriptor(lambda fd: os.ftruncate(fd, 0)),
    "write": _on_read_only_descriptor(lambda fd: os.write(fd, b"x")),
    "mmap": _on_read_only_descriptor(_shared_mapping),
    "fchmod": _on_read_only_descriptor(lambda fd: os.fchmod(fd, 0o777)),
    "ioctl": _on_read_only_descriptor(_ioctl_flags),
    "fallocate": _on_read_only_descriptor(lambda fd: os.posix_fallocate(fd, 0, 10)),
    "copy_file_range": _copy_range,
    "unlink": lambda root: (root / "file").unlink(),
    "rmdir": lambda root: (root / "directory/below").rmdir(),
    "mkdir": lambda root: (root / "x").mkdir(),
    "rename": lambda root: (root / "file").rename(root / "x"),
    "rename onto itself": lambda root: (root / "file").rename(root / "file"),
    "rename over": lambda root: (root / "file").rename(root / "new"),
    "exchange": lambda root: renameat2(str(root / "file"), str(root / "new"), RENAME_EXCHANGE),
    "link": lambda root: os.link(root / "file", root / "x"),
    "symlink": lambda root: (root / "x").symlink_to("file"),
    "fifo": lambda root: os.mkfifo(root / "x"),
    "device": lambda root: os.mknod(root / "x", 0o020600, os.makedev(1, 3)),
    "whiteout": lambda root: os.mknod(root / "x", 0o020600, 0),
    "socket": _socket,
    "chmod": lambda root: (root / "file").chmod(0o777),
    "chown": lambda root: os.chown(root / "file", 1, 1),
    "lchown": lambda root: os.lchown(root / "link", 1, 1),
    "utime": lambda root: os.utime(root / "file"),
    "setxattr": lambda root: os.setxattr(root / "file", "user.x", b"1"),
    "removexattr": lambda root: os.removexattr(root / "new", "user.a"),
    "write through a mapping's memory": _memory,
    "send a file into it": _send,
    "splice into it": _splice,
    "touch by descriptor": _on_read_only_descriptor(os.utime),
    "give it an attribute by descriptor": _on_read_only_descriptor(
        lambda fd: os.setxattr(fd, "user.x", b"1")
    ),
    "punch a hole": _on_read_only_descriptor(lambda fd: fallocate(fd, 3, 0, 4)),
    "reopen to truncate": _reopen_to_truncate,
    "security attribute": lambda root: os.setxattr(root / "program", "security.capability", b"x"),
    "open for synchronous writing": lambda root: os.open(root / "new", os.O_RDWR | os.O_SYNC),
    "opaque": lambda root: os.setxattr(root / "directory", "user.overlay.opaque", b"y"),
}


def refused(attempt: Callable[[Path], object], root: Path) -> int:
    """The errno of what must fail."""
    with pytest.raises((OSError, PermissionError)) as caught:
        attempt(root)
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.mark.parametrize("name", ATTEMPTS)
def test_nothing_changes_a_read_only_mount(unchanged: Path, name: str) -> None:
    before = tree(unchanged)
    found = refused(ATTEMPTS[name], unchanged)
    expected = {
        "ftruncate": {errno.EINVAL},
        "write": {errno.EBADF},
        "mmap": {errno.EACCES},
        "ioctl": {errno.ENOTTY, errno.EROFS},
        "fallocate": {errno.EBADF},
        "copy_file_range": {errno.EBADF},
        "send a file into it": {errno.EBADF},
        "splice into it": {errno.EBADF},
        "punch a hole": {errno.EBADF},
        "write through a mapping's memory": {errno.EIO, errno.EFAULT},
        "O_TMPFILE": {errno.EROFS, errno.EOPNOTSUPP},
    }
    assert found in expected.get(name, {errno.EROFS}), errno.errorcode[found]
    assert_same(tree(unchanged), before, name)


def _then(flags: int, act: Callable[[int], object]) -> Callable[[Path], None]:
    def attempt(root: Path) -> None:
        fd = os.open(root / "file", flags)
        try:
            act(fd)
        finally:
            os.close(fd)

    return attempt


def _map_and_write(fd: int) -> None:
    with mmap.mmap(fd, 4, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        mapped[0] = 0
        mapped.flush()


# Where nothing changes the kernel opens files by itself; once root has lifted the flag it does so
# for writing, too. What is then done with the descriptor is refused.
AFTER_REMOUNT: dict[str, Callable[[Path], object]] = {
    "open for writing": _then(os.O_WRONLY, lambda fd: os.write(fd, b"x")),
    "open for both": _then(os.O_RDWR, _map_and_write),
    "open for synchronous writing": _then(os.O_RDWR | os.O_SYNC, lambda fd: os.write(fd, b"x")),
    "append": _then(os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"x")),
    "reopen through /proc": _then(
        os.O_RDONLY,
        lambda fd: os.ftruncate(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), 0),
    ),
}


def test_root_that_lifts_the_read_only_flag_still_cannot_write(reader: Path) -> None:
    before = tree(reader)
    mount("none", str(reader), None, MS_REMOUNT)
    for name, attempt in ATTEMPTS.items():
        if name in ("rename onto itself", "ioctl"):
            continue  # nothing to refuse: the VFS answers without asking
        refused(AFTER_REMOUNT.get(name, attempt), reader)
    for _ in range(100):  # a page that was written to through a mapping is dropped soon after
        if tree(reader) == before:
            break
        os.sched_yield()
    assert_same(tree(reader), before, "after a remount")


def test_a_bind_mount_of_it_is_no_way_around(reader: Path, tmp_path: Path) -> None:
    other = tmp_path / "bound"
    other.mkdir()
    mount(str(reader), str(other), None, MS_BIND)
    try:
        with pytest.raises(OSError, match="Read-only"):
            (other / "x").write_text("")
    finally:
        subprocess.run(["umount", other], check=True)


def test_reading_leaves_no_trace_in_access_times(reader: Path) -> None:
    before = os.stat(reader / "file").st_atime_ns
    (reader / "file").read_text()
    os.listdir(reader)
    assert os.stat(reader / "file").st_atime_ns == before


def test_access_says_what_writing_would_find(reader: Path) -> None:
    assert not os.access(reader / "file", os.W_OK)
    assert not os.access(reader, os.W_OK)
    assert os.access(reader / "program", os.X_OK)


def fingerprint(root: Path) -> str:
    """One digest over names and all that can be known of each file, every time included."""
    digest = hashlib.sha256()
    for directory, names, files in os.walk(root):
        names.sort()
        for name in (".", *names, *sorted(files)):
            path = os.path.join(directory, name)
            found = os.lstat(path)
            digest.update(os.fsencode(path[len(str(root)) :]))
            digest.update(repr(tuple(getattr(found, field) for field in _FIELDS)).encode())
            attributes = os.listxattr(path, follow_symlinks=False)
            for attribute in sorted(attributes):
                value = os.getxattr(path, attribute, follow_symlinks=False)
                digest.update(attribute.encode() + value)
            if os.path.islink(path):
                digest.update(os.readlink(os.fsencode(path)))
            elif os.path.isfile(path):
                digest.update(Path(path).read_bytes())
    return digest.hexdigest()


_FIELDS = (
    *("st_mode", "st_uid", "st_gid", "st_nlink", "st_size", "st_blocks", "st_rdev", "st_ino"),
    *("st_atime_ns", "st_mtime_ns", "st_ctime_ns"),
)


def test_the_tree_has_the_same_digest_before_and_after_everything(reader: Path) -> None:
    before = fingerprint(reader)
    for attempt in ATTEMPTS.values():
        try:
            attempt(reader)
        except OSError:
            pass
    os.spawnv(os.P_WAIT, str(reader / "program"), ["program"])
    for _ in range(2):  # the second time from the layers and the object store, not from caches
        assert fingerprint(reader) == before
        with open("/proc/sys/vm/drop_caches", "w") as caches:
            caches.write("3")


def test_what_was_read_can_be_synchronised(
    unchanged: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("file", "directory"):
        fd = os.open(unchanged / name, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.fdatasync(fd)
        finally:
            os.close(fd)
    assert "unexpected failure" not in capfd.readouterr().err
