"""What programs rely on, each once, in a write mount over a git tree and a layer."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mounting import EPOCH_NS, Served, Stage, enter_private_namespace, served, staged, stop

from sandbox.syscalls import (
    CLONE_NEWNS,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    MS_PRIVATE,
    MS_REC,
    fallocate,
    mount,
    unshare,
)
from sandbox.union.spec import MountSpec


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    enter_private_namespace()
    base = tmp_path / "base"
    (base / "d/e").mkdir(parents=True)
    (base / "file").write_text("content")
    (base / "d/file").write_text("below")
    (base / "d/e/file").write_text("deep")
    (base / "script").write_text("#!/bin/sh\nexit 3\n")
    (base / "script").chmod(0o755)
    (base / "link").symlink_to("file")
    os.symlink(b"\xff\xfe", bytes(base) + b"/caf\xe9")
    return staged(tmp_path)


@pytest.fixture
def spec(stage: Stage) -> MountSpec:
    return stage.writable()


@pytest.fixture
def lane(spec: MountSpec) -> Iterator[Served]:
    with served(spec) as mounted:
        yield mounted


@pytest.fixture
def root(lane: Served) -> Path:
    return lane.mountpoint


def test_the_git_tree_is_there_with_its_modes_and_one_time(root: Path) -> None:
    assert os.stat(root / "file").st_mtime_ns == EPOCH_NS
    assert os.stat(root / "d/e").st_mtime_ns == EPOCH_NS
    assert stat.S_IMODE(os.stat(root / "script").st_mode) == 0o755
    assert os.spawnv(os.P_WAIT, str(root / "script"), ["script"]) == 3
    assert os.readlink(bytes(root) + b"/caf\xe9") == b"\xff\xfe"
    assert {b".", b".."} <= set(_getdents(root))


def _getdents(path: Path) -> list[bytes]:
    import subprocess

    return subprocess.run(["ls", "-a", path], capture_output=True, check=True).stdout.split()


def test_inode_numbers_are_the_same_in_another_mount_of_the_tree(root: Path, stage: Stage) -> None:
    with served(stage.read_only()) as other:
        for name in ("file", "d", "d/e/file", "link"):
            assert os.lstat(root / name).st_ino == os.lstat(other.mountpoint / name).st_ino


def test_inode_numbers_survive_copy_up_and_rename(root: Path) -> None:
    before = os.stat(root / "d/file").st_ino
    (root / "d/file").write_text("changed")
    os.rename(root / "d", root / "moved")
    assert os.stat(root / "moved/file").st_ino == before
    assert os.stat(root / "moved").st_dev == os.stat(root).st_dev


def test_a_renamed_directory_keeps_its_times_whatever_was_removed_in_it(root: Path) -> None:
    (root / "d/file").unlink()
    os.utime(root / "d", ns=(1, 2))
    os.rename(root / "d", root / "moved")
    assert os.stat(root / "moved").st_mtime_ns == 2


def test_an_unlinked_file_lives_until_it_is_closed(root: Path) -> None:
    for name in ("file", "new"):
        with open(root / name, "a+b", buffering=0) as file:
            (root / name).unlink()
            assert os.fstat(file.fileno()).st_nlink == 0
            file.write(b"more")
            file.seek(0)
            assert file.read().endswith(b"more")
            os.fchmod(file.fileno(), 0o600)
            os.utime(file.fileno(), ns=(1, 2))
            assert os.fstat(file.fileno()).st_mtime_ns == 2
            again = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
            assert os.read(again, 100).endswith(b"more")
            os.close(again)
        assert not (root / name).exists()


def test_an_unlinked_lower_file_that_is_open_for_reading_stays_whole(root: Path) -> None:
    with open(root / "file", "rb") as file:
        (root / "file").unlink()
        assert os.fstat(file.fileno()).st_nlink == 0
        os.fchmod(file.fileno(), 0o640)
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o640
        assert file.read() == b"content"


def test_who_reads_sees_what_who_writes_does(root: Path) -> None:
    reader = os.open(root / "file", os.O_RDONLY)
    writer = os.open(root / "file", os.O_WRONLY)
    os.pwrite(writer, b"CON", 0)
    assert os.pread(reader, 100, 0) == b"CONtent"
    os.close(reader)
    os.close(writer)


def test_a_shared_mapping_reaches_the_upper_directory(lane: Served, spec: MountSpec) -> None:
    path = lane.mountpoint / "big"
    path.write_bytes(b"\0" * 100_000)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[50_000:50_005] = b"dirty"
        # Neither msync nor close: unmounting alone has to write it back.
        assert spec.upper is not None
        del file
    assert stop(lane) == 0
    assert (Path(spec.upper) / "big").read_bytes()[50_000:50_005] == b"dirty"


def test_a_server_ends_while_a_copy_of_its_namespace_still_has_the_mount(
    lane: Served, spec: MountSpec
) -> None:
    copied, told = os.pipe()
    holder = os.fork()
    if holder == 0:
        unshare(CLONE_NEWNS)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        os.write(told, b"x")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(copied, 1) == b"x"
        (lane.mountpoint / "new").write_text("content")
        os.kill(lane.pid, signal.SIGTERM)
        end = os.pidfd_open(lane.pid)
        assert select.select([end], [], [], 20)[0]
        os.close(end)
        assert stop(lane) == 0
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        os.close(copied)
        os.close(told)
    assert spec.upper is not None
    assert (Path(spec.upper) / "new").read_text() == "content"


def test_appends_of_several_writers_do_not_overwrite(root: Path) -> None:
    descriptors = [os.open(root / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT) for _ in range(3)]
    for number in range(30):
        os.write(descriptors[number % 3], b"%02d\n" % number)
    for fd in descriptors:
        os.close(fd)
    assert (root / "log").read_bytes() == b"".join(b"%02d\n" % n for n in range(30))


def test_direct_writes_are_seen_by_buffered_reads(root: Path) -> None:
    (root / "f").write_bytes(b"a" * 8192)
    assert (root / "f").read_bytes()[:1] == b"a"
    fd = os.open(root / "f", os.O_WRONLY | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as aligned:
        aligned.write(b"b" * 4096)
        os.pwrite(fd, aligned, 0)
    os.close(fd)
    assert (root / "f").read_bytes() == b"b" * 4096 + b"a" * 4096


def test_files_over_4_gib_and_their_holes_survive_copy_up(stage: Stage) -> None:
    layer = stage.directory("layer")
    with open(layer / "sparse", "wb") as file:
        file.truncate(5 << 30)
        file.seek(4 << 30)
        file.write(b"data")
    spec = replace(stage.writable(), layers=(str(layer),))
    with served(spec) as lane:
        path = lane.mountpoint / "sparse"
        with open(path, "r+b") as file:
            file.seek((5 << 30) - 3)
            file.write(b"end")
            file.seek(4 << 30)
            assert file.read(4) == b"data"
    assert spec.upper is not None
    status = os.stat(Path(spec.upper, "sparse"))
    assert status.st_size == 5 << 30
    assert status.st_blocks * 512 < 1 << 20


def test_names_of_255_bytes_work_and_of_256_are_refused(root: Path) -> None:
    (root / ("n" * 255)).write_text("x")
    (root / ("n" * 255)).rename(root / ("m" * 255))
    (root / ("m" * 255)).unlink()
    for attempt in (os.lstat, os.mkdir, os.unlink, lambda p: os.open(p, os.O_CREAT)):
        with pytest.raises(OSError) as caught:
            attempt(root / ("n" * 256))
        assert caught.value.errno == errno.ENAMETOOLONG


def test_trees_deeper_than_path_max_can_be_built_and_removed(root: Path) -> None:
    import shutil

    here = os.open(root, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("n" * 100, dir_fd=here)
        below = os.open("n" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    fd = os.open("deepest", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(fd, b"x")
    os.close(fd)
    os.close(here)
    os.rename(root / ("n" * 100), root / "short")
    shutil.rmtree(root / "short")
    assert not (root / "short").exists()


def as_user(uid: int, directory: Path, act: Callable[[], None]) -> None:
    """Runs `act` in a process of that user, with `directory` for its own."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.chdir(directory)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            act()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_setgid_directories_hand_their_group_down(root: Path) -> None:
    (root / "g").mkdir()
    os.chown(root / "g", 0, 4242)
    (root / "g").chmod(0o2775)
    (root / "g/file").write_text("")
    (root / "g/sub").mkdir()
    assert os.stat(root / "g/file").st_gid == 4242
    assert os.stat(root / "g/sub").st_gid == 4242
    assert os.stat(root / "g/sub").st_mode & stat.S_ISGID


def test_a_write_by_an_ordinary_user_clears_set_user_id(root: Path) -> None:
    (root / "suid").write_text("x")
    (root / "suid").chmod(0o6777)

    def write() -> None:
        fd = os.open("suid", os.O_WRONLY)
        os.write(fd, b"y")

    as_user(1, root, write)
    assert stat.S_IMODE(os.stat(root / "suid").st_mode) == 0o777


def test_new_files_belong_to_who_makes_them_under_their_umask(root: Path) -> None:
    (root / "open").mkdir()
    (root / "open").chmod(0o1777)

    def make() -> None:
        os.umask(0o027)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir("directory", 0o777)
        os.symlink("x", "link")
        os.mkfifo("fifo", 0o666)

    as_user(7, root / "open", make)
    for name in ("file", "directory", "link", "fifo"):
        status = os.lstat(root / "open" / name)
        assert (status.st_uid, status.st_gid) == (7, 7)
    assert stat.S_IMODE(os.stat(root / "open/file").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(root / "open/directory").st_mode) == 0o750


def test_locks_work_between_processes(root: Path) -> None:
    (root / "lock").write_text("")
    with open(root / "lock", "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        pid = os.fork()
        if pid == 0:
            status = 0
            with open(root / "lock", "r+") as other:
                for lock in (fcntl.flock, fcntl.lockf):
                    try:
                        lock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        status = 1
                    except OSError:
                        pass
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_reserved_attributes_are_hidden_and_refused(root: Path, spec: MountSpec) -> None:
    (root / "d/file").unlink()
    os.rename(root / "d", root / "moved")
    assert spec.upper is not None
    assert os.getxattr(Path(spec.upper, "moved"), "user.overlay.opaque") == b"y"
    assert os.listxattr(root / "moved") == []
    with pytest.raises(OSError) as caught:
        os.getxattr(root / "moved", "user.overlay.opaque")
    assert caught.value.errno == errno.ENODATA
    for name in ("user.overlay.opaque", "user.overlay.redirect"):
        with pytest.raises(PermissionError):
            os.setxattr(root / "moved", name, b"y")
    with pytest.raises(OSError) as caught:
        os.setxattr(root / "file", "system.posix_acl_access", b"\2\0\0\0")
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("name", ["file", "d", "below", "below/file", "below/pipe"])
def test_an_attribute_call_that_must_fail_copies_nothing_up(stage: Stage, name: str) -> None:
    layer = stage.directory("layer")
    (layer / "below").mkdir()
    (layer / "below/file").write_text("of a layer")
    os.mkfifo(layer / "below/pipe")
    spec = replace(stage.writable(), layers=(str(layer),))
    assert spec.upper is not None
    with served(spec) as lane:
        path = lane.mountpoint / name
        for code, attempt in (
            (errno.ENODATA, lambda: os.getxattr(path, "trusted.none")),
            (errno.EOPNOTSUPP, lambda: os.getxattr(path, "odd.none")),
            (errno.EOPNOTSUPP, lambda: os.getxattr(path, "system.none")),
            (errno.EINVAL, lambda: os.getxattr(path, "trusted.")),
            (errno.EINVAL, lambda: os.setxattr(path, "trusted.", b"1")),
            (errno.ENODATA, lambda: os.removexattr(path, "trusted.none")),
            (errno.EOPNOTSUPP, lambda: os.removexattr(path, "odd.none")),
            (errno.EOPNOTSUPP, lambda: os.setxattr(path, "odd.none", b"1")),
            (errno.EOPNOTSUPP, lambda: os.setxattr(path, "system.none", b"1")),
            (errno.EPERM, lambda: os.removexattr(path, "user.overlay.opaque")),
        ):
            if code == errno.EPERM and name.endswith("pipe"):
                continue  # the VFS answers for it
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == code
        assert os.listdir(spec.upper) == []
        os.setxattr(path, "trusted.one", b"1")
        os.removexattr(path, "trusted.one")
        with pytest.raises(OSError) as caught:
            os.removexattr(path, "trusted.one")
        assert caught.value.errno == errno.ENODATA
        assert os.path.lexists(Path(spec.upper, name))


def test_a_directory_listing_is_stable_while_it_changes(root: Path) -> None:
    (root / "many").mkdir()
    names = {f"file{number:04}" for number in range(2000)}
    for name in names:
        (root / "many" / name).write_text("")
    seen = []
    with os.scandir(root / "many") as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) % 3 == 0:
                (root / "many" / entry.name).unlink()
                (root / "many" / f"new{len(seen)}").write_text("")
    old = [name for name in seen if name.startswith("file")]
    assert sorted(old) == sorted(names)


def test_sockets_and_fifos_work(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        os.chdir(root)
        try:
            server.bind("socket")
            server.listen()
            client.connect("socket")
        finally:
            os.chdir("/")
    os.mkfifo(root / "fifo")
    reader = os.open(root / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(root / "fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    os.close(writer)


def test_statfs_is_that_of_the_upper_file_system(root: Path, spec: MountSpec) -> None:
    assert spec.upper is not None
    assert os.statvfs(root).f_blocks == os.statvfs(spec.upper).f_blocks
    assert os.statvfs(root).f_namemax == 255


def test_file_handles_stay_valid(root: Path) -> None:
    before = os.stat(root / "d/e/file").st_ino
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("2")
    assert os.stat(root / "d/e/file").st_ino == before


def test_grafts_appear_and_stay_out_of_the_layer(stage: Stage) -> None:
    spec = replace(stage.writable(), grafts=(".git", "d/cache/deep", "d/e"))
    with served(spec) as lane:
        root = lane.mountpoint
        assert os.listdir(root / ".git") == []
        assert os.listdir(root / "d/cache") == ["deep"]
        assert os.listdir(root / "d/e") == ["file"]
        for path in (".git", "d/cache/deep", "d/e", "d"):
            with pytest.raises(OSError) as caught:
                os.rename(root / path, root / "elsewhere")
            assert caught.value.errno == errno.EBUSY
        with pytest.raises(OSError) as caught:
            os.rmdir(root / ".git")
        assert caught.value.errno == errno.EBUSY
        with pytest.raises(OSError) as caught:
            (root / ".git/x").write_text("")
        assert caught.value.errno == errno.EROFS
        (root / "d/cache/file").write_text("kept")
        os.mkdir(root / "fresh")
    assert spec.upper is not None
    upper = Path(spec.upper)
    assert sorted(p.name for p in upper.iterdir()) == ["d", "fresh"]
    assert [p.name for p in (upper / "d/cache").iterdir()] == ["file"]


def test_a_symlink_planted_in_the_upper_directory_leads_nowhere(
    stage: Stage, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("host's")
    (secret / "file").chmod(0o600)
    spec = stage.writable()
    assert spec.upper is not None
    (Path(spec.upper) / "d").symlink_to(secret)
    with served(spec) as lane:
        assert os.readlink(lane.mountpoint / "d") == str(secret)
        # Behind the server's back, where it knows a file: it must not follow.
        (lane.mountpoint / "plain").write_text("ours")
        os.unlink(Path(spec.upper, "plain"))
        Path(spec.upper, "plain").symlink_to(secret / "file")
        for attempt in (
            lambda path: os.chmod(path, 0o777),
            lambda path: os.truncate(path, 0),
            lambda path: os.setxattr(path, "user.a", b"1"),
            lambda path: os.chown(path, 1, 1),
        ):
            try:
                attempt(lane.mountpoint / "plain")
            except OSError:
                pass
    assert (secret / "file").read_text() == "host's"
    assert stat.S_IMODE(os.stat(secret / "file").st_mode) == 0o600
    assert os.stat(secret / "file").st_uid == 0
    assert os.listxattr(secret / "file") == []


def test_thirty_two_layers_stack(stage: Stage) -> None:
    layers = []
    for number in range(32):
        layer = stage.directory(f"layer{number}")
        (layer / "d").mkdir()
        (layer / f"d/from{number}").write_text("x")
        (layer / "top").write_text(str(number))
        layers.append(str(layer))
    with served(stage.read_only(layers=tuple(layers))) as mounted:
        assert (mounted.mountpoint / "top").read_text() == "31"
        assert len(os.listdir(mounted.mountpoint / "d")) == 34


def test_several_names_of_a_lower_file_stay_one_file(stage: Stage) -> None:
    layer = stage.directory("layer")
    (layer / "d").mkdir()
    (layer / "one").write_text("shared")
    for name in ("two", "d/three", "d/four"):
        os.link(layer / "one", layer / name)
    (layer / "d/five").symlink_to("x")
    os.link(layer / "d/five", layer / "six", follow_symlinks=False)
    spec = replace(stage.writable(), layers=(str(layer),))
    with served(spec) as lane:
        root = lane.mountpoint
        inode = os.stat(root / "one").st_ino
        (root / "two").write_text("written")
        assert (root / "d/three").read_text() == "written"
        for name in ("one", "two", "d/three", "d/four"):
            assert os.stat(root / name).st_ino == inode
            assert os.stat(root / name).st_nlink == 4
        (root / "d/three").unlink()
        os.rename(root / "d", root / "moved")
        assert os.stat(root / "moved/four").st_nlink == 3
        (root / "six").unlink()
        assert os.lstat(root / "moved/five").st_nlink == 1
    assert spec.upper is not None
    assert os.stat(Path(spec.upper, "one")).st_nlink == 3
    assert (layer / "one").read_text() == "shared"


def test_no_way_of_growing_a_file_leads_past_the_limit(stage: Stage) -> None:
    spec = replace(stage.writable(), limit_bytes=4 << 20)
    with served(spec) as lane:
        root = lane.mountpoint
        (root / "source").write_bytes(b"x" * (3 << 20))
        fd = os.open(root / "new", os.O_RDWR | os.O_CREAT)
        source = os.open(root / "source", os.O_RDONLY)
        nameless = os.open(root, os.O_TMPFILE | os.O_RDWR)
        for attempt in (
            lambda: fallocate(fd, 0, 0, 2 << 20),
            lambda: os.posix_fallocate(fd, 0, 2 << 20),
            lambda: os.copy_file_range(source, fd, 3 << 20, 0, 0),
            lambda: os.pwrite(nameless, b"y" * (2 << 20), 0) and os.pwrite(nameless, b"y", 0),
        ):
            with pytest.raises(OSError) as caught:
                attempt()
                attempt()
            assert caught.value.errno == errno.ENOSPC
        fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 4 << 20)
        os.ftruncate(nameless, 0)
        fallocate(fd, 0, 0, 1 << 19)
        for each in (fd, source, nameless):
            os.close(each)
