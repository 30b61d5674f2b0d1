"""A replica shows what its checkout and layers have; its difference is the layer that was made."""

from __future__ import annotations

import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from sandbox.repository.repository import find
from sandbox.tiers import replica
from sandbox.tiers.checkout import EPOCH_NS, Checkouts
from tests.gitbox import make_repository, opaque, whiteout, write

FILES: dict[str, str | bytes] = {
    "a": "a\n",
    "d/one": "1\n",
    "d/two": "2\n",
    "d/deep/three": "3\n",
    "e/same": "1\n",
    "gone/x": "x\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> str:
    repo = find(make_repository(tmp_path / "repo", FILES))
    return Checkouts(str(tmp_path / "checkouts"), os.getuid(), os.getgid()).checkout(
        repo, repo.tree
    )


def made(tmp_path: Path, checkout: str, *layers: Path, private: bool = True) -> Path:
    target = tmp_path / f"replica{len(list(tmp_path.glob('replica*')))}"
    replica.make(
        str(target),
        f"{target}.manifest",
        checkout=checkout,
        layers=[str(layer) for layer in layers],
        private=private,
        uid=os.getuid(),
        gid=os.getgid(),
    )
    return target


def settled(tmp_path: Path, target: Path) -> Path:
    upper = tmp_path / f"{target.name}.upper"
    replica.settle(str(target), f"{target}.manifest", str(upper))
    return upper


def content(path: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for parent, directories, files in os.walk(path):
        for name in (*directories, *files):
            full = Path(parent, name)
            mode = full.lstat().st_mode
            data = b""
            if stat.S_ISLNK(mode):
                data = os.readlink(full).encode()
            elif stat.S_ISREG(mode):
                data = full.read_bytes()
            found[str(full.relative_to(path))] = (mode, data)
    return found


def test_a_checkout_is_what_git_has_and_twice_it_shares_its_files(
    tmp_path: Path, checkout: str
) -> None:
    assert {k: v[1].decode() for k, v in content(Path(checkout)).items() if v[1]} == FILES
    # Two files of the same content are two files: `mv one other` must do something.
    assert Path(checkout, "d/one").stat().st_ino != Path(checkout, "e/same").stat().st_ino
    repo = find(tmp_path / "repo")
    write(repo.root / "a", "changed\n")
    again = find(make_repository(tmp_path / "other", {**FILES, "a": "changed\n"}))
    second = Checkouts(str(tmp_path / "checkouts"), os.getuid(), os.getgid()).checkout(
        again, again.tree
    )
    assert Path(second, "d/two").stat().st_ino == Path(checkout, "d/two").stat().st_ino
    assert Path(second, "a").read_text() == "changed\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda top: (top / "d/one").write_text("evil\n"),
        lambda top: (top / "d/one").unlink(),
        lambda top: (top / "d/more").write_text(""),
        lambda top: (top / "a").chmod(0o777),
        lambda top: (shutil.rmtree(top / "d"), (top / "d").symlink_to("/etc")),
    ],
)
def test_a_damaged_checkout_is_made_again(tmp_path: Path, checkout: str, damage: object) -> None:
    damage(Path(checkout))  # type: ignore[operator]
    repo = find(tmp_path / "repo")

    again = Checkouts(str(tmp_path / "checkouts"), os.getuid(), os.getgid()).checkout(
        repo, repo.tree
    )

    assert {k: v[1].decode() for k, v in content(Path(again)).items() if v[1]} == FILES
    assert sorted(os.listdir(tmp_path / "checkouts")) == ["files", "trees"]


def test_layers_are_merged_as_overlayfs_does(tmp_path: Path, checkout: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one / "a", "from one\n")
    whiteout(one / "gone")
    opaque(one / "d")
    write(one / "d/new", "new\n")
    write(two / "d/newer", "newer\n")
    (two / "a").symlink_to("d/new")

    for private in (True, False):
        target = made(tmp_path, checkout, one, two, private=private)
        seen = {k: v[1] for k, v in content(target).items() if v[1]}
        assert seen == {
            "a": b"d/new",
            "d/new": b"new\n",
            "d/newer": b"newer\n",
            "e/same": b"1\n",
        }


def test_a_reader_shares_files_and_a_writer_does_not(tmp_path: Path, checkout: str) -> None:
    held = Path(checkout, "d/one").stat()

    reader, writer = made(tmp_path, checkout, private=False), made(tmp_path, checkout)

    assert (reader / "d/one").stat().st_ino == held.st_ino
    assert (writer / "d/one").stat().st_ino != held.st_ino
    assert (writer / "d/one").stat().st_mtime_ns == EPOCH_NS


def test_nothing_changed_is_an_empty_layer(tmp_path: Path, checkout: str) -> None:
    assert content(settled(tmp_path, made(tmp_path, checkout))) == {}


def test_a_change_whose_times_were_set_back_is_found(tmp_path: Path, checkout: str) -> None:
    target = made(tmp_path, checkout)
    (target / "a").write_text("b\n")
    os.utime(target / "a", ns=(EPOCH_NS, EPOCH_NS))

    assert (settled(tmp_path, target) / "a").read_text() == "b\n"


def test_settling_again_after_a_crash_gives_the_same(tmp_path: Path, checkout: str) -> None:
    target = made(tmp_path, checkout)
    shutil.rmtree(target / "d")
    (target / "a").write_text("b\n")
    (tmp_path / f"{target.name}.upper.new").mkdir()  # what one that was killed has left
    write(tmp_path / f"{target.name}.upper.new/half", "half\n")

    upper = settled(tmp_path, target)

    assert sorted(os.listdir(upper)) == ["a", "d"]
    assert (target / "a").read_text() == "b\n"


@pytest.mark.parametrize("seed", range(8))
def test_the_difference_gives_back_what_was_there(tmp_path: Path, checkout: str, seed: int) -> None:
    """Whatever a writer does: its layer over the same checkout is what it has left."""
    target = made(tmp_path, checkout)
    _meddle(target, random.Random(seed))

    again = made(tmp_path, checkout, settled(tmp_path, target))

    assert content(again) == content(target)


def _meddle(top: Path, chance: random.Random) -> None:
    for _ in range(25):
        everything = sorted(top.rglob("*"))
        at = chance.choice(everything) if everything else top
        match chance.randrange(7):
            case 0 if at.is_file() and not at.is_symlink():
                at.write_text(f"{chance.random()}")
            case 1 if at.is_symlink() or at.is_file():
                at.unlink()
            case 2 if at.is_dir() and not at.is_symlink():
                shutil.rmtree(at)
            case 3:
                parent = at if at.is_dir() and not at.is_symlink() else at.parent
                where = parent / f"n{chance.randrange(9)}"
                if not where.exists() and not where.is_symlink():
                    write(where / "f", "new\n")
            case 4 if at.exists() and not at.is_symlink():
                at.chmod(chance.choice((0o755, 0o700, 0o750)))
            case 5:
                if at.is_dir() and not at.is_symlink():
                    shutil.rmtree(at)
                else:
                    at.unlink()
                at.symlink_to("somewhere")
            case 6 if at.is_file() and not at.is_symlink():
                at.unlink()
                at.mkdir()
                write(at / "inside", "in\n")


def test_a_tree_that_its_owner_may_not_read_becomes_a_layer_all_the_same(
    tmp_path: Path, checkout: str
) -> None:
    target = made(tmp_path, checkout)
    (target / "new").write_text("work")
    target.chmod(0)
    upper = settled(tmp_path, target)
    assert (upper / "new").read_text() == "work"
    assert stat.S_IMODE(upper.stat().st_mode) == 0o700
