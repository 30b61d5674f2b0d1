"""Cases: who may do what. Permission bits, sticky and set-group-ID directories, privilege lost."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from case_kind import nothing
from probe import GROUP, LONELY, MEMBER, OTHER, OWNER, Probe

MODES = (
    0o000,
    0o100,
    0o200,
    0o300,
    0o400,
    0o500,
    0o700,
    0o070,
    0o050,
    0o030,
    0o007,
    0o005,
    0o003,
    0o777,
)
USERS = ("owner", "member", "other", "root")


def _fill(directory: Path, owner: int = OWNER) -> None:
    directory.mkdir()
    (directory / "file").write_bytes(b"#!/bin/true\n")
    (directory / "sub").mkdir()
    (directory / "link").symlink_to("file")
    for name in ("file", "sub", "link", "."):
        os.chown(directory / name, owner, GROUP, follow_symlinks=False)
    (directory / "file").chmod(0o644)


def directories(root: Path) -> None:
    """A directory for each mode."""
    for mode in MODES:
        _fill(root / f"{mode:o}")
        (root / f"{mode:o}").chmod(mode)


def in_directories(probe: Probe) -> None:
    """What each user may do in a directory of each mode."""
    for mode in MODES:
        for user in USERS:
            d = f"{mode:o}"
            acts: dict[str, Callable[[], Any]] = {
                "listdir": lambda d=d: sorted(os.listdir(d)),
                "stat": lambda d=d: os.stat(f"{d}/file"),
                "readlink": lambda d=d: os.readlink(f"{d}/link"),
                "open r": lambda d=d: os.close(os.open(f"{d}/file", os.O_RDONLY)),
                "open w": lambda d=d: os.close(os.open(f"{d}/file", os.O_WRONLY)),
                "chmod": lambda d=d: os.chmod(f"{d}/file", 0o644),
                "utime": lambda d=d: os.utime(f"{d}/file"),
                "creat": lambda d=d: os.close(os.open(f"{d}/new", os.O_CREAT | os.O_RDWR)),
                "link": lambda d=d: os.link(f"{d}/file", f"{d}/linked"),
                "rename": lambda d=d: os.rename(f"{d}/new", f"{d}/newer"),
                "unlink": lambda d=d: os.unlink(f"{d}/newer"),
                "mkdir": lambda d=d: os.mkdir(f"{d}/made"),
                "rmdir": lambda d=d: os.rmdir(f"{d}/made"),
                "rename dir": lambda d=d: os.rename(f"{d}/sub", f"{d}/sub2"),
                "rename dir back": lambda d=d: os.rename(f"{d}/sub2", f"{d}/sub"),
                "symlink": lambda d=d: os.symlink("x", f"{d}/s"),
                "unlink symlink": lambda d=d: os.unlink(f"{d}/s"),
                "unlink linked": lambda d=d: os.unlink(f"{d}/linked"),
                "chdir": lambda d=d: (os.chdir(d), os.chdir(".."))[0],
                "access": lambda d=d: [os.access(d, w, effective_ids=True) for w in (1, 2, 4)],
            }
            for label, act in acts.items():
                probe.do(f"{d} {label}", act, user)


def files(root: Path) -> None:
    """A file for each mode."""
    for mode in MODES:
        path = root / f"{mode:o}"
        path.write_bytes(b"#!/bin/true\n")
        os.chown(path, OWNER, GROUP)
        path.chmod(mode)


def on_files(probe: Probe) -> None:
    """What each user may do to a file of each mode."""
    for mode in MODES:
        for user in USERS:
            f = f"{mode:o}"
            acts: dict[str, Callable[[], Any]] = {
                "open r": lambda f=f: os.close(os.open(f, os.O_RDONLY)),
                "open w": lambda f=f: os.close(os.open(f, os.O_WRONLY)),
                "open rw": lambda f=f: os.close(os.open(f, os.O_RDWR)),
                "noatime": lambda f=f: os.close(os.open(f, os.O_RDONLY | os.O_NOATIME)),
                "trunc": lambda f=f: os.close(os.open(f, os.O_RDONLY | os.O_TRUNC)),
                "truncate": lambda f=f: os.truncate(f, 12),
                "utime now": lambda f=f: os.utime(f),
                "utime then": lambda f=f: os.utime(f, (1, 1)),
                "access": lambda f=f: [os.access(f, w, effective_ids=True) for w in (1, 2, 4)],
                "getxattr": lambda f=f: os.getxattr(f, "user.x"),
                "setxattr": lambda f=f: os.setxattr(f, "user.x", b"1"),
                "removexattr": lambda f=f: os.removexattr(f, "user.x"),
                "trusted": lambda f=f: os.setxattr(f, "trusted.x", b"1"),
                "security": lambda f=f: os.setxattr(f, "security.x", b"1"),
                "chmod": lambda f=f, m=mode: os.chmod(f, m),
                "chown uid": lambda f=f: os.chown(f, MEMBER, -1),
                "chown back": lambda f=f: os.chown(f, OWNER, -1),
                "chgrp own": lambda f=f: os.chown(f, -1, LONELY),
                "chgrp back": lambda f=f: os.chown(f, -1, GROUP),
                "chown same": lambda f=f: os.chown(f, OWNER, GROUP),
                "chown none": lambda f=f: os.chown(f, -1, -1),
            }
            for label, act in acts.items():
                probe.do(f"{f} {label}", act, user)
                probe.look(f, f"{f} after {label} by {user}")
            os.truncate(f, 12)
            os.chmod(f, mode)


def sticky(root: Path) -> None:
    """Sticky directories of each owner, with files of each owner."""
    for name, owner in (("root", 0), ("owner", OWNER), ("member", MEMBER), ("other", OTHER)):
        directory = root / name
        directory.mkdir()
        os.chown(directory, owner, GROUP)
        directory.chmod(0o1777)
        for kind in ("owner", "member", "other"):
            uid = {"owner": OWNER, "member": MEMBER, "other": OTHER}[kind]
            (directory / f"f.{kind}").write_bytes(b"x")
            (directory / f"d.{kind}").mkdir()
            os.chown(directory / f"f.{kind}", uid, GROUP)
            os.chown(directory / f"d.{kind}", uid, GROUP)


def in_sticky(probe: Probe) -> None:
    """Who may remove and rename what, and over what."""
    for directory in ("root", "owner", "member", "other"):
        for victim in ("owner", "member", "other"):
            for user in ("owner", "member", "other"):
                for kind, make in (("f", _make_file), ("d", os.mkdir)):
                    path = f"{directory}/{kind}.{victim}"
                    label = f"{path}"
                    probe.do(f"{label} rename", lambda p=path: os.rename(p, p + "2"), user)
                    probe.do(f"{label} back", lambda p=path: os.rename(p + "2", p), user)
                    if not os.path.lexists(path):
                        os.rename(path + "2", path)
                    mine = f"{directory}/mine"
                    probe.do("make", lambda m=mine, k=make: k(m), user)
                    probe.do(f"{label} rename over", lambda m=mine, p=path: os.rename(m, p), user)
                    probe.do(
                        "tidy", lambda m=mine, k=kind: (os.unlink if k == "f" else os.rmdir)(m)
                    )
                    remove = os.unlink if kind == "f" else os.rmdir
                    probe.do(f"{label} remove", lambda p=path, r=remove: r(p), user)
                    if not os.path.lexists(path):
                        make(path)
                    uid = {"owner": OWNER, "member": MEMBER, "other": OTHER}[victim]
                    os.chown(path, uid, GROUP)


def _make_file(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o666))


def setgid(root: Path) -> None:
    """Set-group-ID directories."""
    for mode in (0o2777, 0o3777, 0o2775):
        directory = root / f"{mode:o}"
        directory.mkdir()
        os.chown(directory, OWNER, GROUP)
        directory.chmod(mode)


def in_setgid(probe: Probe) -> None:
    """Group and bits of what is made in them, by members of the group and others."""
    for mode in ("2777", "3777", "2775"):
        for user in ("root", "owner", "member", "other"):
            probe.moves("chown none", lambda m=mode: os.chown(m, -1, -1), mode, user=user)
            probe.look(mode, "after chown none")
            for bits in (0o0755, 0o2755, 0o2644, 0o6777, 0o1777):
                base = f"{mode}/{user}.{bits:o}"
                old = os.umask(0)
                probe.do("open", lambda b=base, m=bits: os.close(os.open(b, os.O_CREAT, m)), user)
                probe.do("mkdir", lambda b=base, m=bits: os.mkdir(b + ".d", m), user)
                probe.do("mkfifo", lambda b=base, m=bits: os.mkfifo(b + ".p", m), user)
                probe.do("symlink", lambda b=base: os.symlink("x", b + ".l"), user)
                os.umask(old)
                for ending in ("", ".d", ".p", ".l"):
                    probe.look(base + ending)
                probe.do("chmod", lambda b=base, m=bits: os.chmod(b, m | 0o2000), user)
                probe.look(base, "chmod g+s")
                probe.do("chmod d", lambda b=base: os.chmod(b + ".d", 0o2755), user)
                probe.look(base + ".d", "chmod g+s of a directory")


def privileged(root: Path) -> None:
    """Files with set-user-ID and set-group-ID bits."""
    for user in USERS:
        for mode in (0o4777, 0o2777, 0o6777, 0o2767, 0o6666):
            for number in range(10):
                path = root / f"{user}.{mode:o}.{number}"
                path.write_bytes(b"0123456789")
                os.chown(path, OWNER, GROUP)
                path.chmod(mode)


def lose_privilege(probe: Probe) -> None:
    """What takes the bits away: writing, truncating, chown, by whom."""
    for user in USERS:
        for mode in (0o4777, 0o2777, 0o6777, 0o2767, 0o6666):
            acts: list[tuple[str, Callable[[str], Any]]] = [
                ("write", lambda f: _write(f, os.O_WRONLY)),
                ("append", lambda f: _write(f, os.O_WRONLY | os.O_APPEND)),
                ("write nothing", lambda f: _write(f, os.O_WRONLY, b"")),
                ("truncate", lambda f: os.truncate(f, 3)),
                ("truncate same", lambda f: os.truncate(f, 10)),
                ("open trunc", lambda f: os.close(os.open(f, os.O_WRONLY | os.O_TRUNC))),
                ("chown none", lambda f: os.chown(f, -1, -1)),
                ("chown own", lambda f: os.chown(f, OWNER, GROUP)),
                ("chgrp", lambda f: os.chown(f, -1, GROUP)),
                ("ftruncate", _ftruncate),
            ]
            for number, (label, act) in enumerate(acts):
                path = f"{user}.{mode:o}.{number}"
                probe.do(f"{mode:o} {label}", lambda p=path, a=act: a(p), user)
                probe.look(path, f"after {label}")


def lend_descriptors(probe: Probe) -> None:
    """Who writes counts, not who opened the file."""
    source = probe.opened("a source", "source", os.O_RDWR | os.O_CREAT)
    os.write(source, b"0123456789")
    acts: tuple[tuple[str, Callable[[int], Any]], ...] = (
        ("write", lambda fd: os.write(fd, b"z")),
        ("pwrite", lambda fd: os.pwrite(fd, b"z", 4)),
        ("fallocate", lambda fd: os.posix_fallocate(fd, 0, 20)),
        ("copy", lambda fd: os.copy_file_range(source, fd, 3, 0, 0)),
        ("ftruncate", lambda fd: os.ftruncate(fd, 4)),
        ("mapping", _write_by_mapping),
    )
    for opener, writer in (("root", user) for user in USERS):
        _lend(probe, opener, writer, acts)
    for opener in ("owner", "member", "other"):
        _lend(probe, opener, "root", acts)


def _lend(
    probe: Probe, opener: str, writer: str, acts: tuple[tuple[str, Callable[[int], Any]], ...]
) -> None:
    for mode in (0o6777, 0o2767):
        for label, act in acts:
            path = f"{opener}.{writer}.{mode:o}.{label}"
            with open(path, "wb") as file:
                file.write(b"0123456789")
            os.chown(path, OWNER, GROUP)
            os.chmod(path, mode)
            fd = probe.opened(f"{mode:o} for {writer}", path, os.O_RDWR, user=opener)
            probe.do(label, lambda d=fd, a=act: a(d), writer)
            probe.look(path, f"after {label}")
            probe.look(fd, f"after {label}, by the descriptor")


def _write_by_mapping(fd: int) -> None:
    with mmap.mmap(fd, 10) as mapped:
        mapped[3] = ord("z")
        mapped.flush()


def _write(path: str, flags: int, data: bytes = b"z") -> None:
    fd = os.open(path, flags)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _ftruncate(path: str) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.ftruncate(fd, 4)
    finally:
        os.close(fd)


def across(root: Path) -> None:
    """Directories of different owners."""
    for name, uid, mode in (
        ("open", OTHER, 0o777),
        ("closed", OTHER, 0o755),
        ("own", OWNER, 0o755),
    ):
        (root / name).mkdir()
        (root / name / "dir").mkdir()
        (root / name / "file").write_bytes(b"x")
        for path in (root / name, root / name / "dir", root / name / "file"):
            os.chown(path, uid, GROUP)
        (root / name).chmod(mode)


def between(probe: Probe) -> None:
    """Renames between directories: both must be writable, and a moved directory its owner's."""
    names = ("open", "closed", "own")
    for old in names:
        for new in names:
            for kind in ("file", "dir"):
                for user in ("owner", "other"):
                    a, b = f"{old}/{kind}", f"{new}/{kind}.new"
                    probe.do(f"{a} -> {b}", lambda a=a, b=b: os.rename(a, b), user)
                    if os.path.lexists(b):
                        os.rename(b, a)
                    probe.do(f"link {a}", lambda a=a, b=b: os.link(a, b), user)
                    if os.path.lexists(b):
                        os.unlink(b)


def devices(probe: Probe) -> None:
    """Who may make which special file."""
    os.mkdir("d")
    os.chmod("d", 0o777)
    for user in ("root", "owner"):
        for label, kind, device in (
            ("file", stat.S_IFREG, 0),
            ("fifo", stat.S_IFIFO, 0),
            ("socket", stat.S_IFSOCK, 0),
            ("null", stat.S_IFCHR, os.makedev(1, 3)),
            ("block", stat.S_IFBLK, os.makedev(7, 1)),
            ("big numbers", stat.S_IFCHR, os.makedev(4000, 200_000)),
            ("directory", stat.S_IFDIR, 0),
            ("link", stat.S_IFLNK, 0),
        ):
            path = f"d/{user}.{label}"
            probe.do(label, lambda p=path, k=kind, d=device: os.mknod(p, k | 0o644, d), user)
            probe.look(path)


CASES: dict[str, tuple[Callable[[Path], None], Callable[[Probe], None]]] = {
    "directories of all modes": (directories, in_directories),
    "files of all modes": (files, on_files),
    "sticky directories": (sticky, in_sticky),
    "set-group-ID directories": (setgid, in_setgid),
    "losing privilege": (privileged, lose_privilege),
    "lent descriptors": (nothing, lend_descriptors),
    "between directories": (across, between),
    "special files": (nothing, devices),
}
