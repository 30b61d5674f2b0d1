"""Full, read-only and forbidden disks: one sentence, and the board is as it was.

Each test mounts a tiny tmpfs of its own in a private mount namespace, which root may always do and
an ordinary user where user namespaces are allowed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from board_stage import Child, ended, leftovers, me, sprint_record, tree

from sandbox.syscalls import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    unshare,
)
from supervisor.board import owner
from supervisor.board.board import Board
from supervisor.errors import BoardError
from supervisor.model.record import AttemptState

SKIP = "SKIP"


def on_small_disk(path: Path, options: str, test: Callable[[Path], None]) -> None:
    """Runs a test in a child that has a tmpfs of its own on `path`."""
    path.mkdir()

    def run() -> str:
        try:
            enter_private_namespace()
            mount("none", "/", None, MS_REC | MS_PRIVATE)
            mount("tmpfs", str(path), "tmpfs", 0, f"mode=700,{options}")
        except OSError as error:
            return f"{SKIP}{error}"
        test(path)
        return ""

    answer = Child(run).result()
    if answer.startswith(SKIP):
        pytest.skip(f"no private tmpfs can be mounted here: {answer.removeprefix(SKIP)}")


def enter_private_namespace() -> None:
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        unshare(CLONE_NEWNS)
        return
    unshare(CLONE_NEWNS | CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def fill(path: Path) -> None:
    """Uses up all space but what has been allocated already."""
    with (path / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


def free_inodes(path: Path) -> int:
    return os.statvfs(path).f_favail


def refused(work: Callable[[], object], state: str, sentence: str) -> None:
    before = tree(state)
    with pytest.raises(BoardError, match=sentence) as caught:
        work()
    assert "\n" not in caught.value.message
    assert tree(state) == before


def test_on_a_full_disk_the_board_is_unchanged_and_goes_on_later(tmp_path: Path) -> None:
    def test(disk: Path) -> None:
        board = Board(disk / "state")
        slot = board.create_sprint(sprint_record("build")).slot("build")
        slot.finish(slot.claim(1, me()), ended())
        held = board.turns.claim(1, me())
        source = tmp_path / "source"
        source.write_bytes(b"x" * 10_000)
        board.blobs.add(str(source), 1 << 20)
        source.write_bytes(b"y" * 10_000)
        fill(disk)
        full = "there is no space left for "
        refused(lambda: slot.claim(2, me()), board.path, full)
        refused(lambda: board.turns.finish(held, ended()), board.path, full)
        refused(lambda: board.create_sprint(sprint_record("build")), board.path, full)
        refused(lambda: board.blobs.add(str(source), 1 << 20), board.path, full)
        (disk / "filling").unlink()
        assert slot.claim(2, me()).n == 2
        board.turns.finish(held, ended())
        assert board.blobs.verify(board.blobs.add(str(source), 1 << 20)[0])

    on_small_disk(tmp_path / "disk", "size=256k", test)


@pytest.mark.parametrize("left", range(6))
def test_without_inodes_the_board_is_unchanged(tmp_path: Path, left: int) -> None:
    """However many are left, so that each call of a claim and a sprint is the one that fails."""

    def test(disk: Path) -> None:
        board = Board(disk / "state")
        slot = board.create_sprint(sprint_record("build")).slot("build")
        held = board.turns.claim(1, me())
        for n in range(free_inodes(disk) - left):
            (disk / f"file{n}").touch()
        assert free_inodes(disk) == left
        full = "there is no space left for "
        if left < 2:
            refused(lambda: slot.claim(1, me()), board.path, full)
        if left < 1:
            refused(lambda: board.turns.finish(held, ended()), board.path, full)
        refused(lambda: board.create_sprint(sprint_record("a", "b", "c")), board.path, full)
        refused(lambda: Board(disk / "a" / "b" / "c" / "d" / "e").prepare(), board.path, full)
        (disk / "file0").unlink()
        (disk / "file1").unlink()
        assert slot.claim(1, me()).n == 1
        assert leftovers(board.path) == []

    on_small_disk(tmp_path / "disk", "nr_inodes=40", test)


def test_a_journal_on_a_full_disk_loses_a_line_and_no_more(tmp_path: Path) -> None:
    def test(disk: Path) -> None:
        board = Board(disk / "state")
        journal = board.create_sprint(sprint_record("build")).journal
        written = 0
        fill(disk)
        with pytest.raises(BoardError, match="there is no space left"):
            while True:
                journal.append("x", n=written, pad="y" * 1000)
                written += 1
        (disk / "filling").unlink()
        journal.append("x", n=-1)
        read = [event.fields["n"] for event in journal.read()]
        assert read == [*range(written), -1]

    on_small_disk(tmp_path / "disk", "size=256k", test)


def test_a_read_only_board_can_be_read_and_says_so_when_written(tmp_path: Path) -> None:
    def test(disk: Path) -> None:
        board = Board(disk / "state")
        sprint = board.create_sprint(sprint_record("build"))
        held = sprint.slot("build").claim(1, me())
        mount("none", str(disk), None, MS_REMOUNT | MS_RDONLY)
        again = Board(disk / "state").sprint(sprint.id)
        assert again.slot("build").latest() == held
        read_only = "is on a read-only file system"
        refused(lambda: sprint.slot("build").finish(held, ended()), board.path, read_only)
        refused(lambda: board.turns.claim(1, me()), board.path, read_only)
        refused(lambda: sprint.journal.append("x"), board.path, read_only)
        refused(lambda: Board(disk / "other").prepare(), board.path, read_only)

    on_small_disk(tmp_path / "disk", "size=256k", test)


def test_another_users_board_is_refused_with_a_sentence(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    board = Board(tmp_path / "state")
    slot = board.create_sprint(sprint_record("build")).slot("build")
    slot.claim(1, me())
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    for path in (Path(board.path), *Path(board.path).rglob("*")):
        path.chmod(0o755)

    def run() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        held = slot.latest()
        assert held is not None
        assert owner.liveness(held).value == "alive"  # another user's process can be judged
        forbidden = "there is no permission to write "
        lost = ended(AttemptState.LOST)
        refused(lambda: slot.finish(held, lost), board.path, forbidden)
        refused(lambda: board.turns.claim(1, me()), board.path, forbidden)
        refused(lambda: board.create_sprint(sprint_record("build")), board.path, forbidden)

    Child(run).result()
