"""Files that the kernel reads and writes by itself, and those that it does not, in any order.

The oracle is a plain directory: the same is done to both, with any number of descriptors of each
kind and with mappings that outlive them, and every answer compared.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from lanebox import git_lane
from mounting import Served, enter_private_namespace, requests_waiting, served, staged

from sandbox.descriptor import readable
from supervisor.keeper.mount import Server
from tests.faultbox import await_true
from tests.gitbox import make_repository

_EXAMPLES = 60
_LARGE = b"large\n" * 200_000
_FLAGS = (
    os.O_RDONLY,
    os.O_RDONLY,
    os.O_WRONLY,
    os.O_WRONLY,
    os.O_RDWR,
    os.O_WRONLY | os.O_APPEND,
    os.O_RDWR | os.O_APPEND,
    os.O_WRONLY | os.O_TRUNC,
    os.O_RDWR | os.O_TRUNC,
)
_NAMES = ("lower", "large", "born", "d/deep")
_MAPPED_BYTES = 5000
_TICK_NS = 20_000_000  # longer than that of the clock that files get their times from

names = st.sampled_from(_NAMES)


@dataclass(eq=False)
class Open:
    """One file, open on both sides."""

    fds: tuple[int, int]
    mode: int


@dataclass(eq=False)
class Mapping:
    """One file, mapped on both sides. `name` stays open in the plain directory alone."""

    maps: tuple[Mapped, Mapped]
    fd: int
    can_store: bool


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 2, *[ctypes.c_int] * 2, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Mapped:
    """A shared or private mapping. Python's own holds a descriptor as long as it lives."""

    def __init__(self, fd: int, size: int, flags: int, protection: int) -> None:
        self._size = size
        self._at = _libc.mmap(None, size, protection, flags, fd, 0)
        assert self._at != ctypes.c_void_p(-1).value
        self._view = memoryview((ctypes.c_char * size).from_address(self._at)).cast("B")

    def __getitem__(self, part: slice) -> bytes:
        return bytes(self._view[part])

    def __setitem__(self, part: slice, data: bytes) -> None:
        self._view[part] = data

    def close(self) -> None:
        self._view.release()
        _libc.munmap(self._at, self._size)


def _outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except OSError as error:
        return error.errno


class TwoSides(RuleBasedStateMachine):
    """Does everything twice: in the mount and in a plain directory."""

    roots: tuple[Path, Path]
    numbers: Iterator[int]

    files = Bundle("files")
    mappings = Bundle("mappings")

    @initialize()
    def begin(self) -> None:
        self.opened: list[Open] = []
        self.mapped: list[Mapping] = []
        number = next(self.numbers)
        self.where = tuple(root / str(number) for root in self.roots)

    def same(self, function: Callable[..., Any], *relative: str) -> Any:
        """What both sides answer."""
        found = [_outcome(function, *(side / r for r in relative)) for side in self.where]
        assert found[0] == found[1]
        return found[0]

    def same_fd(self, file: Open, function: Callable[..., Any], *arguments: Any) -> None:
        found = [_outcome(function, fd, *arguments) for fd in file.fds]
        assert found[0] == found[1]

    @rule(target=files, name=names, flags=st.sampled_from(_FLAGS), creates=st.booleans())
    def open(self, name: str, flags: int, creates: bool) -> Any:
        flags |= os.O_CREAT if creates else 0
        errors, fds = [], []
        for side in self.where:
            try:
                fds.append(os.open(side / name, flags, 0o644))
                errors.append(0)
            except OSError as error:
                errors.append(error.errno)
        assert errors[0] == errors[1]
        if errors[0]:
            return multiple()
        file = Open((fds[0], fds[1]), flags & os.O_ACCMODE)
        self.opened.append(file)
        return file

    @rule(file=consumes(files))
    def close(self, file: Open) -> None:
        self.opened.remove(file)
        for fd in file.fds:
            os.close(fd)

    @rule(file=files, at=st.integers(0, 9000), size=st.sampled_from((1, 100, 4096, 200_000)))
    def read(self, file: Open, at: int, size: int) -> None:
        self.same_fd(file, lambda fd: os.pread(fd, size, at))

    @rule(
        file=files,
        at=st.integers(0, 9000),
        data=st.sampled_from((b"x", b"some text", b"y" * 4096, b"z" * 70_000)),
    )
    def write(self, file: Open, at: int, data: bytes) -> None:
        self.same_fd(file, lambda fd: os.pwrite(fd, data, at))

    @rule(file=files, size=st.sampled_from((0, 1, 4095, 4096, 5000, 100_000)))
    def truncate(self, file: Open, size: int) -> None:
        self.same_fd(file, os.ftruncate, size)

    @rule(file=files, data=st.sampled_from((b"in sequence", b"s" * 5000)))
    def write_on(self, file: Open, data: bytes) -> None:
        self.same_fd(file, os.write, data)

    @rule(file=files)
    def append_or_no_more(self, file: Open) -> None:
        for fd in file.fds:
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) ^ os.O_APPEND)

    @rule(file=files)
    def allocate(self, file: Open) -> None:
        self.same_fd(file, os.posix_fallocate, 100, 5000)

    @rule(source=files, sink=files)
    def copy(self, source: Open, sink: Open) -> None:
        pairs = zip(source.fds, sink.fds, strict=True)
        found = [_outcome(os.copy_file_range, *pair, 1000, 0, 2_000_000) for pair in pairs]
        assert found[0] == found[1]

    @rule(file=files)
    def sync(self, file: Open) -> None:
        self.same_fd(file, os.fsync)

    @rule(target=mappings, file=files, is_private=st.booleans())
    def map(self, file: Open, is_private: bool) -> Any:
        if file.mode == os.O_WRONLY or os.fstat(file.fds[1]).st_size < _MAPPED_BYTES:
            return multiple()
        can_store = file.mode == os.O_RDWR or is_private
        flags = mmap.MAP_PRIVATE if is_private else mmap.MAP_SHARED
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if can_store else 0)
        ours, theirs = (Mapped(fd, _MAPPED_BYTES, flags, protection) for fd in file.fds)
        mapping = Mapping((ours, theirs), os.dup(file.fds[1]), can_store)
        self.mapped.append(mapping)
        return mapping

    @rule(mapping=mappings, at=st.integers(0, 2000), data=st.sampled_from((b"mapped", b"m" * 3000)))
    def store(self, mapping: Mapping, at: int, data: bytes) -> None:
        # Beyond the end of a file that was cut off there is SIGBUS.
        if mapping.can_store and os.fstat(mapping.fd).st_size >= _MAPPED_BYTES:
            for side in mapping.maps:
                side[at : at + len(data)] = data

    @rule(mapping=mappings)
    def load(self, mapping: Mapping) -> None:
        if os.fstat(mapping.fd).st_size >= _MAPPED_BYTES:
            assert mapping.maps[0][:] == mapping.maps[1][:]

    @rule(mapping=consumes(mappings))
    def unmap(self, mapping: Mapping) -> None:
        self.mapped.remove(mapping)
        for side in mapping.maps:
            side.close()
        os.close(mapping.fd)

    @rule(name=names, other=names)
    def rename(self, name: str, other: str) -> None:
        self.same(os.rename, name, other)

    @rule(name=names, other=names)
    def link(self, name: str, other: str) -> None:
        self.same(os.link, name, other)

    @rule(name=names)
    def unlink(self, name: str) -> None:
        self.same(os.unlink, name)

    @rule(name=names)
    def compare(self, name: str) -> None:
        self.same(lambda path: path.stat().st_size, name)
        self.same(lambda path: path.read_bytes(), name)

    @rule(file=files)
    def compare_open(self, file: Open) -> None:
        self.same_fd(file, lambda fd: os.fstat(fd).st_size)
        self.same_fd(file, lambda fd: os.fstat(fd).st_nlink)

    def teardown(self) -> None:
        for file in getattr(self, "opened", ()):
            for fd in file.fds:
                os.close(fd)
        for mapping in getattr(self, "mapped", ()):
            for side in mapping.maps:
                side.close()
            os.close(mapping.fd)
        if hasattr(self, "where"):
            for name in _NAMES:
                self.compare(name)


def _fill(base: Path) -> None:
    for number in range(_EXAMPLES + 20):
        (base / f"{number}/d").mkdir(parents=True)
        (base / f"{number}/lower").write_bytes(b"lower\n" * 1000)
        (base / f"{number}/large").write_bytes(_LARGE)
        (base / f"{number}/d/deep").write_bytes(b"deep\n" * 1000)


def test_any_mix_of_open_files_is_one_file(tmp_path: Path) -> None:
    enter_private_namespace()
    _fill(tmp_path / "base")
    stage = staged(tmp_path)
    plain = tmp_path / "plain"
    shutil.copytree(stage.checkout, plain)
    with served(stage.writable()) as mounted:

        class Machine(TwoSides):
            roots = (mounted.mountpoint, plain)
            numbers = count()

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=_EXAMPLES,
                stateful_step_count=60,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            ),
        )


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Served]:
    enter_private_namespace()
    (tmp_path / "base").mkdir()
    (tmp_path / "base/lower").write_bytes(b"lower\n" * 1000)
    with served(staged(tmp_path).writable()) as made:
        yield made


def test_writing_needs_no_request(tmp_path: Path) -> None:
    enter_private_namespace()
    host = make_repository(tmp_path / "host", {"a": "a\n"})
    with git_lane(tmp_path, host) as lane:
        with open(lane.path / "big", "wb", buffering=0) as file:
            before = lane.server.counters()
            file.writelines(b"x" * 100_000 for _ in range(100))
            after = lane.server.counters()
        assert (lane.path / "big").stat().st_size == 10_000_000
        if after["write"] > before["write"]:
            pytest.skip("this kernel passes nothing through: Linux 6.12 does, to a server of root")
        assert after["operations"] - before["operations"] <= 2


def test_writing_is_a_sign_of_life_all_the_same(tmp_path: Path) -> None:
    enter_private_namespace()
    host = make_repository(tmp_path / "host", {"a": "a\n"})
    with git_lane(tmp_path, host) as lane, open(lane.path / "log", "wb", buffering=0) as file:
        deadline = time.monotonic() + 10
        while lane.server.counters()["write"] < 2:
            assert time.monotonic() < deadline
            file.write(b"a line\n")
            time.sleep(0.01)


def test_what_a_mapping_changes_after_the_file_was_closed_is_seen(tmp_path: Path) -> None:
    enter_private_namespace()
    host = make_repository(tmp_path / "host", {"a": "a\n"})
    with git_lane(tmp_path, host) as lane:
        path = lane.path / "a"
        # The first open is passed through, so the second is.
        writer = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(writer, b"a" * 5000)
        fd = os.open(path, os.O_RDWR)
        mapped = mmap.mmap(fd, 5000)
        os.fsync(fd)
        os.close(fd)
        os.close(writer)
        assert " M a" in lane.status()
        lane.git("commit", "-qam", "two")
        assert lane.status() == [""]
        before = path.stat().st_mtime_ns
        while time.time_ns() < before + _TICK_NS:
            os.sched_yield()
        mapped[0:3] = b"new"
        assert path.stat().st_mtime_ns > before
        assert path.read_bytes()[:4] == b"newa"
        assert " M a" in lane.status()
        mapped.close()


@pytest.mark.parametrize("first", [os.O_WRONLY, os.O_RDONLY])
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_DIRECT])
def test_who_opens_a_file_that_is_mapped_shares_the_mapping(
    mounted: Served, first: int, flags: int
) -> None:
    path = mounted.mountpoint / "large"
    path.write_bytes(_LARGE)
    others = os.open(path, first), os.open(path, os.O_RDWR)
    both = mmap.PROT_READ | mmap.PROT_WRITE
    mapped = Mapped(others[1], 100, mmap.MAP_SHARED, both)
    for each in others:
        os.close(each)
    fd = os.open(path, flags)
    again = Mapped(fd, 100, mmap.MAP_SHARED, both)
    os.close(fd)
    mapped[0:3] = b"one"
    assert again[0:3] == path.read_bytes()[:3] == b"one"
    again[0:3] = b"two"
    assert mapped[0:3] == path.read_bytes()[:3] == b"two"
    again.close()
    mapped.close()


@pytest.mark.parametrize("mode", [0o644, 0o4755])
def test_pages_that_were_read_ahead_do_not_hide_what_is_written_later(
    mounted: Served, tmp_path: Path, mode: int
) -> None:
    path = mounted.mountpoint / "large"
    path.write_bytes(_LARGE)
    reader, writer = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
    with requests_waiting(mounted, tmp_path / "connections") as waiting:
        os.posix_fadvise(reader, 0, len(_LARGE), os.POSIX_FADV_WILLNEED)
        while waiting():
            os.sched_yield()
    os.pwrite(writer, b"new", 0)
    for each in (reader, writer):
        os.close(each)
    path.chmod(mode)
    with open(path, "r+b") as file:
        assert file.read(3) == b"new"


@pytest.mark.parametrize(("uid", "mode"), [(0, 0o6777), (65534, 0o777)])
def test_a_file_made_set_user_id_while_it_is_open_stays_so_for_root_alone(
    tmp_path: Path, uid: int, mode: int
) -> None:
    enter_private_namespace()
    (tmp_path / "base").mkdir()
    for above in (tmp_path, *tmp_path.parents[:-2]):
        above.chmod(above.stat().st_mode | 0o011)
    with served(staged(tmp_path).writable()) as mounted:
        path = mounted.mountpoint / "made"
        path.touch(0o777)
        path.chmod(0o777)
        told, tell = socket.socketpair()
        with told, tell:
            pid = os.fork()
            if pid == 0:
                os.setresuid(uid, uid, uid)
                fd = os.open(path, os.O_WRONLY)
                tell.send(b"open")
                tell.recv(1)
                os.write(fd, b"x")
                os._exit(0)
            assert told.recv(4) == b"open"
            path.chmod(0o6777)
            told.send(b"!")
            os.waitpid(pid, 0)
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_who_opens_a_file_sees_no_hole_where_a_mapping_has_written(mounted: Served) -> None:
    path = mounted.mountpoint / "sparse"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 20)
    with mmap.mmap(fd, 1 << 20) as mapping:
        os.close(fd)
        mapping[1 << 19] = 1
        fd = os.open(path, os.O_RDONLY)
        assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 19
        os.close(fd)


def test_pages_of_before_are_not_shown_after_a_write_past_them(mounted: Served) -> None:
    path = mounted.mountpoint / "lower"
    with open(path, "r+b") as file:  # O_RDWR is never passed through by itself
        file.write(b"first")
    assert path.read_bytes()[:5] == b"first"
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"other")
    os.close(fd)
    assert path.read_bytes()[:5] == b"other"
    assert path.read_bytes()[5:] == (b"lower\n" * 1000)[5:]


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("flag", [os.O_APPEND, os.O_DIRECT])
def test_what_fcntl_takes_back_is_gone(mounted: Served, flag: int, others: int) -> None:
    """dd(1) takes O_DIRECT back to write what is left when no whole block is."""
    path = mounted.mountpoint / "lower"
    writers = [os.open(path, os.O_WRONLY) for _ in range(others)]
    writers.append(os.open(path, os.O_WRONLY | os.O_TRUNC | flag))
    blocks = mmap.mmap(-1, 8192)
    assert os.writev(writers[-1], [blocks]) == 8192
    fcntl.fcntl(writers[-1], fcntl.F_SETFL, 0)
    for at, fd in enumerate(writers):
        assert os.pwrite(fd, b"new", at) == 3
        os.close(fd)
    assert path.read_bytes() == (b"nnew" if others else b"new").ljust(8192, b"\0")


def test_server_stays_until_the_jail_is_dead_that_may_still_write(tmp_path: Path) -> None:
    """The next attempt begins when the lane's lock is free, and is to find nothing that moves."""
    enter_private_namespace()
    (tmp_path / "base").mkdir()
    (tmp_path / "base/lower").write_bytes(b"lower")
    spec = staged(tmp_path).writable()
    told, tell = os.pipe()
    with Server(spec) as server:
        server.await_ready()
        jail = os.fork()
        if jail == 0:
            fd = os.open(f"{spec.mountpoint}/made", os.O_WRONLY | os.O_CREAT)
            os.write(tell, b"!")
            while True:
                os.write(fd, b"x" * 100)
                os.sched_yield()
        try:
            os.read(told, 1)
            server.attend(jail)
            # As the kernel does when its keeper has died.
            os.kill(server.pid, signal.SIGTERM)
            await_true(lambda: not os.path.ismount(spec.mountpoint), "the mount to be gone")
            assert not readable(server.fileno(), 0.5)
        finally:
            os.kill(jail, signal.SIGKILL)
            os.waitpid(jail, 0)
        assert readable(server.fileno(), 10)
