"""Cases: names and paths at their limits, and what is not there or not a directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from case_kind import nothing
from probe import Probe

from sandbox.syscalls import RENAME_NOREPLACE, renameat2

NAMES: dict[str, str] = {
    "empty": "",
    "255": "n" * 255,
    "256": "n" * 256,
    "255 in two-byte letters": "é" * 127 + "x",
    "256 in two-byte letters": "é" * 128,
    "with a newline": "a\nb",
    "not utf-8": os.fsdecode(b"\xff\xfe\x80"),
    ".wh.": ".wh.x",
    "#1": "#1",
    "dot": ".",
    "dot dot": "..",
    "missing/x": "missing/x",
    "file/x": "file/x",
    "file/": "file/",
    "new/": "new/",
    "dir/": "dir/",
    "dir/.": "dir/.",
    "dir/..": "dir/..",
    "dirlink/": "dirlink/",
    "dirlink/x": "dirlink/x",
    "loop": "loop1",
    "loop/x": "loop1/x",
    "dangling": "dangling",
    "dangling/": "dangling/",
    "256 in the middle": "n" * 256 + "/x",
    "PATH_MAX - 1": "dir/" + "./" * 2044 + "xyz",
    "PATH_MAX": "dir/" + "./" * 2044 + "wxyz",
    "long path": "/".join(["d" * 200] * 19),
}


def base(root: Path) -> None:
    """What the names refer to."""
    (root / "file").write_bytes(b"x")
    (root / "other").write_bytes(b"x")
    (root / "dir").mkdir()
    (root / "dirlink").symlink_to("dir")
    (root / "loop1").symlink_to("loop2")
    (root / "loop2").symlink_to("loop1")
    (root / "dangling").symlink_to("nowhere")


def _calls(name: str) -> dict[str, Callable[[], Any]]:
    return {
        "lstat": lambda: os.lstat(name),
        "stat": lambda: os.stat(name),
        "mkdir": lambda: os.mkdir(name),
        "rmdir": lambda: os.rmdir(name),
        "mkfifo": lambda: os.mkfifo(name),
        "unlink": lambda: os.unlink(name),
        "mknod": lambda: os.mknod(name, 0o100600),
        "unlink mknod": lambda: os.unlink(name),
        "symlink": lambda: os.symlink("x", name),
        "unlink symlink": lambda: os.unlink(name),
        "link": lambda: os.link("other", name),
        "unlink link": lambda: os.unlink(name),
        "link from": lambda: os.link(name, "linked"),
        "open": lambda: os.close(os.open(name, os.O_RDONLY)),
        "creat": lambda: os.close(os.open(name, os.O_CREAT | os.O_RDWR)),
        "creat excl": lambda: os.close(os.open(name, os.O_CREAT | os.O_RDWR | os.O_EXCL)),
        "chmod": lambda: os.chmod(name, 0o755),
        "chown": lambda: os.chown(name, 1, 1),
        "lchown": lambda: os.lchown(name, 1, 1),
        "utime": lambda: os.utime(name),
        "truncate": lambda: os.truncate(name, 3),
        "access": lambda: os.access(name, os.R_OK),
        "readlink": lambda: os.readlink(name),
        "listxattr": lambda: os.listxattr(name),
        "setxattr": lambda: os.setxattr(name, "user.a", b"1"),
        "statvfs": lambda: str(os.statvfs(name).f_namemax),
        "rename to": lambda: os.rename("other", name),
        "rename back": lambda: os.rename(name, "other"),
        "rename noreplace": lambda: renameat2("other", name, RENAME_NOREPLACE),
        "and back": lambda: os.rename(name, "other"),
        "rename from": lambda: os.rename(name, "renamed"),
        "remove": lambda: os.unlink(name),
    }


def every_name(probe: Probe) -> None:
    """All calls on all names."""
    for label, name in NAMES.items():
        for call, act in _calls(name).items():
            probe.do(f"{label}: {call}", act)
        probe.note(f"{label}: left", sorted(os.listdir(".")))
        for left in ("linked", "renamed", "nowhere"):
            if os.path.lexists(left):
                os.rmdir(left) if Path(left).is_dir() and not Path(
                    left
                ).is_symlink() else os.unlink(left)
        if not os.path.lexists("other"):
            Path("other").write_bytes(b"x")
        for kept in ("file", "dir", "dirlink", "loop1", "loop2", "dangling"):
            if not os.path.lexists(kept):
                probe.note("lost", kept)


def targets(probe: Probe) -> None:
    """Symlinks with targets up to PATH_MAX."""
    for length in (1, 255, 256, 1023, 4000, 4094, 4095, 4096, 5000):
        probe.do(f"symlink {length}", lambda n=length: os.symlink("t" * n, f"s{n}"))  # type: ignore[misc]
        probe.look(f"s{length}")
        probe.do("readlink", lambda n=length: len(os.readlink(f"s{n}")) == n)  # type: ignore[misc]
    probe.do("empty target", lambda: os.symlink("", "empty"))
    for depth in range(45):
        os.symlink(f"chain{depth - 1}" if depth else ".", f"chain{depth}")
    for depth in (38, 39, 40, 41, 44):
        probe.do(f"chain {depth}", lambda d=depth: os.stat(f"chain{d}"))  # type: ignore[misc]


def deep(probe: Probe) -> None:
    """A path up to the last byte of PATH_MAX, and a tree that is deeper."""
    length = len(os.getcwdb())
    probe.note("relative", length > 0)
    here = os.open(".", os.O_RDONLY)
    names = []
    for depth in range(30):
        name = f"{depth:02}" + "x" * 198
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        names.append(name)
        path = "/".join(names)
        probe.do(f"stat at depth {depth}", lambda p=path: os.stat(p))  # type: ignore[misc]
    os.close(here)
    for extra in (4080, 4090, 4094, 4095, 4096):
        base = "/".join(names[:20])[: 20 * 201 - 1]
        path = base + "/" + "y" * (extra - len(base) - 1)
        probe.do(f"creat {extra}", lambda p=path: os.close(os.open(p, os.O_CREAT | os.O_RDWR)))  # type: ignore[misc]
        probe.do(f"rename {extra}", lambda p=path: os.rename(p, p[:-1] + "z"))  # type: ignore[misc]
    os.rename(names[0], "short")
    probe.do("rmtree", lambda: __import__("shutil").rmtree("short"))
    probe.note("left", sorted(os.listdir(".")))


def gone(probe: Probe) -> None:
    """A working directory, and open files, that have been removed."""
    os.mkdir("gone")
    back = os.open(".", os.O_RDONLY)
    os.chdir("gone")
    os.rmdir("../gone")
    probe.do("getcwd", lambda: os.getcwd() and None)
    probe.do("listdir", lambda: os.listdir("."))
    probe.do("stat", lambda: os.stat(".").st_nlink)
    for label, act in {
        "creat": lambda: os.open("x", os.O_CREAT | os.O_RDWR),
        "mkdir": lambda: os.mkdir("x"),
        "mkfifo": lambda: os.mkfifo("x"),
        "symlink": lambda: os.symlink("x", "y"),
        "link": lambda: os.link("../dir/in", "x"),
        "rename into": lambda: os.rename("../dir/in", "x"),
        "open missing": lambda: os.open("x", os.O_RDONLY),
        "chmod": lambda: os.chmod(".", 0o700),
        "utime": lambda: os.utime(".", ns=(1, 1)),
        "setxattr": lambda: os.setxattr(".", "user.a", b"1"),
        "getxattr": lambda: os.getxattr(".", "user.a"),
        "up": lambda: os.stat("..").st_nlink > 0,
        "tmpfile": lambda: os.open(".", os.O_TMPFILE | os.O_RDWR) and None,
    }.items():
        probe.do(label, act)
    os.chdir(back)
    os.close(back)
    probe.do("rmdir .", lambda: os.rmdir("dir/."))
    probe.do("rmdir ..", lambda: os.rmdir("dir/sub/.."))
    probe.do("rmdir full", lambda: os.rmdir("dir"))


def gone_base(root: Path) -> None:
    """What `gone` needs."""
    (root / "dir/sub").mkdir(parents=True)
    (root / "dir/in").write_bytes(b"x")


def case(probe: Probe) -> None:
    """Names that differ in case alone, or in Unicode normalisation, are different names."""
    for name in ("name", "Name", "NAME", "n\u00e9", "ne\u0301"):
        probe.do(f"creat {name}", lambda n=name: Path(n).write_text(n))  # type: ignore[misc]
    probe.note("all", sorted(os.listdir(".")))
    for name in ("name", "Name", "NAME", "n\u00e9", "ne\u0301"):
        probe.do("read", lambda n=name: Path(n).read_text())  # type: ignore[misc]


CASES: dict[str, tuple[Callable[[Path], None], Callable[[Probe], None]]] = {
    "names": (base, every_name),
    "symlink targets": (nothing, targets),
    "deep paths": (nothing, deep),
    "gone": (gone_base, gone),
    "case": (nothing, case),
}
