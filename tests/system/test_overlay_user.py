"""The overlay as an ordinary user: in a user namespace that knows one uid, mounted by mount(2)."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounting import Stage, served, staged

from sandbox.syscalls import CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_SLAVE, mount, prctl, unshare

ORDINARY_UID = 54321
_PR_SET_DUMPABLE = 4


@pytest.fixture
def place() -> Iterator[Path]:
    if os.geteuid() == 0:
        os.chmod("/dev/fuse", 0o666)
    path = Path(tempfile.mkdtemp(prefix="nanosup-user-", dir="/tmp"))
    path.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(path, ORDINARY_UID, ORDINARY_UID)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def as_ordinary_user(act: Callable[[], None]) -> None:
    """Runs `act` in a process with one uid, in mount and user namespaces of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
                os.setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
                # Else /proc/self stays root's.
                prctl(_PR_SET_DUMPABLE, 1)
            uid, gid = os.getuid(), os.getgid()
            unshare(CLONE_NEWUSER | CLONE_NEWNS)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
            mount("none", "/", None, MS_REC | MS_SLAVE)
            act()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as report:
        said = report.read().decode()
    _pid, status = os.waitpid(pid, 0)
    if "Operation not permitted" in said and "unshare" in said:
        pytest.skip("this host forbids user namespaces")
    assert os.waitstatus_to_exitcode(status) == 0, said


def _stage(place: Path) -> Stage:
    base = place / "base"
    (base / "directory/below").mkdir(parents=True)
    (base / "directory/below/file").write_text("deep")
    (base / "directory/file").write_text("from git")
    (base / "program").write_text("#!/bin/sh\n")
    (base / "program").chmod(0o755)
    (base / "gone").write_text("x")
    return staged(place)


def test_a_user_writes_removes_and_renames(place: Path) -> None:
    def act() -> None:
        stage = _stage(place)
        spec = stage.writable()
        with served(spec) as lane:
            root = lane.mountpoint
            assert os.stat(root / "directory/file").st_uid == os.getuid()
            (root / "directory/file").write_text("changed")
            (root / "gone").unlink()
            (root / "directory").rename(root / "moved")
            (root / "directory").mkdir()
            (root / "program").chmod(0o700)
            os.setxattr(root / "program", "user.a", b"1")
            (root / "secret").mkdir(mode=0o000)
            (root / "secret").chmod(0o700)
            os.link(root / "program", root / "linked")
            with pytest.raises(OSError, match="Invalid argument"):
                os.chown(root / "program", 0, 0)  # there is no such user in here
            with pytest.raises(PermissionError):
                os.mknod(root / "whiteout", stat.S_IFCHR, 0)
            assert os.listdir(root / "directory") == []
        assert spec.upper is not None
        upper = Path(spec.upper)
        assert stat.S_ISCHR(os.lstat(upper / "gone").st_mode)
        assert os.getxattr(upper / "directory", "user.overlay.opaque") == b"y"
        with served(stage.read_only(layers=(spec.upper,))) as sealed:
            root = sealed.mountpoint
            assert (root / "moved/file").read_text() == "changed"
            assert (root / "moved/below").is_dir()
            assert not (root / "gone").exists()
            assert os.getxattr(root / "program", "user.a") == b"1"
            with pytest.raises(OSError, match="Read-only") as caught:
                (root / "x").write_text("")
            assert caught.value.errno == errno.EROFS

    as_ordinary_user(act)


def test_a_read_only_directory_of_a_layer_can_be_copied_up(place: Path) -> None:
    def act() -> None:
        stage = _stage(place)
        layer = stage.directory("layer")
        (layer / "closed").mkdir()
        (layer / "closed/file").write_text("x")
        (layer / "closed").chmod(0o555)
        spec = stage.writable()
        spec = type(spec)(
            **{f: getattr(spec, f) for f in spec.__dataclass_fields__ if f != "layers"},
            layers=(str(layer),),
        )
        with served(spec) as lane:
            (lane.mountpoint / "closed/file").chmod(0o600)
            assert stat.S_IMODE(os.stat(lane.mountpoint / "closed").st_mode) == 0o555
        (layer / "closed").chmod(0o755)

    as_ordinary_user(act)
