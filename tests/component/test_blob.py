from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from board_stage import leftovers

from supervisor.board.blob import BlobStore, MismatchError, TooLargeError


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


def add(blobs: BlobStore, tmp_path: Path, data: bytes) -> str:
    source = tmp_path / "source"
    source.write_bytes(data)
    sha256, size = blobs.add(str(source), 1 << 30)
    assert size == len(data)
    return sha256


@pytest.mark.parametrize("size", [0, 1, (1 << 18) - 1, 1 << 18, (1 << 19) + 7])
def test_a_blob_is_named_by_what_is_in_it(blobs: BlobStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    sha256 = add(blobs, tmp_path, data)
    assert sha256 == hashlib.sha256(data).hexdigest()
    path = tmp_path / "blobs" / "sha256" / sha256[:2] / sha256
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o444
    assert blobs.verify(sha256)
    assert blobs.copy_to(sha256, str(tmp_path / "copy")) == size
    assert (tmp_path / "copy").read_bytes() == data
    assert leftovers(tmp_path) == []


def test_a_blob_is_one_however_often_it_is_added(blobs: BlobStore, tmp_path: Path) -> None:
    assert add(blobs, tmp_path, b"x") == add(blobs, tmp_path, b"x")
    assert len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]) == 1


def test_adding_mends_a_blob_that_was_damaged(blobs: BlobStore, tmp_path: Path) -> None:
    sha256 = add(blobs, tmp_path, b"x")
    path = Path(blobs.path_of(sha256))
    path.chmod(0o644)
    path.write_bytes(b"y")
    assert not blobs.verify(sha256)
    add(blobs, tmp_path, b"x")
    assert blobs.verify(sha256)


def test_an_edited_blob_is_not_copied(blobs: BlobStore, tmp_path: Path) -> None:
    sha256 = add(blobs, tmp_path, b"x")
    path = Path(blobs.path_of(sha256))
    path.chmod(0o644)
    path.write_bytes(b"y")
    with pytest.raises(MismatchError, match=hashlib.sha256(b"y").hexdigest()):
        blobs.copy_to(sha256, str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_a_blob_that_is_missing_or_a_link_is_not_there(blobs: BlobStore, tmp_path: Path) -> None:
    sha256 = add(blobs, tmp_path, b"x")
    path = Path(blobs.path_of(sha256))
    path.rename(tmp_path / "moved")
    assert blobs.digest(sha256) is None
    with pytest.raises(MismatchError, match="is missing"):
        blobs.copy_to(sha256, str(tmp_path / "copy"))
    path.symlink_to(tmp_path / "moved")
    assert not blobs.verify(sha256)
    path.unlink()
    path.mkdir()
    assert not blobs.verify(sha256)


def test_a_copy_never_overwrites_or_follows(blobs: BlobStore, tmp_path: Path) -> None:
    sha256 = add(blobs, tmp_path, b"x")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        blobs.copy_to(sha256, str(tmp_path / "link"))
    assert not (tmp_path / "target").exists()


def test_more_than_the_limit_is_refused_and_leaves_nothing(
    blobs: BlobStore, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 101)
    with pytest.raises(TooLargeError):
        blobs.add(str(source), 100)
    assert blobs.add(str(source), 101)[1] == 101
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("bad", ["", "a" * 63, "A" * 64, "../" + "a" * 61, "g" * 64])
def test_only_a_digest_names_a_blob(blobs: BlobStore, bad: str) -> None:
    with pytest.raises(ValueError):
        blobs.open(bad)


@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "socket"])
def test_what_is_no_file_is_no_blob_and_nobody_waits_for_it(tmp_path: Path, kind: str) -> None:
    blobs = BlobStore(str(tmp_path / "blobs"))
    source = tmp_path / "source"
    source.write_text("x")
    sha256, _ = blobs.add(str(source), 10)
    path = Path(blobs.path_of(sha256))
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(source)
        case "socket":
            os.mknod(path, 0o600 | stat.S_IFSOCK)

    assert blobs.digest(sha256) is None
    with pytest.raises(MismatchError):
        blobs.copy_to(sha256, str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()
