"""What agents commit in their lanes is taken over where it is sound, and never trusted."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import struct
import zlib
from pathlib import Path

import pytest
from gitbox import fingerprint, git, git_bytes, make_layer, make_repository, write

from sandbox.repository import gitdir, index, repository
from sandbox.repository.repository import Repository
from sandbox.repository.seal import Sealed, seal


class Lane:
    """A lane without mount or jail: a raw checkout whose `.git` is a lane's git directory."""

    def __init__(self, root: Path) -> None:
        self.host = make_repository(
            root / "host", {".gitignore": "*.o\n", "a": "a\n", "d/b": "b\n", "t.o.txt": "t\n"}
        )
        self.repo: Repository = repository.find(self.host)
        self.view = root / "view"
        self.before = root / "before"
        self.root = root
        for copy in (self.view, self.before):
            shutil.copytree(self.host, copy, ignore=shutil.ignore_patterns(".git"))
        self.git = self.view / ".git"
        record = root / "index"
        index.record(record, self.repo, commit=self.repo.commit, epoch_ns=10**18, uid=0, gid=0)
        gitdir.make(
            self.git,
            self.repo,
            commit=self.repo.commit,
            alternates={self.repo.objects: str(self.repo.objects)},
            index=record,
        )

    def run(self, *args: str) -> str:
        return git(self.view, "-c", "user.name=Agent", *args)

    def commit(self, message: str = "by agent") -> str:
        self.run("add", "-A")
        self.run("commit", "-q", "--allow-empty", "-m", message)
        return self.run("rev-parse", "HEAD")

    def seal(self) -> Sealed:
        layer = self.root / "layer"
        shutil.rmtree(layer, ignore_errors=True)
        make_layer(self.before, self.view, layer)
        return seal(
            self.repo,
            parent=self.repo.commit,
            layers=[layer],
            lane_git=self.git,
            message="sealed",
            author="Agent <agent@example.org>",
            when_s=1_700_000_100,
        )

    def expect_fallback(self, *words: str) -> Sealed:
        """The work is there in one commit on the parent, and a note says why."""
        result = self.seal()
        history = git(self.host, "rev-list", result.commit).split()
        assert history == [result.commit, self.repo.commit]
        assert any("not kept" in note for note in result.notes), result.notes
        for word in words:
            assert any(word in note for note in result.notes), result.notes
        git(self.host, "fsck", "--strict", result.commit)
        return result


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    return Lane(tmp_path)


def put_object(objects: Path, kind: str, data: bytes, oid: str = "") -> str:
    """Writes a loose object, under a false name if one is given."""
    raw = f"{kind} {len(data)}\0".encode() + data
    oid = oid or hashlib.sha1(raw).hexdigest()
    path = objects / oid[:2] / oid[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(raw))
    return oid


def put_commit(lane: Lane, tree: str, *, parent: str = "", extra: str = "") -> str:
    write(lane.view / "work", "w\n")
    who = "Agent <a@b> 1700000000 +0000"
    text = f"tree {tree}\nparent {parent or lane.repo.commit}\nauthor {who}\ncommitter {who}\n"
    oid = put_object(lane.git / "objects", "commit", (text + extra + "\nm\n").encode())
    (lane.git / "refs/heads/main").write_text(oid + "\n")
    return oid


def entry(mode: str, name: bytes, oid: str) -> bytes:
    return mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid)


def test_git_in_a_lane_works_and_its_commits_are_the_history(lane: Lane) -> None:
    assert lane.run("status", "--porcelain") == ""
    write(lane.view / "a", "changed\n")
    lane.commit("first")
    (lane.view / "d/b").unlink()
    head = lane.commit("second")
    assert lane.run("log", "--format=%s", "main") == "second\nfirst\none"
    result = lane.seal()
    assert (result.commit, result.notes, result.changed) == (head, (), 2)
    assert git(lane.host, "log", "--format=%s", result.commit) == "second\nfirst\none"
    git(lane.host, "fsck", "--strict", result.commit)


def test_what_was_not_committed_comes_on_top(lane: Lane) -> None:
    write(lane.view / "a", "changed\n")
    head = lane.commit()
    write(lane.view / "later", "l\n")
    result = lane.seal()
    assert git(lane.host, "log", "--format=%s", result.commit) == "sealed\nby agent\none"
    assert git(lane.host, "rev-parse", f"{result.commit}^") == head


def test_an_ignored_file_that_was_committed_by_force_stays(lane: Lane) -> None:
    write(lane.view / "forced.o", "f\n")
    write(lane.view / "other.o", "o\n")
    lane.run("add", "-f", "forced.o")
    head = lane.commit()
    assert lane.seal().commit == head


def test_what_was_removed_from_git_but_not_from_disk_is_as_git_add_has_it(lane: Lane) -> None:
    write(lane.view / ".gitignore", "*.o\n/t.*\n")
    lane.run("rm", "-q", "--cached", "t.o.txt", "a")
    lane.run("add", ".gitignore")
    lane.run("commit", "-q", "-m", "untrack")
    result = lane.seal()
    lane.run("add", "-A")
    assert result.tree == lane.run("write-tree")
    names = git(lane.host, "ls-tree", "--name-only", result.tree).split()
    assert "a" in names
    assert "t.o.txt" not in names


def test_history_comes_out_of_packs_too(lane: Lane) -> None:
    for number in range(5):
        write(lane.view / f"many/file{number}", f"{number}\n" * 100)
        head = lane.commit(str(number))
    lane.run("gc", "-q", "--prune=now")
    assert not list((lane.git / "objects").glob("[0-9a-f][0-9a-f]"))
    result = lane.seal()
    assert (result.commit, result.notes) == (head, ())
    git(lane.host, "fsck", "--strict", result.commit)


def test_branches_and_merges_are_taken_over(lane: Lane) -> None:
    lane.run("checkout", "-q", "-b", "feature")
    write(lane.view / "f", "f\n")
    lane.commit("feature")
    lane.run("checkout", "-q", "main")
    write(lane.view / "m", "m\n")
    lane.commit("main")
    lane.run("merge", "-q", "--no-ff", "-m", "merged", "feature")
    head = lane.run("rev-parse", "HEAD")
    assert lane.seal().commit == head
    lane.run("checkout", "-q", "--detach")
    assert lane.seal().commit == head


def test_rewritten_history_falls_back_to_one_commit(lane: Lane) -> None:
    write(lane.view / "a", "changed\n")
    lane.run("commit", "-q", "-a", "--amend", "-m", "rewritten")
    result = lane.expect_fallback("do not grow")
    assert git(lane.host, "cat-file", "blob", f"{result.tree}:a") == "changed"


def test_nothing_that_a_lane_configures_is_executed(lane: Lane, tmp_path: Path) -> None:
    write(lane.view / "a", "changed\n")
    head = lane.commit()
    before = fingerprint(lane.host)
    trap = f"touch {tmp_path}/ran; true"
    for hook in ("post-commit", "reference-transaction", "post-index-change", "pre-commit"):
        write(lane.git / "hooks" / hook, f"#!/bin/sh\n{trap}\n", executable=True)
    with open(lane.git / "config", "a") as file:
        file.write(
            f'[core]\n\tfsmonitor = "{trap}"\n\tworktree = /\n\thooksPath = /tmp\n'
            f'[filter "x"]\n\tclean = "{trap}"\n[diff]\n\texternal = "{trap}"\n'
            f"[include]\n\tpath = {tmp_path}/elsewhere\n"
        )
    write(lane.git / "info/attributes", "* filter=x diff=x\n")
    write(lane.git / "commondir", f"{tmp_path}/elsewhere\n")
    assert lane.seal().commit == head
    assert not (tmp_path / "ran").exists()
    after = fingerprint(lane.host)
    assert {name: after[name] for name in before} == before


def test_alternates_of_a_lane_are_not_followed(lane: Lane, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other", {"secret": "the other repository's\n"})
    tree = git(other, "rev-parse", "HEAD^{tree}")
    with open(lane.git / "objects/info/alternates", "a") as file:
        file.write(f"{other}/.git/objects\n")
    write(lane.git / "objects/info/http-alternates", f"{other}/.git/objects\n")
    head = put_commit(lane, tree)
    assert lane.run("rev-parse", "HEAD^{tree}") == tree
    lane.expect_fallback("lacks objects")
    assert head not in git(lane.host, "cat-file", "--batch-all-objects", "--batch-check")


def test_objects_under_false_names_are_refused(lane: Lane) -> None:
    blob = git(lane.host, "rev-parse", "HEAD:a")
    put_object(lane.git / "objects", "blob", b"something else\n", "1" * 40)
    tree = put_object(lane.git / "objects", "tree", entry("100644", b"x", "1" * 40))
    put_commit(lane, tree)
    lane.expect_fallback("does not match its name")
    # One that the host has already is simply not read from the lane.
    put_object(lane.git / "objects", "blob", b"something else\n", blob)
    write(lane.view / "b", "b\n")
    put_commit(lane, put_object(lane.git / "objects", "tree", entry("100644", b"x", blob)))
    result = lane.seal()
    assert git(lane.host, "cat-file", "blob", blob) == "a"
    assert git(lane.host, "show", "-s", "--format=%s", f"{result.commit}^") == "m"


EVIL_NAMES = [b".git", b".GIT", b"..", b".", b"git~1", ".g\u200cit".encode(), b"a/b", b".git "]


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
@pytest.mark.parametrize("name", EVIL_NAMES)
def test_trees_with_names_that_git_forbids_are_refused(
    lane: Lane, name: bytes, packed: bool
) -> None:
    blob = git(lane.host, "rev-parse", "HEAD:a")
    inner = put_object(lane.git / "objects", "tree", entry("100755", b"hook", blob))
    tree = put_object(lane.git / "objects", "tree", entry("40000", name, inner))
    head = put_commit(lane, tree)
    if packed:
        ids = f"{head}\n{tree}\n{inner}\n".encode()
        pack = lane.git / "objects/pack/pack"
        git_bytes(lane.view, "pack-objects", "-q", str(pack), stdin=ids)
        for path in (lane.git / "objects").glob("[0-9a-f][0-9a-f]"):
            shutil.rmtree(path)
    lane.expect_fallback("name")
    listed = git(lane.host, "cat-file", "--batch-all-objects", "--batch-check")
    assert tree not in listed
    assert head not in listed


@pytest.mark.parametrize(
    "data",
    [
        entry("100644", b"b", "2" * 40) + entry("100644", b"a", "2" * 40),
        entry("100644", b"a", "2" * 40) * 2,
        entry("100600", b"a", "2" * 40),
        entry("120000", b".gitmodules", "2" * 40),
        entry("100644", b"a", "0" * 40),
        entry("100644", b"", "2" * 40),
        b"100644 a",
    ],
    ids=["unsorted", "twice", "mode", "gitmodules", "null", "nameless", "cut"],
)
def test_malformed_trees_are_refused(lane: Lane, data: bytes) -> None:
    put_commit(lane, put_object(lane.git / "objects", "tree", data))
    lane.expect_fallback()


@pytest.mark.parametrize(
    "text",
    [
        "tree {tree}\nparent {parent}\n\nno author\n",
        "tree {tree}\nparent {parent}\nauthor A <a@b> 1 +0000\ncommitter A <a 1 +0000\n\nm\n",
        "tree {tree}\nparent {parent}\nauthor A\0B <a@b> 1 +0000\ncommitter A <a> 1 +0000\n\nm\n",
        "tree {tree}\nparent xyz\n",
        "",
    ],
)
def test_malformed_commits_are_refused(lane: Lane, text: str) -> None:
    data = text.format(tree=lane.repo.tree, parent=lane.repo.commit).encode()
    oid = put_object(lane.git / "objects", "commit", data)
    (lane.git / "refs/heads/main").write_text(oid + "\n")
    write(lane.view / "work", "w\n")
    lane.expect_fallback()


def _head_is_a_fifo(lane: Lane) -> None:
    (lane.git / "HEAD").unlink()
    os.mkfifo(lane.git / "HEAD")


def _head_is_a_link(lane: Lane) -> None:
    (lane.git / "HEAD").unlink()
    os.symlink(lane.host / ".git/HEAD", lane.git / "HEAD")


def _branch_leads_out(lane: Lane) -> None:
    (lane.git / "HEAD").write_text("ref: refs/heads/../../../host/.git/refs/heads/main\n")


def _refs_are_a_link(lane: Lane) -> None:
    shutil.rmtree(lane.git / "refs")
    os.symlink(lane.host / ".git/refs", lane.git / "refs")


def _objects_are_a_link(lane: Lane) -> None:
    shutil.rmtree(lane.git / "objects")
    os.symlink(lane.host / ".git/objects", lane.git / "objects")


def _git_is_a_pointer(lane: Lane) -> None:
    shutil.rmtree(lane.git)
    lane.git.write_text(f"gitdir: {lane.host}/.git\n")


def _git_is_gone(lane: Lane) -> None:
    shutil.rmtree(lane.git)


def _pack_is_a_fifo(lane: Lane) -> None:
    lane.run("gc", "-q", "--prune=now")
    os.mkfifo(lane.git / "objects/pack/pack-1.idx")


def _pack_is_noise(lane: Lane) -> None:
    lane.run("gc", "-q", "--prune=now")
    for path in (lane.git / "objects/pack").iterdir():
        path.chmod(0o644)
        path.write_bytes(os.urandom(path.stat().st_size))


def _pack_is_cut(lane: Lane) -> None:
    lane.run("gc", "-q", "--prune=now")
    for path in (lane.git / "objects/pack").glob("*.pack"):
        path.chmod(0o644)
        os.truncate(path, path.stat().st_size // 2)


def _object_is_cut(lane: Lane) -> None:
    for path in (lane.git / "objects").glob("??/*"):
        path.chmod(0o644)
        os.truncate(path, 5)


def _object_is_a_bomb(lane: Lane) -> None:
    head = lane.run("rev-parse", "HEAD")
    path = lane.git / "objects" / head[:2] / head[2:]
    path.chmod(0o644)
    path.write_bytes(zlib.compress(b"commit 999999999999\0" + bytes(1 << 20)))


@pytest.mark.parametrize(
    "damage",
    [
        _head_is_a_fifo,
        _head_is_a_link,
        _branch_leads_out,
        _refs_are_a_link,
        _objects_are_a_link,
        _git_is_a_pointer,
        _git_is_gone,
        _pack_is_a_fifo,
        _pack_is_noise,
        _pack_is_cut,
        _object_is_cut,
        _object_is_a_bomb,
    ],
)
def test_a_damaged_or_crafted_git_directory_costs_the_history_and_not_the_work(
    lane: Lane, damage: object
) -> None:
    write(lane.view / "a", "changed\n")
    lane.commit()
    assert callable(damage)
    damage(lane)
    result = lane.expect_fallback()
    assert git(lane.host, "cat-file", "blob", f"{result.tree}:a") == "changed"


def test_too_much_history_is_refused(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.repository.history._COMMITS_LIMIT", 3)
    for number in range(5):
        write(lane.view / "n", f"{number}\n")
        lane.commit()
    lane.expect_fallback("too many")


def test_refused_history_leaves_no_objects_on_the_host(lane: Lane) -> None:
    write(lane.view / "a", "changed\n")
    first = lane.commit()
    blob = put_object(lane.git / "objects", "blob", b"leftover\n")
    bad = put_object(lane.git / "objects", "tree", entry("40000", b".git", lane.repo.tree))
    tree = entry("100644", b"left", blob) + entry("40000", b"z", bad)
    put_commit(lane, put_object(lane.git / "objects", "tree", tree), parent=first)
    lane.expect_fallback("name")
    listed = git(lane.host, "cat-file", "--batch-all-objects", "--batch-check")
    assert blob not in listed
    assert first not in listed


def test_a_file_that_was_committed_with_crlf_can_change_again(lane: Lane) -> None:
    # Whether CRLF is kept depends on the blob that the agent's own commit has.
    write(lane.view / "x", "one\r\n")
    lane.commit()
    write(lane.view / ".gitattributes", "* text=auto\n")
    write(lane.view / "x", "one\r\ntwo\r\n")
    result = lane.seal()
    assert git_bytes(lane.host, "cat-file", "blob", f"{result.tree}:x") == b"one\r\ntwo\r\n"


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes((number & 127 | 128,)), number >> 7
    return out + bytes((number,))


def _packed_head(kind: int, size: int) -> bytes:
    return (
        bytes((kind << 4 | size & 15 | 128,)) + _varint(size >> 4)
        if size > 15
        else bytes((kind << 4 | size,))
    )


def test_a_pack_that_swells_to_any_size_costs_the_history_alone(lane: Lane) -> None:
    size, blob = 2 << 30, b"x\n"
    deflate = zlib.compressobj(9)
    zeros = b"".join([deflate.compress(bytes(1 << 20)) for _ in range(size >> 20)])
    base = _packed_head(3, size) + zeros + deflate.flush()
    # A blob of two bytes, as a difference from one of two gigabytes.
    change = _varint(size) + _varint(len(blob)) + bytes((len(blob),)) + blob
    back = len(base)
    offset = bytes((back & 127,))
    while back := back >> 7:
        back -= 1
        offset = bytes((back & 127 | 128,)) + offset
    difference = _packed_head(6, len(change)) + offset + zlib.compress(change)
    pack = b"PACK" + struct.pack(">II", 2, 2) + base + difference
    checksum = hashlib.sha1(pack).digest()
    oid = hashlib.sha1(b"blob 2\0" + blob).hexdigest()
    places = sorted([(bytes.fromhex(oid), 12 + len(base)), (b"\1" * 20, 12)])
    index_ = b"\377tOc\0\0\0\2"
    index_ += struct.pack(">256I", *(sum(n[0] <= i for n, _ in places) for i in range(256)))
    index_ += b"".join(n for n, _ in places) + bytes(8)
    index_ += struct.pack(">2I", *(at for _, at in places)) + checksum
    directory = lane.git / "objects/pack"
    directory.mkdir(exist_ok=True)
    name = directory / f"pack-{checksum.hex()}"
    name.with_suffix(".pack").write_bytes(pack + checksum)
    name.with_suffix(".idx").write_bytes(index_ + hashlib.sha1(index_).digest())
    tree = put_object(lane.git / "objects", "tree", entry("100644", b"x", oid))
    put_commit(lane, tree)
    lane.expect_fallback("too large")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1536 << 10
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
