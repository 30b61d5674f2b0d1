"""One file under random reading, writing, mapping and truncating, against a model in memory."""

from __future__ import annotations

import errno
import mmap
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from mounting import Stage, enter_private_namespace, served, staged

from sandbox.syscalls import FALLOC_FL_KEEP_SIZE as KEEP_SIZE
from sandbox.syscalls import FALLOC_FL_PUNCH_HOLE as PUNCH_HOLE
from sandbox.syscalls import fallocate

ZERO_RANGE = 0x10
_LIMIT_BYTES = 300_000
_PAGE = mmap.PAGESIZE


def can_zero(directory: Path) -> bool:
    """Whether the file system there can zero a range; a tmpfs cannot."""
    with open(directory / "zeroed", "wb") as file:
        try:
            fallocate(file.fileno(), ZERO_RANGE, 0, 1)
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP
            return False
    return True


class Exerciser:
    """Does the same to a file and to a bytearray.

    `is_passed_through`: first it is opened for writing alone, so that the kernel reads and writes
    it by itself, where it can, whoever else opens it.
    """

    def __init__(
        self, path: Path, model: bytearray, seed: int, *, zeroes: bool, is_passed_through: bool
    ) -> None:
        self.zeroes = zeroes
        self.is_passed_through = is_passed_through
        self.path = path
        self.model = model
        self.chosen = random.Random(seed)
        self.aligned = mmap.mmap(-1, 16 * _PAGE)
        self.log: list[tuple[object, ...]] = []
        self.open()

    def open(self) -> None:
        self.writers = [os.open(self.path, os.O_WRONLY)] if self.is_passed_through else []
        self.buffered = os.open(self.path, os.O_RDWR)
        self.writers.append(self.buffered)
        self.direct = os.open(self.path, os.O_RDWR | os.O_DIRECT)

    def close(self) -> None:
        for fd in (*self.writers, self.direct):
            os.close(fd)

    def extent(self, limit: int) -> tuple[int, int]:
        at = self.chosen.randrange(limit) if limit else 0
        return at, self.chosen.randint(1, 1 << self.chosen.randint(0, 16))

    def data(self, count: int) -> bytes:
        return self.chosen.randbytes(min(count, 64)) * (count // 64 + 1)

    def store(self, at: int, data: bytes) -> None:
        if len(self.model) < at:
            self.model.extend(bytes(at - len(self.model)))
        self.model[at : at + len(data)] = data

    def step(self) -> None:
        name = self.chosen.choice(_STEPS)
        getattr(self, name)()
        assert os.fstat(self.buffered).st_size == len(self.model), self.log[-10:]

    def read(self) -> None:
        at, count = self.extent(len(self.model) + 1000)
        self.log.append(("read", at, count))
        expected = self.model[at : at + count]
        assert os.pread(self.buffered, count, at) == expected, self.log[-10:]

    def write(self) -> None:
        at, count = self.extent(_LIMIT_BYTES)
        data = self.data(count)[:count]
        self.log.append(("write", at, count))
        assert os.pwrite(self.chosen.choice(self.writers), data, at) == count
        self.store(at, data)

    def read_direct(self) -> None:
        at = self.chosen.randrange(len(self.model) // _PAGE + 1) * _PAGE
        pages = self.chosen.randint(1, 16)
        self.log.append(("direct read", at, pages * _PAGE))
        view = memoryview(self.aligned)[: pages * _PAGE]
        count = os.preadv(self.direct, [view], at)
        assert bytes(view[:count]) == self.model[at : at + pages * _PAGE], self.log[-10:]

    def write_direct(self) -> None:
        at = self.chosen.randrange(_LIMIT_BYTES // _PAGE) * _PAGE
        size = self.chosen.randint(1, 16) * _PAGE
        self.aligned[:size] = self.data(size)[:size]
        self.log.append(("direct write", at, size))
        assert os.pwritev(self.direct, [memoryview(self.aligned)[:size]], at) == size
        self.store(at, self.aligned[:size])

    def map_read(self) -> None:
        if not self.model:
            return
        with mmap.mmap(self.buffered, len(self.model), prot=mmap.PROT_READ) as mapped:
            at, count = self.extent(len(self.model))
            self.log.append(("map read", at, count))
            assert mapped[at : at + count] == self.model[at : at + count], self.log[-10:]

    def map_write(self) -> None:
        if not self.model:
            return
        with mmap.mmap(self.buffered, len(self.model)) as mapped:
            at, count = self.extent(len(self.model))
            count = min(count, len(self.model) - at)
            data = self.data(count)[:count]
            self.log.append(("map write", at, count))
            mapped[at : at + count] = data
            if self.chosen.random() < 0.3:
                mapped.flush()
        self.store(at, data)

    def truncate(self) -> None:
        size = self.chosen.randrange(_LIMIT_BYTES)
        self.log.append(("truncate", size))
        if self.chosen.random() < 0.5:
            os.ftruncate(self.buffered, size)
        else:
            os.truncate(self.path, size)
        if size < len(self.model):
            del self.model[size:]
        else:
            self.model.extend(bytes(size - len(self.model)))

    def append(self) -> None:
        if len(self.model) > _LIMIT_BYTES:
            return
        data = self.data(100)[: self.chosen.randint(1, 100)]
        self.log.append(("append", len(data)))
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, data)
        os.close(fd)
        self.model.extend(data)

    def allocate(self) -> None:
        at, count = self.extent(_LIMIT_BYTES)
        self.log.append(("posix_fallocate", at, count))
        os.posix_fallocate(self.buffered, at, count)
        if at + count > len(self.model):
            self.model.extend(bytes(at + count - len(self.model)))

    def punch(self) -> None:
        at, count = self.extent(_LIMIT_BYTES)
        self.log.append(("punch a hole", at, count))
        fallocate(self.buffered, KEEP_SIZE | PUNCH_HOLE, at, count)
        end = min(at + count, len(self.model))
        if end > at:
            self.model[at:end] = bytes(end - at)

    def zero(self) -> None:
        at, count = self.extent(_LIMIT_BYTES)
        if not self.zeroes:
            return
        self.log.append(("zero a range", at, count))
        fallocate(self.buffered, ZERO_RANGE, at, count)
        self.store(at, bytes(count))

    def holes(self) -> None:
        """What SEEK_DATA passes over is zero."""
        self.log.append(("holes",))
        at = 0
        while at < len(self.model):
            try:
                data = os.lseek(self.buffered, at, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                data = len(self.model)
            assert not any(self.model[at:data]), self.log[-10:]
            if data < len(self.model):
                data = os.lseek(self.buffered, data, os.SEEK_HOLE)
            at = data

    def copy(self) -> None:
        if len(self.model) < 2:
            return
        half = len(self.model) // 2
        at = self.chosen.randrange(half)
        count = self.chosen.randint(1, half - at) if half > at else 1
        target = half + self.chosen.randrange(1000)
        self.log.append(("copy_file_range", at, count, target))
        copied = os.copy_file_range(self.buffered, self.buffered, count, at, target)
        self.store(target, bytes(self.model[at : at + copied]))

    def sync(self) -> None:
        self.log.append(("fsync",))
        os.fsync(self.buffered)

    def reopen(self) -> None:
        self.log.append(("reopen",))
        self.close()
        self.open()

    def forget(self) -> None:
        self.log.append(("drop the page cache",))
        os.fsync(self.buffered)
        os.posix_fadvise(self.buffered, 0, 0, os.POSIX_FADV_DONTNEED)

    def rename(self) -> None:
        self.log.append(("rename",))
        other = self.path.with_name("renamed")
        self.path.rename(other)
        other.rename(self.path)


_STEPS = (
    *("read", "write", "map_read", "map_write", "read_direct", "write_direct") * 4,
    *(
        "truncate",
        "append",
        "allocate",
        "copy",
        "punch",
        "zero",
        "holes",
        "reopen",
        "forget",
        "rename",
        "sync",
    ),
)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    enter_private_namespace()
    (tmp_path / "base").mkdir()
    (tmp_path / "base/git").write_bytes(bytes(range(256)) * 800)
    return staged(tmp_path)


@pytest.mark.parametrize("is_passed_through", [False, True])
@pytest.mark.parametrize("name", ["git", "layer", "sparse", "born"])
def test_a_file_is_always_what_was_written(
    stage: Stage, name: str, is_passed_through: bool, request: pytest.FixtureRequest
) -> None:
    layer = stage.directory("layer")
    (layer / "layer").write_bytes(b"layer" * 40_000)
    with open(layer / "sparse", "wb") as file:
        file.seek(100_000)
        file.write(b"data")
        file.truncate(250_000)
    zeroes = can_zero(stage.directory("beside"))
    spec = replace(stage.writable(), layers=(str(layer),))
    is_long = request.config.getoption("--long")
    seed = random.randrange(1 << 30) if is_long else 7
    with served(spec) as lane:
        path = lane.mountpoint / name
        if name == "born":
            path.touch()
        model = bytearray(path.read_bytes())
        exerciser = Exerciser(path, model, seed, zeroes=zeroes, is_passed_through=is_passed_through)
        for _ in range(50_000 if is_long else 400):
            exerciser.step()
        exerciser.close()
        assert path.read_bytes() == model
    assert spec.upper is not None
    assert Path(spec.upper, name).read_bytes() == model, f"seed {seed}"
