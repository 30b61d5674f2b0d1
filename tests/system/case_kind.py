"""Cases: every call on every kind of file: its answer, what it leaves, which times it moves."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probe import GROUP, OWNER, Probe

from sandbox.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2

KINDS = ("file", "dir", "full", "fifo", "socket", "null", "block", "link", "dangling", "dirlink")
DEVICES = ("null", "block")
OLD_S = 1_111_111_111


def make_kinds(root: Path, suffix: str = "") -> None:
    """One of each, of OWNER; no devices where that is not root's to do."""
    (root / f"file{suffix}").write_bytes(b"0123456789")
    (root / f"dir{suffix}").mkdir()
    (root / f"full{suffix}").mkdir()
    (root / f"full{suffix}/in").write_bytes(b"x")
    os.mkfifo(root / f"fifo{suffix}")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(root)
        bound.bind(f"socket{suffix}")
        os.chdir(here)
    is_root = os.geteuid() == 0
    if is_root:
        os.mknod(root / f"null{suffix}", stat.S_IFCHR | 0o644, os.makedev(1, 3))
        os.mknod(root / f"block{suffix}", stat.S_IFBLK | 0o644, os.makedev(7, 200))
    (root / f"link{suffix}").symlink_to("file" + suffix)
    (root / f"dangling{suffix}").symlink_to("nowhere")
    (root / f"dirlink{suffix}").symlink_to("dir" + suffix)
    for kind in KINDS:
        path = root / (kind + suffix)
        if kind in DEVICES and not is_root:
            continue
        if is_root:
            os.chown(path, OWNER, GROUP, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (OLD_S, OLD_S), follow_symlinks=False)


def nothing(_root: Path) -> None:
    """For cases that start from an empty directory."""


def _rename(old: str, new: str, flags: int) -> Callable[[], Any]:
    return lambda: renameat2(old, new, flags)


def _open_close(path: str, flags: int) -> Callable[[], Any]:
    return lambda: os.close(os.open(path, flags | os.O_NONBLOCK, 0o600))


def calls(kind: str) -> dict[str, Callable[[], Any]]:
    """Calls that change or read an object, by label."""
    fresh = kind + ".fresh"
    return {
        "chmod": lambda: os.chmod(kind, 0o4751),
        "chmod same": lambda: os.chmod(kind, 0o751),
        "chown": lambda: os.chown(kind, OWNER + 1, GROUP + 1),
        "lchown": lambda: os.lchown(kind, OWNER, GROUP),
        "chown nobody": lambda: os.chown(kind, -1, -1),
        "lchown nobody": lambda: os.lchown(kind, -1, -1),
        "utime": lambda: os.utime(kind),
        "lutime": lambda: os.utime(kind, ns=(1, 2), follow_symlinks=False),
        "utime far": lambda: os.utime(kind, (4_102_444_800, 4_102_444_800), follow_symlinks=False),
        "utime early": lambda: os.utime(kind, (-1000, -1000), follow_symlinks=False),
        "truncate": lambda: os.truncate(kind, 5),
        "truncate same": lambda: os.truncate(kind, 5),
        "truncate up": lambda: os.truncate(kind, 5000),
        "truncate -1": lambda: os.truncate(kind, -1),
        "readlink": lambda: os.readlink(kind),
        "listdir": lambda: sorted(os.listdir(kind)),
        "open r": _open_close(kind, os.O_RDONLY),
        "open w": _open_close(kind, os.O_WRONLY),
        "open rw": _open_close(kind, os.O_RDWR),
        "open creat": _open_close(kind, os.O_RDONLY | os.O_CREAT),
        "open creat excl": _open_close(kind, os.O_RDWR | os.O_CREAT | os.O_EXCL),
        "open trunc": _open_close(kind, os.O_WRONLY | os.O_TRUNC),
        "open nofollow": _open_close(kind, os.O_RDONLY | os.O_NOFOLLOW),
        "open directory": _open_close(kind, os.O_RDONLY | os.O_DIRECTORY),
        "open path": _open_close(kind, os.O_PATH),
        "open path nofollow": _open_close(kind, os.O_PATH | os.O_NOFOLLOW),
        "open noatime": _open_close(kind, os.O_RDONLY | os.O_NOATIME),
        "open direct": _open_close(kind, os.O_RDONLY | os.O_DIRECT),
        "open excl": _open_close(kind, os.O_RDONLY | os.O_EXCL),
        "mkdir over": lambda: os.mkdir(kind),
        "mkfifo over": lambda: os.mkfifo(kind),
        "mknod over": lambda: os.mknod(kind, stat.S_IFREG | 0o600),
        "symlink over": lambda: os.symlink("x", kind),
        "link over": lambda: os.link("file.b", kind),
        "link": lambda: os.link(kind, fresh, follow_symlinks=False),
        "link followed": lambda: os.link(kind, fresh + "2", follow_symlinks=True),
        "unlink the link": lambda: os.unlink(fresh),
        "setxattr user": lambda: os.setxattr(kind, "user.a", b"v", follow_symlinks=False),
        "setxattr trusted": lambda: os.setxattr(kind, "trusted.a", b"v", follow_symlinks=False),
        "setxattr security": lambda: os.setxattr(kind, "security.a", b"v", follow_symlinks=False),
        "setxattr system": lambda: os.setxattr(kind, "system.a", b"v", follow_symlinks=False),
        "setxattr odd": lambda: os.setxattr(kind, "odd.a", b"v", follow_symlinks=False),
        "listxattr": lambda: sorted(
            n for n in os.listxattr(kind, follow_symlinks=False) if "overlay" not in n
        ),
        "getxattr": lambda: os.getxattr(kind, "trusted.a", follow_symlinks=False),
        "removexattr": lambda: os.removexattr(kind, "trusted.a", follow_symlinks=False),
        "removexattr none": lambda: os.removexattr(kind, "trusted.none", follow_symlinks=False),
        "trailing slash": lambda: os.close(os.open(kind + "/", os.O_RDONLY | os.O_NONBLOCK)),
        "below": lambda: os.mkdir(kind + "/below"),
        "below again": lambda: os.rmdir(kind + "/below"),
        "rename": _rename(kind, kind + ".moved", 0),
        "rename back": _rename(kind + ".moved", kind, 0),
        "rename itself": _rename(kind, kind, 0),
        "rename below itself": _rename(kind, kind + "/x", 0),
        "rmdir": lambda: os.rmdir(kind),
        "unlink": lambda: os.unlink(kind),
        "unlink again": lambda: os.unlink(kind),
    }


def every_call(kind: str) -> Callable[[Probe], None]:
    """All calls on one kind of file, one after the other."""

    def act(probe: Probe) -> None:
        for label, call in calls(kind).items():
            watched = (kind, "file", ".") if kind == "link" else (kind, ".")
            probe.moves(label, call, *watched)
            probe.look(kind, label)

    return act


def two_sets(root: Path) -> None:
    """What rename needs."""
    make_kinds(root)
    make_kinds(root, ".b")


def every_rename(flags: int) -> Callable[[Probe], None]:
    """Every kind renamed over every other, and back."""

    def act(probe: Probe) -> None:
        for old in KINDS:
            for new in KINDS:
                source, target = f"{old}", f"{new}.b"
                label = f"{flags}: {source} -> {target}"
                probe.moves(label, _rename(source, target, flags), ".", source, target)
                probe.look(source)
                probe.look(target)
                if not os.path.lexists(source):
                    probe.do("again", _rename(target, source, 0))
                _restore(new, ".b")
                _restore(old, "")
        probe.do("to nothing", _rename("file", "nothing", flags))
        probe.do("from nothing", _rename("absent", "file.b", flags))
        probe.do("dir into file", _rename("dir", "file.b/x", flags))
        probe.do("dir into itself", _rename("full", "full/in2", flags))
        probe.do("dir over its parent", _rename("full/in", "full", flags))
        probe.do("parent over child", _rename("full", "full/in", flags))
        probe.do("trailing slash of a file", _rename("file.b/", "x", flags))
        probe.do("trailing slash of a target", _rename("file.b", "x/", flags))
        probe.do("directory to a name with a slash", _rename("dir.b", "dir.c/", flags))
        probe.do("dot", _rename(".", "x", flags))
        probe.do("dot dot", _rename("..", "x", flags))
        probe.do("to dot", _rename("file.b", ".", flags))
        os.link("file.b", "file.l")
        probe.do("two links of one file", _rename("file.b", "file.l", flags))
        probe.look("file.b")
        probe.look("file.l")

    return act


def _restore(kind: str, suffix: str) -> None:
    """Puts one kind back where a rename took it from."""
    path = Path(kind + suffix)
    if os.path.lexists(path):
        if path.is_dir() and not path.is_symlink():
            for name in os.listdir(path):
                os.unlink(path / name)
            os.rmdir(path)
        else:
            os.unlink(path)
    match kind:
        case "file":
            path.write_bytes(b"0123456789")
        case "dir" | "full":
            path.mkdir()
            if kind == "full":
                (path / "in").write_bytes(b"x")
        case "fifo":
            os.mkfifo(path)
        case "socket":
            os.mknod(path, stat.S_IFSOCK | 0o644)
        case "null":
            os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 3))
        case "block":
            os.mknod(path, stat.S_IFBLK | 0o644, os.makedev(7, 200))
        case _:
            path.symlink_to({"link": "file", "dangling": "nowhere", "dirlink": "dir"}[kind])


def making(probe: Probe) -> None:
    """What is made under each umask and mode, and what it does to the directory's times."""
    for umask in (0o000, 0o022, 0o077, 0o777):
        for mode in (0o0000, 0o0644, 0o0755, 0o1777, 0o2755, 0o4755, 0o6777, 0o7777):
            name = f"{umask:o}.{mode:o}"
            old = os.umask(umask)
            try:
                for user in ("root", "owner"):
                    with_user = f"{user}.{name}"
                    probe.do(
                        "open",
                        lambda n=with_user, m=mode: os.close(  # type: ignore[misc]
                            os.open(n + ".f", os.O_CREAT | os.O_RDWR, m)
                        ),
                        user,
                    )
                    probe.do("mkdir", lambda n=with_user, m=mode: os.mkdir(n + ".d", m), user)  # type: ignore[misc]
                    probe.do("mkfifo", lambda n=with_user, m=mode: os.mkfifo(n + ".p", m), user)  # type: ignore[misc]
                    probe.do(
                        "mknod",
                        lambda n=with_user, m=mode: os.mknod(  # type: ignore[misc]
                            n + ".s", m | stat.S_IFSOCK
                        ),
                        user,
                    )
                    probe.do(
                        "mknod device",
                        lambda n=with_user, m=mode: os.mknod(  # type: ignore[misc]
                            n + ".c", m | stat.S_IFCHR, os.makedev(1, 7)
                        ),
                        user,
                    )
                    for ending in ("f", "d", "p", "s", "c"):
                        probe.look(f"{with_user}.{ending}")
            finally:
                os.umask(old)
    for label, call in {
        "open": lambda: os.close(os.open("t", os.O_CREAT | os.O_RDWR)),
        "mkdir": lambda: os.mkdir("td"),
        "mkfifo": lambda: os.mkfifo("tp"),
        "symlink": lambda: os.symlink("x", "ts"),
        "link": lambda: os.link("t", "tl"),
        "unlink": lambda: os.unlink("tl"),
        "rmdir": lambda: os.rmdir("td"),
    }.items():
        probe.moves(label, call, ".", "t")


CASES: dict[str, tuple[Callable[[Path], None], Callable[[Probe], None]]] = {
    **{f"calls on {kind}": (two_sets, every_call(kind)) for kind in KINDS},
    "rename": (two_sets, every_rename(0)),
    "rename noreplace": (two_sets, every_rename(RENAME_NOREPLACE)),
    "rename exchange": (two_sets, every_rename(RENAME_EXCHANGE)),
    "rename whiteout": (nothing, lambda p: p.do("whiteout", _rename("a", "b", RENAME_WHITEOUT))),
    "making": (nothing, making),
}
