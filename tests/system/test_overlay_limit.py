"""A lane's file system that may take only so much: who writes is told, and the host is spared."""

from __future__ import annotations

import errno
import mmap
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from mounting import Served, enter_private_namespace, requests_waiting, served, staged

from sandbox.syscalls import FALLOC_FL_KEEP_SIZE, fallocate

LIMIT = 4 << 20
PIECE = b"x" * (128 << 10)


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Served]:
    enter_private_namespace()
    base = tmp_path / "base"
    base.mkdir()
    (base / "big").write_bytes(os.urandom(3 << 20))
    (base / "small").write_text("small")
    stage = staged(tmp_path)
    spec = replace(stage.writable(), limit_bytes=LIMIT)
    with served(spec) as mounted:
        yield mounted
    assert taken(Path(spec.upper or "")) <= LIMIT + (1 << 20)


@pytest.fixture
def top(lane: Served) -> Path:
    return lane.mountpoint


def taken(directory: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


def fill(path: Path) -> int:
    """Writes until there is no space; returns how much fitted."""
    total = 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        while True:
            total += os.write(fd, PIECE)
    except OSError as error:
        assert error.errno == errno.ENOSPC
        return total
    finally:
        os.close(fd)


def test_writing_ends_with_enospc_at_the_limit(top: Path) -> None:
    assert LIMIT - 2 * len(PIECE) <= fill(top / "file") <= LIMIT


def test_what_is_removed_can_be_written_again(top: Path) -> None:
    fill(top / "file")
    (top / "file").unlink()

    assert fill(top / "other") >= LIMIT - 4 * len(PIECE)


def test_what_is_cut_off_can_be_written_again(top: Path) -> None:
    fill(top / "file")
    os.truncate(top / "file", 0)

    assert fill(top / "file") >= LIMIT - 4 * len(PIECE)


def test_at_the_limit_what_has_blocks_can_be_written_in_any_way(top: Path) -> None:
    fd = os.open(top / "file", os.O_RDWR | os.O_CREAT)
    fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20)
    holes = os.open(top / "holes", os.O_RDWR | os.O_CREAT)
    os.ftruncate(holes, 1 << 20)
    os.pwrite(holes, PIECE, 2 * len(PIECE))
    fill(top / "other")

    assert os.pwrite(fd, PIECE, 0) == len(PIECE)
    fallocate(fd, 0, 0, 1 << 20)
    assert os.copy_file_range(fd, fd, len(PIECE), 0, len(PIECE)) == len(PIECE)
    assert os.pwrite(holes, PIECE, 2 * len(PIECE)) == len(PIECE)
    for grow in (
        lambda: fallocate(fd, 0, 1 << 20, 1 << 20),
        lambda: os.copy_file_range(fd, holes, 2 * len(PIECE), 0, 0),
        lambda: os.pwrite(holes, PIECE * 4, 4 * len(PIECE)),
    ):
        with pytest.raises(OSError, match="No space left"):
            grow()
    for each in (fd, holes):
        os.close(each)


def test_a_file_without_a_name_counts_while_it_is_open(top: Path) -> None:
    fd = os.open(top / "file", os.O_WRONLY | os.O_CREAT)
    os.unlink(top / "file")
    total = 0
    with pytest.raises(OSError, match="No space left") as raised:
        while total <= LIMIT:
            total += os.write(fd, PIECE)
            (top / "touched").touch()
            (top / "touched").unlink()
    os.close(fd)

    assert raised.value.errno == errno.ENOSPC
    assert fill(top / "other") >= LIMIT - 8 * len(PIECE)


def test_what_nobody_holds_any_more_is_free_though_others_wrote_first(
    lane: Served, tmp_path: Path
) -> None:
    """The kernel tells of it after requests that came later (FORGET, in fuse_dev_do_read)."""
    top = lane.mountpoint
    writers = [os.open(top / f"w{number}", os.O_WRONLY | os.O_CREAT) for number in range(20)]
    held_size = fill(top / "file")
    held = os.open(top / "file", os.O_PATH)
    (top / "file").unlink()
    with pytest.raises(OSError, match="No space left"):
        os.pwrite(writers[0], PIECE * 2, 0)

    with (
        requests_waiting(lane, tmp_path / "connections") as waiting,
        ThreadPoolExecutor(len(writers)) as pool,
    ):
        os.kill(lane.pid, signal.SIGSTOP)
        os.close(held)
        written = [pool.submit(os.pwrite, fd, PIECE, 0) for fd in writers]
        while waiting() < len(writers):
            os.sched_yield()
        os.kill(lane.pid, signal.SIGCONT)
        assert sum(each.result() for each in written) == len(writers) * len(PIECE) < held_size
    for fd in writers:
        os.close(fd)


def test_writing_in_place_goes_on_at_the_limit(top: Path) -> None:
    fill(top / "file")
    fd = os.open(top / "file", os.O_WRONLY)

    assert os.pwrite(fd, PIECE, 0) == len(PIECE)
    with pytest.raises(OSError, match="No space left"):
        os.pwrite(fd, PIECE, 1 << 30)
    os.close(fd)


def test_a_copy_up_counts(top: Path) -> None:
    with open(top / "big", "r+b") as file:
        file.write(b"y")

    assert fill(top / "file") < LIMIT - (3 << 20)


def test_a_copy_up_that_does_not_fit_changes_nothing(top: Path) -> None:
    fill(top / "file")
    before = (top / "big").read_bytes()

    with pytest.raises(OSError, match="No space left"):
        os.open(top / "big", os.O_WRONLY)
    assert (top / "big").read_bytes() == before


def test_empty_files_are_not_for_free(top: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        for number in range(LIMIT):
            (top / f"f{number}").touch()

    assert number <= LIMIT // 4096


def test_a_mapping_counts_too(top: Path) -> None:
    with open(top / "file", "w+b") as file:
        file.truncate(LIMIT * 2)  # a hole
        with mmap.mmap(file.fileno(), LIMIT * 2) as pages:
            for at in range(0, LIMIT * 2, 4096):
                pages[at] = 1
            with pytest.raises(OSError, match=r"No space left|Input/output"):
                pages.flush()
                os.fsync(file.fileno())


def test_df_says_how_much_there_is(top: Path) -> None:
    found = os.statvfs(top)

    assert found.f_blocks * found.f_frsize == LIMIT
    fill(top / "file")
    assert os.statvfs(top).f_bavail * found.f_frsize < 2 * len(PIECE)
