"""What a mount tells git of its changes, against a git that looks for itself."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lanebox import GitLane, git_lane

from sandbox.syscalls import RENAME_EXCHANGE, renameat2
from tests.gitbox import ENV, make_repository, whiteout, write

STEPS = 90


@pytest.fixture
def host(tmp_path: Path) -> Path:
    files: dict[str, str | bytes] = {
        f"{directory}file{number}": f"{directory} {number}\n" * (number + 1)
        for directory in ("", "a/", "a/b/", "a/b/c/", "d/", "d/e/", "long name/", "a.b/")
        for number in range(4)
    }
    files |= {".gitignore": "*.o\n/out/\n", "d/.gitignore": "ignored\n!kept.o\n"}
    path = make_repository(tmp_path / "host", files)
    os.symlink("file0", path / "link")
    for arguments in (["add", "-A"], ["commit", "-q", "-m", "two"]):
        subprocess.run(["git", *arguments], cwd=path, env=ENV, check=True)
    return path


@pytest.fixture
def lane(tmp_path: Path, host: Path) -> Iterator[GitLane]:
    with git_lane(tmp_path, host) as made:
        yield made


def assert_agrees(lane: GitLane, step: object, *, locks: bool = False) -> None:
    expected = lane.walked_status()
    assert lane.status(locks=locks) == expected, step
    assert lane.status(locks=locks) == expected, (step, "again")


def test_fresh_lane_is_clean_and_no_content_is_read(lane: GitLane) -> None:
    before = lane.server.counters()
    assert lane.status() == [""]
    after = lane.server.counters()

    assert after["blob_miss"] - before["blob_miss"] == 2, "the two .gitignore and nothing else"
    # The hook asks once, by one file; git looks at its own directory and two .gitignore.
    assert after["lookup"] - before["lookup"] < 12
    assert after["entry"] == before["entry"], "no directory was listed"


def test_cost_of_status_is_that_of_the_changes(tmp_path: Path) -> None:
    host = make_repository(
        tmp_path / "host", {f"{n % 50}/{n // 50}/file{n}": f"{n}\n" for n in range(2000)}
    )
    with git_lane(tmp_path, host) as lane:
        for number in (3, 700, 1500):
            path = lane.path / f"{number % 50}/{number // 50}/file{number}"
            path.write_text("changed\n")
        lane.status()
        before = lane.server.counters()["operations"]
        assert len(lane.status()) == 3 + 1
        assert lane.server.counters()["operations"] - before < 60


def test_cost_of_status_over_layers_is_that_of_the_layers(tmp_path: Path) -> None:
    host = make_repository(
        tmp_path / "host", {f"top/{n % 50}/{n // 50}/file{n}": f"{n}\n" for n in range(2000)}
    )
    layer = tmp_path / "layer"
    for number in (3, 700, 1500):
        write(layer / f"top/{number % 50}/{number // 50}/file{number}", "changed\n")
    with git_lane(tmp_path, host, writes=False, layers=(layer,)) as lane:
        before = lane.server.counters()["operations"]
        assert len(lane.status()) == 3 + 1
        assert lane.server.counters()["operations"] - before < 100


def test_layer_with_a_directory_where_a_file_was(tmp_path: Path, host: Path) -> None:
    layer = tmp_path / "layer"
    write(layer / "a/file1/below", "x\n")
    os.setxattr(layer / "a/file1", "user.overlay.opaque", b"y")
    with git_lane(tmp_path, host, layers=(layer,)) as lane:
        assert_agrees(lane, "directory over file")
        assert " D a/file1" in lane.status()


def test_reader_is_told_that_nothing_has_changed(tmp_path: Path, host: Path) -> None:
    with git_lane(tmp_path, host, writes=False) as lane:
        before = lane.server.counters()["entry"]
        assert lane.status() == [""]
        assert lane.server.counters()["entry"] == before
        assert_agrees(lane, "reader")


def test_layers_that_no_commit_has_are_reported(tmp_path: Path, host: Path) -> None:
    layer = tmp_path / "layer"
    write(layer / "new/deep/file", "new\n")
    write(layer / "file1", "other\n")
    (layer / "a").mkdir()
    whiteout(layer / "a/b")
    write(layer / "d/ignored", "")
    (layer / "a.b").mkdir()
    os.setxattr(layer / "a.b", "user.overlay.opaque", b"y")
    write(layer / "long name", "a file where a directory was\n")
    with git_lane(tmp_path, host, layers=(layer,)) as lane:
        assert_agrees(lane, "carried on")
        assert "?? new/" in lane.status()
        assert " D a/b/c/file0" in lane.status()
        assert " D a.b/file0" in lane.status()
        assert " D long name/file0" in lane.status()
        lane.git("add", "-A")
        lane.git("commit", "-q", "-m", "carried")
        assert_agrees(lane, "after commit")


def test_what_is_bound_over_the_mount_is_always_looked_at(tmp_path: Path, host: Path) -> None:
    with git_lane(tmp_path, host, writes=False, grafts=("scratch", "d/e")) as lane:
        for bound in ("scratch", "d/e"):
            subprocess.run(["mount", "-t", "tmpfs", "none", lane.path / bound], check=True)
        assert lane.status() == lane.walked_status()
        (lane.path / "scratch/made").write_text("x")
        assert_agrees(lane, "scratch")
        assert "?? scratch/" in lane.status()
        assert " D d/e/file0" in lane.status()
        for bound in ("scratch", "d/e"):
            subprocess.run(["umount", lane.path / bound], check=True)


def test_mapping_is_seen_though_no_request_tells_of_it(lane: GitLane) -> None:
    with open(lane.path / "file1", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    assert_agrees(lane, "mapped")
    mapped[0:1] = b"X"
    mapped.flush()
    assert " M file1" in lane.status()
    mapped.close()
    assert " M file1" in lane.status()


def test_other_working_trees_are_not_taken_for_the_lane(lane: GitLane, tmp_path: Path) -> None:
    lane.git("worktree", "add", "-q", str(tmp_path / "other"))
    other = GitLane(tmp_path / "other", lane.server)
    (other.path / "file1").write_text("changed elsewhere\n")
    assert other.status() == ["", " M file1"]
    assert lane.status() == [""]
    inside = lane.path / "inside"
    lane.git("worktree", "add", "-q", str(inside))
    (inside / "file2").write_text("changed inside\n")
    assert GitLane(inside, lane.server).status() == ["", " M file2"]
    assert_agrees(lane, "a working tree in the working tree")


def test_tokens_that_are_not_known_mean_everything(lane: GitLane, tmp_path: Path) -> None:
    changes = tmp_path / "lane/changes"
    for token in ("nanosup", "nanosup.0123456789abcdef.1", "1700000000000000000", "nanosup.0x"):
        answer = (changes / token).read_bytes().split(b"\0")
        assert answer[0].startswith(b"nanosup."), token
        assert answer[1:] == [b"/", b""], token
    assert (changes / "nanosup.0").read_bytes().count(b"\0") == 1
    assert not (changes / "HEAD").exists()
    assert os.listdir(changes) == []


class Walk:
    """Random steps of an agent, and of git in its hands."""

    def __init__(self, lane: GitLane, seed: int) -> None:
        self.lane = lane
        self.rng = random.Random(seed)
        self.top = lane.path
        self.held: list[int] = []

    def files(self) -> list[Path]:
        found = []
        for directory, names, files in os.walk(self.top):
            if ".git" in names:
                names.remove(".git")
            found += [Path(directory, name) for name in files]
        return sorted(found)

    def directories(self) -> list[Path]:
        found = {path.parent for path in self.files()} - {self.top}
        return sorted(found)

    def file(self) -> Path:
        return self.rng.choice(self.files() or [self.top / "file0"])

    def new(self) -> Path:
        parent = self.rng.choice([self.top, *self.directories()])
        name = self.rng.choice(["n", "m", "o.o", "ignored", "kept.o", "out", "x/y/z", "file1"])
        return parent / f"{name}{self.rng.choice(['', '', self.rng.randrange(9)])}"

    def step(self) -> str:
        name = self.rng.choice([n for n in dir(self) if n.startswith("do_")])
        try:
            getattr(self, name)()
        except OSError as error:
            return f"{name}: {error}"
        return name

    def do_write(self) -> None:
        path = self.rng.choice([self.file(), self.new()])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{self.rng.random()}\n")

    def do_append(self) -> None:
        with open(self.file(), "a") as file:
            file.write("more\n")

    def do_truncate(self) -> None:
        os.truncate(self.file(), self.rng.randrange(3))

    def do_touch(self) -> None:
        os.utime(self.file())

    def do_chmod(self) -> None:
        self.file().chmod(self.rng.choice([0o644, 0o755]))

    def do_unlink(self) -> None:
        self.file().unlink()

    def do_rename(self) -> None:
        self.file().rename(self.rng.choice([self.file(), self.new()]))

    def do_rename_directory(self) -> None:
        if found := self.directories():
            self.rng.choice(found).rename(self.new())

    def do_exchange(self) -> None:
        one, other = self.file(), self.rng.choice([self.file(), *self.directories()])
        renameat2(os.fsencode(one), os.fsencode(other), RENAME_EXCHANGE)

    def do_remove_directory(self) -> None:
        if found := self.directories():
            shutil.rmtree(self.rng.choice(found))

    def do_symlink(self) -> None:
        os.symlink("file0", self.new())

    def do_link(self) -> None:
        source, target = self.file(), self.new()
        os.link(source, target, follow_symlinks=False)
        with open(target, "a") as file:
            file.write("by the other name\n")

    def do_hold(self) -> None:
        self.held.append(os.open(self.file(), os.O_RDWR))

    def do_write_held(self) -> None:
        if self.held:
            os.write(self.rng.choice(self.held), b"held\n")

    def do_let_go(self) -> None:
        while self.held:
            os.close(self.held.pop())

    def do_add(self) -> None:
        self.lane.git("add", "-A")

    def do_commit(self) -> None:
        self.lane.git("commit", "-q", "-a", "-m", "step", ok=False)

    def do_checkout_file(self) -> None:
        self.lane.git("checkout", "-q", "--", str(self.file()), ok=False)

    def do_reset(self) -> None:
        self.lane.git("reset", "-q", self.rng.choice(["--hard", "--mixed"]))

    def do_stash(self) -> None:
        self.lane.git("stash", self.rng.choice(["push", "pop"]), ok=False)

    def do_switch(self) -> None:
        arguments = self.rng.choice([["-f", "main"], ["-q", "HEAD~1"], ["-B", "side"]])
        self.lane.git("checkout", "-q", *arguments, ok=False)

    def do_rebase(self) -> None:
        self.lane.git("rebase", "-q", "main", ok=False)
        self.lane.git("rebase", "--abort", ok=False)

    def do_clean(self) -> None:
        self.lane.git("clean", "-qfd")


@pytest.mark.parametrize("seed", range(2))
def test_status_is_what_a_walk_finds_whatever_is_done(lane: GitLane, seed: int) -> None:
    walk = Walk(lane, seed)
    done = []
    for number in range(STEPS):
        done.append(walk.step())
        assert_agrees(lane, (seed, number, done[-6:]), locks=number % 3 == 0)
    walk.do_let_go()


def test_first_version_of_the_protocol_is_told_everything(lane: GitLane) -> None:
    hook = lane.git("config", "core.fsmonitor").strip()
    answers = {}
    for version in ("1", "2"):
        command = ["sh", "-c", f'{hook} "$@"', hook, version, "1700000000000000000"]
        answers[version] = subprocess.run(command, cwd=lane.path, capture_output=True).stdout
    assert answers["1"] == b"/\0"
    assert answers["2"].endswith(b"\0/\0")


def test_answers_that_are_long_past_are_still_right(lane: GitLane, tmp_path: Path) -> None:
    (lane.path / "file1").write_text("changed\n")
    changes = tmp_path / "lane/changes"
    with open(changes / "nanosup.0", "rb") as early:
        for number in range(100):
            os.stat(changes / f"nanosup.{number:016x}.1")
        assert early.read().split(b"\0")[1] in {b"file1", b"/"}
    assert (changes / "nanosup.0").read_bytes().split(b"\0")[1] == b"file1"
