"""Cases: reading, writing, mapping, locking and watching what is in files and directories."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from case_kind import nothing
from probe import Probe, tick

from sandbox.syscalls import fallocate, inotify_add_watch, inotify_events, inotify_init1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.telldir.restype = ctypes.c_long
_libc.opendir.restype = ctypes.c_void_p
_libc.readdir.restype = ctypes.c_void_p
_libc.telldir.argtypes = _libc.readdir.argtypes = [ctypes.c_void_p]
_libc.rewinddir.argtypes = _libc.closedir.argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # linux/falloc.h
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


def _call(name: str, *arguments: Any) -> int:
    result = int(getattr(_libc, name)(*arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def files(root: Path) -> None:
    """A small file, a sparse one, an empty one."""
    (root / "file").write_bytes(bytes(range(256)) * 64)
    (root / "empty").write_bytes(b"")
    with open(root / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"data")
        file.truncate(4 << 20)


def offsets(probe: Probe) -> None:
    """read, write and lseek where something is odd."""
    fd = probe.opened("open", "file", os.O_RDWR)
    reading = probe.opened("open to read", "sparse", os.O_RDONLY)
    for label, act in {
        "read past the end": lambda: os.pread(fd, 10, 1 << 30),
        "read at the end": lambda: os.pread(fd, 10, 16384 - 3),
        "read negative": lambda: os.pread(fd, 10, -1),
        "write negative": lambda: os.pwrite(fd, b"x", -1),
        "write past the end": lambda: os.pwrite(fd, b"tail", 20_000),
        "hole reads as zero": lambda: os.pread(fd, 8, 16_384),
        "readv": lambda: os.preadv(fd, [bytearray(3), bytearray(5)], 7),
        "writev": lambda: os.pwritev(fd, [b"abc", b"", b"de"], 100),
        "empty write": lambda: os.write(fd, b""),
        "seek end": lambda: os.lseek(fd, 0, os.SEEK_END),
        "seek before": lambda: os.lseek(fd, -1, os.SEEK_SET),
        "seek current": lambda: os.lseek(fd, -5, os.SEEK_CUR),
        "seek odd": lambda: os.lseek(fd, 0, 99),
        "write at position": lambda: os.write(fd, b"here"),
        "position": lambda: os.lseek(fd, 0, os.SEEK_CUR),
        "seek data past the end": lambda: os.lseek(fd, 1 << 30, os.SEEK_DATA),
        "seek hole past the end": lambda: os.lseek(fd, 1 << 30, os.SEEK_HOLE),
        "seek data": lambda: os.lseek(fd, 10, os.SEEK_DATA),
        "seek data before": lambda: os.lseek(fd, -1, os.SEEK_DATA),
        "seek hole before": lambda: os.lseek(fd, -1, os.SEEK_HOLE),
        "seek data before a reader's": lambda: os.lseek(reading, -1, os.SEEK_DATA),
        "seek hole before a reader's": lambda: os.lseek(reading, -1, os.SEEK_HOLE),
        "ftruncate": lambda: os.ftruncate(fd, 50),
        "ftruncate negative": lambda: os.ftruncate(fd, -1),
        "ftruncate huge": lambda: os.ftruncate(fd, 1 << 62),
        "far": lambda: os.pwrite(fd, b"x", (5 << 30) + 1),
        "back": lambda: os.pread(fd, 2, 5 << 30),
    }.items():
        probe.moves(label, act, "file")
    probe.look("file")
    only_reads = probe.opened("read only", "file", os.O_RDONLY)
    probe.do("write to it", lambda: os.write(only_reads, b"x"))
    probe.do("ftruncate it", lambda: os.ftruncate(only_reads, 1))
    only_writes = probe.opened("write only", "file", os.O_WRONLY)
    probe.do("read from it", lambda: os.read(only_writes, 1))
    directory = probe.opened("directory", ".", os.O_RDONLY)
    probe.do("read a directory", lambda: os.read(directory, 1))
    probe.do("ftruncate a directory", lambda: os.ftruncate(directory, 1))
    path = probe.opened("path only", "file", os.O_PATH)
    probe.do("read a path", lambda: os.read(path, 1))
    probe.do("fchmod a path", lambda: os.fchmod(path, 0o600))
    appending = probe.opened("append", "empty", os.O_RDWR | os.O_APPEND)
    for word in (b"one", b"two"):
        os.lseek(appending, 0, os.SEEK_SET)
        probe.do("append", lambda w=word: os.write(appending, w))
    probe.do("pwrite appends", lambda: os.pwrite(appending, b"three", 0))
    probe.do("all", lambda: os.pread(appending, 100, 0))


def limits(probe: Probe) -> None:
    """RLIMIT_FSIZE: EFBIG and SIGXFSZ."""
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    fd = probe.opened("open", "file", os.O_RDWR)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        probe.do("write over the limit", lambda: os.pwrite(fd, b"x" * 10, 19_995))
        probe.do("write past the limit", lambda: os.pwrite(fd, b"x", 20_001))
        probe.do("truncate past the limit", lambda: os.ftruncate(fd, 20_001))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    probe.look("file")


def allocating(probe: Probe) -> None:
    """posix_fallocate and truncation of what is open and mapped."""
    fd = probe.opened("open", "file", os.O_RDWR)
    probe.moves("posix_fallocate inside", lambda: os.posix_fallocate(fd, 0, 100), fd)
    probe.moves("posix_fallocate beyond", lambda: os.posix_fallocate(fd, 16_000, 4096), fd)
    probe.look("file")
    probe.do("content", lambda: os.pread(fd, 4, 16_384 - 2))
    probe.do("posix_fallocate nothing", lambda: os.posix_fallocate(fd, 0, 0))
    probe.do("posix_fallocate negative", lambda: os.posix_fallocate(fd, -1, 10))
    reading = probe.opened("open r", "file", os.O_RDONLY)
    probe.do("posix_fallocate read-only", lambda: os.posix_fallocate(reading, 0, 10))


def extents(probe: Probe) -> None:
    """fallocate(2) in its modes, and lseek(2) to data and holes."""
    for path in ("sparse", "file"):
        fd = probe.opened("open", path, os.O_RDWR)
        for mode in (0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE, PUNCH_HOLE, ZERO_RANGE):
            for offset, length in ((8192, 4096), (100, 50), (1 << 20, 8192), (0, 0), (6 << 20, 10)):
                label = f"{path}: fallocate {mode} {offset} {length}"
                arguments = (fd, mode, offset, length)
                probe.moves(label, lambda a=arguments: fallocate(*a), path)
                probe.look(fd, "size")
                at = 0
                places = []
                while True:
                    try:
                        data = os.lseek(fd, at, os.SEEK_DATA)
                        at = os.lseek(fd, data, os.SEEK_HOLE)
                    except OSError as error:
                        places.append(error.errno)
                        break
                    places += [data, at]
                if mode != ZERO_RANGE:  # whether that is data depends on what is on the disk yet
                    probe.note("extents", places)
        probe.do("content", lambda f=fd: hash(os.pread(f, 10 << 20, 0)))
        reading = probe.opened("open r", path, os.O_RDONLY)
        probe.do("fallocate read-only", lambda f=reading: fallocate(f, 0, 0, 10))
        probe.do("hole of a reader", lambda f=reading: os.lseek(f, 0, os.SEEK_HOLE))
    probe.do("fallocate a directory", lambda: fallocate(os.open(".", os.O_RDONLY), 0, 0, 1))


def nameless(probe: Probe) -> None:
    """O_TMPFILE, and giving such a file a name."""
    for user in ("root", "owner"):
        for mode in (0o600, 0o4755, 0o2644):
            flags = os.O_TMPFILE | os.O_RDWR
            fd = probe.opened(f"tmpfile {mode:o}", ".", flags, mode, user)
            if fd < 0:
                continue
            probe.look(fd, "nameless")
            probe.do("write", lambda f=fd: os.write(f, b"content"))
            probe.do("read", lambda f=fd: os.pread(f, 20, 2))
            probe.do("chmod", lambda f=fd: os.fchmod(f, 0o640))
            probe.do("setxattr", lambda f=fd: os.setxattr(f, "user.a", b"1"))
            probe.do("reopen", lambda f=fd: os.read(os.open(f"/proc/self/fd/{f}", os.O_RDONLY), 9))
            name = f"named.{user}.{mode:o}"
            path = f"/proc/self/fd/{fd}".encode()
            link = ("linkat", AT_FDCWD, path, AT_FDCWD, name.encode(), 0x400)
            probe.moves("link", lambda a=link: _call(*a), ".")
            probe.look(name)
            probe.look(fd, "named")
            probe.do("read by name", lambda n=name: Path(n).read_bytes())
            probe.do("link again", lambda n=name: os.link(n, n + "2"))
            probe.look(fd, "two names")
            probe.do("unlink", lambda n=name: os.unlink(n))
            probe.do(
                "same file", lambda n=name, f=fd: os.stat(n + "2").st_ino == os.fstat(f).st_ino
            )
            probe.look(fd, "one name")
    exclusive = probe.opened("exclusive", ".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    path = f"/proc/self/fd/{exclusive}".encode()
    probe.do("link", lambda: _call("linkat", AT_FDCWD, path, AT_FDCWD, b"no", 0x400))
    os.mkdir("group")
    os.chown("group", -1, 65201) if os.geteuid() == 0 else None
    os.chmod("group", 0o2777)
    probe.look(probe.opened("in a group", "group", os.O_TMPFILE | os.O_WRONLY, 0o664), "its group")
    probe.do("over", lambda: Path("over").write_bytes(b"x"))
    os.unlink("over")
    fd = probe.opened("again", ".", os.O_TMPFILE | os.O_WRONLY, 0o664)
    path2 = f"/proc/self/fd/{fd}".encode()
    probe.do("in its place", lambda: _call("linkat", AT_FDCWD, path2, AT_FDCWD, b"over", 0x400))
    probe.do("there already", lambda: _call("linkat", AT_FDCWD, path2, AT_FDCWD, b"over", 0x400))
    probe.note("names", sorted(os.listdir(".")))


def copying(probe: Probe) -> None:
    """copy_file_range, sendfile and splice."""
    source = probe.opened("source", "file", os.O_RDONLY)
    target = probe.opened("target", "copy", os.O_RDWR | os.O_CREAT)
    probe.do("copy_file_range", lambda: os.copy_file_range(source, target, 5000, 100, 50))
    probe.do("content", lambda: os.pread(target, 20, 45))
    probe.do("beyond", lambda: os.copy_file_range(source, target, 5000, 1 << 20, 0))
    probe.do("onto itself", lambda: os.copy_file_range(target, target, 100, 0, 50))
    probe.do("to a reader", lambda: os.copy_file_range(target, source, 100))
    appending = probe.opened("append", "copy", os.O_WRONLY | os.O_APPEND)
    probe.do("to an appender", lambda: os.copy_file_range(source, appending, 100))
    directory = probe.opened("directory", ".", os.O_RDONLY)
    probe.do("from a directory", lambda: os.copy_file_range(directory, target, 100))
    probe.do("sendfile", lambda: os.sendfile(target, source, 10, 3000))
    reader, writer = os.pipe()
    probe.do("splice from", lambda: os.splice(source, writer, 1000, 10))
    probe.do("splice to", lambda: os.splice(reader, target, 1000, None, 9000))
    os.close(reader)
    os.close(writer)
    probe.look("copy")
    probe.do("content", lambda: os.pread(target, 1010, 8995)[:40])


def mapping(probe: Probe) -> None:
    """mmap in its forms."""
    fd = probe.opened("open", "file", os.O_RDWR)
    shared = mmap.mmap(fd, 16384, mmap.MAP_SHARED)
    private = mmap.mmap(fd, 16384, mmap.MAP_PRIVATE)
    shared[0:5] = b"HELLO"
    probe.do("private sees it", lambda: private[0:5])
    private[0:5] = b"mine!"
    probe.do("read sees shared", lambda: os.pread(fd, 5, 0))
    os.pwrite(fd, b"world", 8000)
    probe.do("shared sees write", lambda: shared[8000:8005])
    probe.moves("store", lambda: shared.__setitem__(100, 7), "file")
    probe.do("msync", shared.flush)
    os.ftruncate(fd, 5000)
    probe.do("behind the end", lambda: shared[5000:5010])
    shared[5000:5003] = b"xyz"
    os.ftruncate(fd, 16384)
    probe.do("after growing", lambda: os.pread(fd, 5, 5000))
    os.unlink("file")
    shared[0:2] = b"!!"
    probe.do("unlinked", lambda: os.pread(fd, 5, 0))
    shared.close()
    private.close()
    empty = probe.opened("empty", "empty", os.O_RDWR)
    probe.do(
        "map read-only",
        lambda: (
            mmap.mmap(os.open("sparse", os.O_RDONLY), 4096, mmap.MAP_SHARED, mmap.PROT_WRITE)
            and None
        ),
    )
    probe.do("map a directory", lambda: mmap.mmap(os.open(".", os.O_RDONLY), 4096) and None)
    probe.do("empty", lambda: os.ftruncate(empty, 4096))


def opening(probe: Probe) -> None:
    """Flags of open(2)."""
    probe.do("tmpfile", lambda: os.close(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)))
    probe.do("tmpfile read", lambda: os.close(os.open(".", os.O_TMPFILE | os.O_RDONLY, 0o600)))
    probe.do("tmpfile on file", lambda: os.close(os.open("file", os.O_TMPFILE | os.O_RDWR, 0o600)))
    fd = probe.opened("direct", "file", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 8192) as aligned:
        aligned.write(b"d" * 4096)
        probe.do("direct write", lambda: os.pwritev(fd, [memoryview(aligned)[:4096]], 4096))
        probe.do("direct read", lambda: os.preadv(fd, [memoryview(aligned)[:4096]], 4096))
    probe.do("seen", lambda: Path("file").read_bytes()[4090:4100])
    probe.do("sync", lambda: os.close(os.open("file", os.O_WRONLY | os.O_SYNC)))
    probe.do("excl dangling", lambda: os.symlink("no", "dangling"))
    probe.do(
        "creat through dangling", lambda: os.close(os.open("dangling", os.O_CREAT | os.O_RDWR))
    )
    probe.look("no")
    Path("program").write_bytes(Path("/bin/sleep").read_bytes())
    os.chmod("program", 0o755)
    child = os.posix_spawn("program", ["program", "100"], {})
    try:
        probe.do("write a running program", lambda: os.open("program", os.O_WRONLY))
        probe.do("truncate a running program", lambda: os.truncate("program", 0))
        probe.do("rename it", lambda: os.rename("program", "moved"))
        probe.do("unlink it", lambda: os.unlink("moved"))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    Path("script").write_bytes(b"x")
    writer = os.open("script", os.O_WRONLY)
    os.fchmod(writer, 0o755)
    probe.do("run what is written", lambda: os.posix_spawn("./script", ["x"], {}))
    os.close(writer)
    fd = probe.opened("fifo", "fifo", os.O_RDONLY | os.O_CREAT)
    os.mkfifo("pipe")
    probe.do("fifo without reader", lambda: os.open("pipe", os.O_WRONLY | os.O_NONBLOCK))
    reader = probe.opened("fifo reader", "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer = probe.opened("fifo writer", "pipe", os.O_WRONLY | os.O_NONBLOCK)
    probe.moves("through", lambda: (os.write(writer, b"x"), os.read(reader, 5))[1], "pipe")


def _untouched(root: Path) -> None:
    for name in FIRST_OPENED:
        (root / name).write_bytes(b"x")


FIRST_OPENED = {
    "to read": os.O_RDONLY,
    "to write": os.O_WRONLY,
    "to append": os.O_WRONLY | os.O_APPEND,
    "for both": os.O_RDWR,
}


def first_opened(probe: Probe) -> None:
    """The first open(2) of a file, and nothing else."""
    for name, flags in FIRST_OPENED.items():
        probe.moves("open", lambda n=name, f=flags: os.close(os.open(n, f)), name, ".")
        probe.look(name)


def held(probe: Probe) -> None:
    """Files that lose their names while open."""
    for name in ("file", "empty"):
        fd = probe.opened("open", name, os.O_RDWR)
        reader = probe.opened("open r", name, os.O_RDONLY)
        os.link(name, "second")
        probe.look(fd, "two names")
        probe.moves("unlink one", lambda n=name: os.unlink(n), fd, ".")
        probe.look(fd, "one name")
        probe.moves(
            "rename over the other",
            lambda: (Path("new").write_bytes(b"n"), os.rename("new", "second")),
            fd,
        )
        probe.look(fd, "no name")
        probe.moves("write", lambda f=fd: os.pwrite(f, b"still", 2), fd)
        probe.do("read", lambda r=reader: os.pread(r, 10, 0))
        probe.do("fchmod", lambda f=fd: os.fchmod(f, 0o640))
        probe.do("fchown", lambda f=fd: os.fchown(f, 5, 6))
        probe.do("futime", lambda f=fd: os.utime(f, ns=(7, 8)))
        probe.do("fsetxattr", lambda f=fd: os.setxattr(f, "user.held", b"1"))
        probe.do("flistxattr", lambda f=fd: [n for n in os.listxattr(f) if "overlay" not in n])
        probe.do("ftruncate", lambda f=fd: os.ftruncate(f, 3))
        probe.look(fd, "after")
        path = f"/proc/self/fd/{fd}"
        probe.do("reopen", lambda p=path: os.read(os.open(p, os.O_RDWR), 9))
        probe.do(
            "link by proc",
            lambda p=path: _call("linkat", AT_FDCWD, p.encode(), AT_FDCWD, b"risen", 0x400),
        )
        probe.do(
            "link by descriptor",
            lambda f=fd: _call("linkat", f, b"", AT_FDCWD, b"risen", AT_EMPTY_PATH),
        )
        probe.do("fsync", lambda f=fd: os.fsync(f))
        os.unlink("second")
    fd = probe.opened("open", "sparse", os.O_RDWR)
    probe.do(
        "link by descriptor", lambda: _call("linkat", fd, b"", AT_FDCWD, b"named", AT_EMPTY_PATH)
    )
    probe.look("named")
    probe.do("same file", lambda: os.stat("named").st_ino == os.fstat(fd).st_ino)
    os.rename("sparse", "elsewhere")
    probe.do("write after rename", lambda: os.pwrite(fd, b"x", 0))
    probe.do("seen", lambda: Path("elsewhere").read_bytes()[:3])
    directory = probe.opened("directory", ".", os.O_RDONLY)
    probe.do("fsync directory", lambda: os.fsync(directory))
    probe.do("fdatasync", lambda: os.fdatasync(fd))
    probe.do("sync_file_range", lambda: _call("sync_file_range", fd, 0, 0, 0, 0, 7))


def _timespecs(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("=qq", *pair) for pair in pairs)


def _utimensat(path: str, atime: tuple[int, int], mtime: tuple[int, int], flags: int = 0) -> int:
    return _call("utimensat", AT_FDCWD, path.encode(), _timespecs(atime, mtime), flags)


def times(probe: Probe) -> None:
    """utimensat(2): NOW, OMIT, nanoseconds, permission."""
    os.chown("file", 65101, 65201)
    os.chmod("file", 0o666)
    for label, atime, mtime in (
        ("both", (1_000_000_000, 123_456_789), (1_100_000_000, 987_654_321)),
        ("omit atime", (0, UTIME_OMIT), (1_200_000_000, 1)),
        ("omit mtime", (1_300_000_000, 2), (0, UTIME_OMIT)),
        ("omit both", (0, UTIME_OMIT), (0, UTIME_OMIT)),
        ("now atime", (0, UTIME_NOW), (0, UTIME_OMIT)),
        ("now mtime", (0, UTIME_OMIT), (0, UTIME_NOW)),
        ("now both", (0, UTIME_NOW), (0, UTIME_NOW)),
        ("too many ns", (0, 1_000_000_000), (0, 0)),
        ("negative", (-5, 5), (-5, 5)),
        ("2106", (4_294_967_296, 0), (4_294_967_296, 0)),
    ):
        for user in ("root", "owner", "other"):
            tick()  # the kernel hands "now" on to a FUSE server in jiffies
            probe.moves(label, lambda a=atime, m=mtime: _utimensat("file", a, m), "file", user=user)
            found = os.stat("file")
            if "now" not in label:
                probe.note(
                    "mtime",
                    found.st_mtime_ns if found.st_mtime < 1.5e9 or found.st_mtime > 4e9 else 0,
                )
                probe.note(
                    "atime",
                    found.st_atime_ns if found.st_atime < 1.5e9 or found.st_atime > 4e9 else 0,
                )
    probe.moves("read", lambda: Path("file").read_bytes() and None, "file")
    fd = probe.opened("open", "file", os.O_RDWR)
    probe.moves("write same", lambda: os.pwrite(fd, b"x", 0), "file")
    probe.moves("ftruncate same", lambda: os.ftruncate(fd, os.fstat(fd).st_size), "file")
    probe.moves("truncate same", lambda: os.truncate("file", os.fstat(fd).st_size), "file")
    probe.moves(
        "open trunc empty", lambda: os.close(os.open("empty", os.O_WRONLY | os.O_TRUNC)), "empty"
    )


def attributes(probe: Probe) -> None:
    """xattr(7) at its limits."""
    for label, act in {
        "create": lambda: os.setxattr("file", "user.a", b"1", os.XATTR_CREATE),
        "create again": lambda: os.setxattr("file", "user.a", b"2", os.XATTR_CREATE),
        "replace": lambda: os.setxattr("file", "user.a", b"2", os.XATTR_REPLACE),
        "replace none": lambda: os.setxattr("file", "user.b", b"2", os.XATTR_REPLACE),
        "get": lambda: os.getxattr("file", "user.a"),
        "get none": lambda: os.getxattr("file", "user.none"),
        "remove none": lambda: os.removexattr("file", "user.none"),
        "empty value": lambda: os.setxattr("file", "user.e", b""),
        "empty value back": lambda: os.getxattr("file", "user.e"),
        "binary": lambda: os.setxattr("file", "user.bin", bytes(range(256))),
        "binary back": lambda: os.getxattr("file", "user.bin"),
        "name of 255": lambda: os.setxattr("file", "user." + "n" * 250, b"x"),
        "name of 256": lambda: os.setxattr("file", "user." + "n" * 251, b"x"),
        "no name": lambda: os.setxattr("file", "user.", b"x"),
        "empty name": lambda: os.setxattr("file", "", b"x"),
        "value of 65537": lambda: os.setxattr("file", "user.big", b"x" * 65537),
        "value of 2000": lambda: os.setxattr("file", "user.big", b"x" * 2000),
        "list": lambda: sorted(n for n in os.listxattr("file") if "overlay" not in n),
        "small buffer": lambda: _call(
            "getxattr", b"file", b"user.big", ctypes.create_string_buffer(5), 5
        ),
        "size": lambda: _call("getxattr", b"file", b"user.big", None, 0),
        "small list": lambda: _call("listxattr", b"file", ctypes.create_string_buffer(5), 5),
        "capability": lambda: os.setxattr(
            "file", "security.capability", struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0)
        ),
        "capability back": lambda: os.getxattr("file", "security.capability"),
        "write": lambda: _append("file"),
        "capability gone": lambda: os.getxattr("file", "security.capability"),
        "chown": lambda: os.setxattr(
            "file", "security.capability", struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0)
        ),
        "chowned": lambda: os.chown("file", 1, 1),
        "gone again": lambda: os.getxattr("file", "security.capability"),
    }.items():
        probe.moves(label, act, "file")
    os.mkdir("dir")
    os.chmod("dir", 0o1777)
    probe.do("sticky directory of another", lambda: os.setxattr("dir", "user.a", b"1"), "other")
    for number in range(40):
        probe.do("many", lambda n=number: os.setxattr("empty", f"user.{n}", b"v" * 40))
    probe.do("many listed", lambda: len(os.listxattr("empty")))


def _append(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"x")
    finally:
        os.close(fd)


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("ino", ctypes.c_ulong),
        ("offset", ctypes.c_long),
        ("length", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


def _next(stream: int) -> tuple[bytes, int, int] | None:
    found = _libc.readdir(stream)
    if not found:
        return None
    entry = ctypes.cast(found, ctypes.POINTER(_Dirent)).contents
    return entry.name, entry.kind, entry.ino


def listing(probe: Probe) -> None:
    """readdir, telldir, seekdir and rewinddir while the directory changes."""
    os.mkdir("dir")
    for number in range(300):
        Path(f"dir/{number:03}").write_bytes(b"")
    os.mkdir("dir/sub")
    os.symlink("x", "dir/link")
    os.mkfifo("dir/fifo")
    stream = _libc.opendir(b"dir")
    places: list[tuple[int, bytes]] = []
    kinds: dict[bytes, int] = {}
    while True:
        at = _libc.telldir(stream)
        entry = _next(stream)
        if entry is None:
            break
        places.append((at, entry[0]))
        kinds[entry[0]] = entry[1]
        if entry[0] not in (b".", b".."):
            probe.note("inode", os.lstat(b"dir/" + entry[0]).st_ino == entry[2])
    probe.note("names", sorted(kinds.items()))
    probe.note("cookies differ", len({at for at, _ in places}) == len(places))
    for at, name in places[::37]:
        _libc.seekdir(stream, at)
        entry = _next(stream)
        probe.note("seekdir", entry is not None and entry[0] == name)
    _libc.rewinddir(stream)
    Path("dir/added").write_bytes(b"")
    os.unlink("dir/007")
    _libc.rewinddir(stream)
    seen = []
    while (entry := _next(stream)) is not None:
        seen.append(entry[0])
    probe.note("after rewinddir", sorted(seen))
    _libc.rewinddir(stream)
    seen = []
    while (entry := _next(stream)) is not None:
        seen.append(entry[0])
        if entry[0] not in (b".", b"..", b"sub"):
            os.unlink(b"dir/" + entry[0])
    probe.note("removed while reading", len(seen) == len(set(seen)))
    probe.note("left", sorted(os.listdir("dir")))
    _libc.closedir(stream)


def locking(probe: Probe) -> None:
    """flock, fcntl, open file description locks and leases."""
    one = probe.opened("one", "file", os.O_RDWR)
    two = probe.opened("two", "file", os.O_RDWR)
    probe.do("flock", lambda: fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB))
    probe.do("flock again", lambda: fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB))
    probe.do("unlock", lambda: fcntl.flock(one, fcntl.LOCK_UN))
    probe.do("flock", lambda: fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB))
    probe.do("unlock", lambda: fcntl.flock(two, fcntl.LOCK_UN))
    lock = struct.pack("=hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 10, 20, 0)
    probe.do("ofd", lambda: fcntl.fcntl(one, 37, lock) and None)
    probe.do("ofd again", lambda: fcntl.fcntl(two, 37, lock) and None)
    other = struct.pack("=hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 30, 20, 0)
    probe.do("ofd beside", lambda: fcntl.fcntl(two, 37, other) and None)
    probe.do("ofd who", lambda: struct.unpack("=hhqqi4x", fcntl.fcntl(two, 36, lock))[0])
    probe.do("lockf", lambda: fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 100))
    probe.do("lease busy", lambda: fcntl.fcntl(one, fcntl.F_SETLEASE, fcntl.F_WRLCK))
    os.close(probe.held.pop())
    os.close(probe.held.pop())
    reader = probe.opened("reader", "empty", os.O_RDONLY)
    probe.do("lease", lambda: fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_RDLCK))
    probe.do("lease is", lambda: fcntl.fcntl(reader, fcntl.F_GETLEASE))
    probe.do("lease off", lambda: fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_UNLCK))


def watching(probe: Probe) -> None:
    """inotify(7)."""
    os.mkdir("dir")
    fd = inotify_init1()
    probe.held.append(fd)
    inotify_add_watch(fd, "dir", 0xFFF)
    inotify_add_watch(fd, "file", 0xFFF)
    for label, act in {
        "creat": lambda: os.close(os.open("dir/x", os.O_CREAT | os.O_RDWR)),
        "write": lambda: Path("dir/x").write_bytes(b"x"),
        "chmod": lambda: os.chmod("dir/x", 0o600),
        "rename": lambda: os.rename("dir/x", "dir/y"),
        "out": lambda: os.rename("dir/y", "y"),
        "in": lambda: os.rename("y", "dir/z"),
        "link": lambda: os.link("dir/z", "dir/zz"),
        "unlink": lambda: os.unlink("dir/z"),
        "mkdir": lambda: os.mkdir("dir/d"),
        "rmdir": lambda: os.rmdir("dir/d"),
        "read": lambda: Path("file").read_bytes() and None,
        "write lower": lambda: _append("file"),
        "chmod lower": lambda: os.chmod("file", 0o600),
        "truncate": lambda: os.truncate("file", 3),
        "setxattr": lambda: os.setxattr("file", "user.a", b"1"),
        "listdir": lambda: os.listdir("dir"),
        "unlink it": lambda: os.unlink("file"),
        "rmdir it": lambda: (os.unlink("dir/zz"), os.rmdir("dir"))[1],
    }.items():
        probe.do(label, act)
        try:
            found = os.read(fd, 65536)
        except BlockingIOError:
            found = b""
        probe.note("events", [(wd, mask, name) for wd, mask, name in inotify_events(found)])


def numbers(probe: Probe) -> None:
    """Inode and device numbers through changes; all of one device."""
    before = os.stat("file").st_ino
    for label, act in {
        "write": lambda: _append("file"),
        "chmod": lambda: os.chmod("file", 0o640),
        "rename": lambda: os.rename("file", "moved"),
        "back": lambda: os.rename("moved", "file"),
        "link": lambda: os.link("file", "linked"),
        "unlink": lambda: os.unlink("linked"),
    }.items():
        probe.do(label, act)
        if os.path.exists("file"):
            probe.note("same inode", os.stat("file").st_ino == before)
    os.mkdir("dir")
    probe.note("device", os.stat("dir").st_dev == os.stat(".").st_dev)
    inode = os.stat("dir").st_ino
    os.rename("dir", "dir2")
    probe.note("same directory", os.stat("dir2").st_ino == inode)
    probe.note("dot dot", os.stat("dir2/..").st_ino == os.stat(".").st_ino)


CASES: dict[str, tuple[Callable[[Path], None], Callable[[Probe], None]]] = {
    "offsets": (files, offsets),
    "limits": (files, limits),
    "allocating": (files, allocating),
    "extents": (files, extents),
    "nameless": (files, nameless),
    "copying": (files, copying),
    "mapping": (files, mapping),
    "opening": (files, opening),
    "first opened": (_untouched, first_opened),
    "held": (files, held),
    "times": (files, times),
    "attributes": (files, attributes),
    "listing": (nothing, listing),
    "locking": (files, locking),
    "watching": (files, watching),
    "numbers": (files, numbers),
}
