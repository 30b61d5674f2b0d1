"""Changing what a lane must not change: the view of a reader, by every call that can."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from base import (
    ANY,
    NEVER,
    READ,
    ROOT,
    Context,
    Stopped,
    attempt,
    check,
    libc,
    since,
    syscall,
)

_READERS = (READ,)
VICTIM = "victim.txt"


def reader(name: str, *, control: str = ANY) -> Callable[[Callable[[Context], str]], object]:
    return attempt(name, "view", lanes=_READERS, control=control)


def _opened(flags: int) -> Callable[[Context], str]:
    def act(context: Context) -> str:
        os.close(os.open(VICTIM, flags))
        return "opened"

    return act


for _name, _flags in (
    ("open O_WRONLY", os.O_WRONLY),
    ("open O_RDWR", os.O_RDWR),
    ("open O_TRUNC", os.O_RDONLY | os.O_TRUNC),
    ("open O_APPEND", os.O_WRONLY | os.O_APPEND),
):
    attempt(_name, "view", lanes=_READERS)(_opened(_flags))


@reader("open O_CREAT")
def create(context: Context) -> str:
    os.close(os.open("made", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    return "made a file"


@reader("open O_TMPFILE")
def tmpfile(context: Context) -> str:
    os.close(os.open(".", os.O_RDWR | os.O_TMPFILE, 0o600))
    return "made a file without a name"


@reader("mmap, shared and writable")
def mapped(context: Context) -> str:
    fd = os.open(VICTIM, os.O_RDWR)
    os.ftruncate(fd, 64)
    with mmap.mmap(fd, 4, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as memory:
        memory[:4] = b"mmap"
        memory.flush()
    return Path(VICTIM).read_text()[:4]


@reader("truncate")
def truncate(context: Context) -> str:
    os.truncate(VICTIM, 1)
    return "truncated"


@reader("rename")
def rename(context: Context) -> str:
    os.rename(VICTIM, "renamed")
    os.rename("renamed", VICTIM)
    return "renamed"


@reader("rename onto itself, over another, to another directory")
def rename_over(context: Context) -> str:
    # Onto itself it does nothing, and the kernel may say so without asking anybody.
    os.rename("second.txt", "directory/moved")
    os.rename("directory/moved", "second.txt")
    return "moved"


@reader("renameat2 RENAME_EXCHANGE")
def exchange(context: Context) -> str:
    check(libc.renameat2(-100, VICTIM.encode(), -100, b"second.txt", 2))
    return "exchanged"


@reader("link")
def link(context: Context) -> str:
    os.link(VICTIM, "hard")
    os.unlink("hard")
    return "linked"


@reader("link of a file from elsewhere")
def link_in(context: Context) -> str:
    with tempfile.NamedTemporaryFile(dir=tempfile.gettempdir()) as file:
        os.link(file.name, "planted")
    os.unlink("planted")
    return "linked in"


@reader("symlink")
def symlink(context: Context) -> str:
    os.symlink("x", "soft")
    os.unlink("soft")
    return "made"


@reader("mkdir")
def mkdir(context: Context) -> str:
    os.mkdir("fresh")
    os.rmdir("fresh")
    return "made"


@reader("unlink")
def unlink(context: Context) -> str:
    os.unlink("third.txt")
    Path("third.txt").write_text("back\n")
    return "unlinked"


@reader("rmdir")
def rmdir(context: Context) -> str:
    os.unlink("empty/keep")
    os.rmdir("empty")
    return "removed"


@reader("mknod FIFO")
def fifo(context: Context) -> str:
    os.mkfifo("fifo")
    os.unlink("fifo")
    return "made"


@reader("mknod device", control=ROOT)
def device(context: Context) -> str:
    os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.unlink("device")
    return "made"


@reader("bind a socket in it")
def bind(context: Context) -> str:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    os.unlink("socket")
    return "bound"


@reader("chmod")
def chmod(context: Context) -> str:
    os.chmod(VICTIM, 0o600)
    return "changed"


@reader("fchmod of a descriptor that can only read")
def fchmod(context: Context) -> str:
    os.fchmod(os.open(VICTIM, os.O_RDONLY), 0o640)
    return "changed"


@reader("fchmodat2 with O_PATH", control=since(6, 6))
def fchmodat2(context: Context) -> str:
    fd = os.open(VICTIM, os.O_PATH)
    syscall(452, 452, fd, b"", 0o644, 0x1000)
    return "changed"


@reader("chmod by /proc/self/fd")
def chmod_proc(context: Context) -> str:
    os.chmod(f"/proc/self/fd/{os.open(VICTIM, os.O_PATH)}", 0o604)
    return "changed"


@reader("chown")
def chown(context: Context) -> str:
    os.chown(VICTIM, os.getuid(), os.getgid())
    return "changed"


@reader("utimensat")
def utime(context: Context) -> str:
    os.utime(VICTIM, ns=(1, 1))
    return "changed"


@reader("futimens of a descriptor that can only read")
def futime(context: Context) -> str:
    os.utime(os.open(VICTIM, os.O_RDONLY))
    return "changed"


@reader("setxattr")
def setxattr(context: Context) -> str:
    os.setxattr(VICTIM, "user.planted", b"x")
    os.removexattr(VICTIM, "user.planted")
    return "set"


@reader("fsetxattr, overlay's own attribute")
def set_opaque(context: Context) -> str:
    os.setxattr(os.open("directory", os.O_RDONLY), "user.overlay.opaque", b"y")
    os.removexattr("directory", "user.overlay.opaque")
    return "set"


@reader("fallocate, punching a hole")
def fallocate(context: Context) -> str:
    os.posix_fallocate(os.open(VICTIM, os.O_RDWR), 0, 8192)
    return "allocated"


@reader("copy_file_range into it")
def copy_range(context: Context) -> str:
    source = os.open("second.txt", os.O_RDONLY)
    os.copy_file_range(source, os.open(VICTIM, os.O_WRONLY), 4)
    return "copied"


@reader("splice into it")
def splice(context: Context) -> str:
    receive, send = os.pipe()
    os.write(send, b"pipe")
    os.splice(receive, os.open(VICTIM, os.O_WRONLY), 4)
    return "spliced"


@reader("ioctl FS_IOC_SETFLAGS")
def setflags(context: Context) -> str:
    fd = os.open(VICTIM, os.O_RDONLY)
    flags = fcntl.ioctl(fd, 0x8008_6601, b"\0" * 8)
    fcntl.ioctl(fd, 0x4008_6602, (int.from_bytes(flags[:4], "little") | 0x40).to_bytes(8, "little"))
    fcntl.ioctl(fd, 0x4008_6602, flags)
    return "flagged as not to be dumped"


@reader("a descriptor opened anew by /proc/self/fd")
def reopen(context: Context) -> str:
    fd = os.open(VICTIM, os.O_RDONLY)
    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
    return "opened for writing"


@reader("the same by /proc/self/root and /proc/self/cwd")
def by_root(context: Context) -> str:
    path = f"/proc/self/root{Path(VICTIM).resolve()}"
    for name in (path, f"/proc/self/cwd/{VICTIM}"):
        try:
            os.close(os.open(name, os.O_WRONLY))
            return name
        except OSError as error:
            failure = error
    raise failure


@reader("/proc/self/mem over a read-only mapping of it", control=NEVER)
def by_mem(context: Context) -> str:
    """The file must stay what it was, whatever the mapping is made to say."""
    fd = os.open(VICTIM, os.O_RDONLY)
    with mmap.mmap(fd, 4, mmap.MAP_SHARED, mmap.PROT_READ):
        lines = Path("/proc/self/maps").read_text().splitlines()
        (address,) = (int(line.split("-")[0], 16) for line in lines if line.endswith(VICTIM))
        before = os.pread(fd, 4, 0)
        with open("/proc/self/mem", "r+b", buffering=0) as own:
            own.seek(address)
            own.write(b"M")
    if os.pread(fd, 4, 0) == before:
        raise Stopped("the file is as it was")
    return "changed"


@reader("another program started by the dynamic loader")
def loader(context: Context) -> str:
    found = [p for p in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
             if os.path.exists(p)]  # fmt: skip
    if not found:
        raise Stopped("no such loader here")
    code = f"open({VICTIM!r}, 'a')"
    done = subprocess.run([found[0], os.path.realpath(sys.executable), "-c", code],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise Stopped(done.stderr.strip().splitlines()[-1])
    return "written"


@reader("git's own directory")
def git_head(context: Context) -> str:
    git = Path(".git")
    if git.is_file():
        git = Path(git.read_text().split(":", 1)[1].strip())
    with open(git / "HEAD", "r+") as file:
        return file.read().strip()


@reader("git commit", control=ANY)
def git_commit(context: Context) -> str:
    command = [
        "git",
        "-c",
        "user.name=x",
        "-c",
        "user.email=x",
        "commit",
        "--allow-empty",
        "-qm",
        "x",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Stopped(done.stderr.strip().splitlines()[-1])
    return "committed"


@reader("a case alias of .git", control=NEVER)
def case_alias(context: Context) -> str:
    for name in (".GIT", ".Git", ".g\u200cit", "git~1", ".git "):
        if os.path.lexists(name):
            os.close(os.open(f"{name}/config", os.O_RDWR))
            return name
    raise Stopped("no such name leads to it")


# -- mounts, for lanes of both kinds: a writer's layer is its own, the rest of the host is not

MS_RDONLY, MS_REMOUNT, MS_BIND, MNT_DETACH = 1, 32, 4096, 2


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
    check(libc.mount(source, target, kind, ctypes.c_ulong(flags), None))


@attempt("remount read-write", "mounts", control=NEVER)
def remount(context: Context) -> str:
    _mount(b"none", str(context.top).encode(), None, MS_REMOUNT)
    return "remounted"


@attempt("remount of the bind read-write", "mounts", control=NEVER)
def remount_bind(context: Context) -> str:
    _mount(b"none", str(context.top).encode(), None, MS_REMOUNT | MS_BIND)
    return "remounted"


@attempt("umount of the view", "mounts", control=NEVER)
def umount(context: Context) -> str:
    check(libc.umount2(str(context.top).encode(), MNT_DETACH))
    return "unmounted"


@attempt("a new mount over the view", "mounts", control=NEVER)
def mount_over(context: Context) -> str:
    _mount(b"tmpfs", str(context.top).encode(), b"tmpfs", 0)
    return "mounted"


@attempt("open_tree and move_mount", "mounts", control=NEVER)
def move_mount(context: Context) -> str:
    fd = syscall(428, 428, -100, b"/", 1)
    syscall(429, 429, fd, b"", -100, str(context.top).encode(), 4)
    return "moved"


@attempt("fsopen", "mounts", control=ROOT)
def fsopen(context: Context) -> str:
    os.close(syscall(430, 430, b"tmpfs", 0))
    return "opened"


@attempt("pivot_root", "mounts", control=NEVER)
def pivot(context: Context) -> str:
    syscall(155, 41, b"/", b"/")
    return "turned"


@attempt("chroot", "mounts", control=ROOT)
def chroot(context: Context) -> str:
    os.chroot("/")
    return "changed"
