"""Objects straight out of pack files, against git."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from sandbox.git.packed import Packs
from tests.gitbox import ENV, make_repository

_MANY = 3000


def _git(repository: Path, *arguments: str, given: bytes = b"") -> bytes:
    return subprocess.run(
        ["git", *arguments], cwd=repository, env=ENV, check=True, capture_output=True, input=given
    ).stdout


def _objects(repository: Path) -> dict[bytes, bytes]:
    """All objects that git finds, with their content."""
    listed = _git(repository, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
    found = {}
    for name in listed.split():
        kind = _git(repository, "cat-file", "-t", name.decode()).decode().strip()
        found[bytes.fromhex(name.decode())] = _git(repository, "cat-file", kind, name.decode())
    return found


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    chosen = random.Random(1)
    files: dict[str, str | bytes] = {
        "empty": b"",
        "one": b"x",
        "text": b"line of text\n" * 5000,
        "noise": chosen.randbytes(300_000),
        "d/a": b"a" * 15,
        "d/b": b"b" * 16,
        "d/c": b"c" * 2048,
    }
    # Like enough to be kept as differences.
    common = b"".join(b"%d\n" % chosen.randrange(10**9) for _ in range(400))
    files |= {f"alike{n}": common + b"%d\n" % n for n in range(4)}
    return make_repository(tmp_path / "host", files)


def _packs(repository: Path, oid_size: int = 20) -> Packs:
    return Packs([repository / ".git/objects"], oid_size)


def test_what_it_finds_is_what_git_finds(repository: Path) -> None:
    expected = _objects(repository)
    assert all(_packs(repository).read(oid) is None for oid in expected), "all are loose"

    _git(repository, "repack", "-adfq")
    packs = _packs(repository)
    found = {oid: data for oid in expected if (data := packs.read(oid)) is not None}
    assert all(expected[oid] == data for oid, data in found.items())
    differences = len(expected) - len(found)
    assert 1 <= differences <= 3, "of four files alike one is whole"
    assert packs.read(bytes(20)) is None
    assert packs.read(b"\xff" * 20) is None


def test_every_one_of_many_is_found(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "host", {"a": "a"})
    stream = b"".join(
        b"blob\nmark :%d\ndata %d\n%d\n" % (n, len(b"%d" % n), n) for n in range(1, _MANY)
    )
    _git(repository, "fast-import", "--quiet", given=stream)
    _git(repository, "repack", "-aqd", "--keep-unreachable")
    packs = _packs(repository)
    names = _git(
        repository, "hash-object", "--stdin-paths", "--no-filters",
        given=b"".join(_written(tmp_path, n) for n in range(1, _MANY)),
    ).split()  # fmt: skip
    for number, name in enumerate(names, 1):
        assert packs.read(bytes.fromhex(name.decode())) == b"%d" % number


def _written(where: Path, number: int) -> bytes:
    path = where / f"n{number}"
    path.write_text(str(number))
    return os.fsencode(path) + b"\n"


def test_the_newest_names_of_hashes_are_longer(tmp_path: Path) -> None:
    repository = tmp_path / "host"
    repository.mkdir()
    _git(repository, "init", "-q", "--object-format=sha256")
    (repository / "a").write_text("content\n")
    _git(repository, "add", "a")
    _git(repository, "commit", "-qm", "one")
    _git(repository, "repack", "-adq")
    packs = _packs(repository, 32)
    for oid, content in _objects(repository).items():
        assert packs.read(oid) == content


def test_damage_is_left_to_others(repository: Path) -> None:
    _git(repository, "repack", "-adfq")
    expected = _objects(repository)
    path = next((repository / ".git/objects/pack").glob("*.pack"))
    whole = bytearray(path.read_bytes())
    chosen = random.Random(2)
    path.chmod(0o644)
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chosen.randrange(12, len(whole) - 20)] ^= 1 << chosen.randrange(8)
        path.write_bytes(damaged)
        packs = _packs(repository)
        for oid, content in expected.items():
            # Sound, or not at all: a checksum is in each.
            assert packs.read(oid) in (content, None)


def test_what_is_no_pack_is_passed_over(tmp_path: Path) -> None:
    pack = tmp_path / "objects/pack"
    pack.mkdir(parents=True)
    (pack / "empty.idx").touch()
    (pack / "short.idx").write_bytes(b"\377tOc\0\0\0\2")
    (pack / "short.pack").write_bytes(b"PACK")
    (pack / "alone.idx").write_bytes(bytes(2000))
    assert Packs([tmp_path / "objects", tmp_path / "none"], 20).read(bytes(20)) is None
