"""Recording the working tree, which is only looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gitbox import fingerprint, git, git_bytes, make_repository, write

from sandbox.errors import GitError
from sandbox.repository import repository
from sandbox.repository.snapshot import dirty, snapshot


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_repository(
        tmp_path / "host",
        {".gitignore": "*.o\n", "a": "a\n", "d/b": "b\n", "d/c": "c\n", "run": "r\n"},
    )


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    return tmp_path / "state/objects"


def record(host: Path, objects: Path) -> tuple[str, str]:
    return snapshot(repository.find(host), "worktree", objects)


def expected(host: Path) -> str:
    git(host, "add", "-A")
    return git(host, "write-tree")


def test_a_clean_tree_is_its_own_commit(host: Path, objects: Path) -> None:
    repo = repository.find(host)
    write(host / "ignored.o", "o\n")
    assert not dirty(repo)
    assert record(host, objects) == (repo.commit, repo.tree)
    write(host / "a", "dirty\n")
    assert dirty(repo)
    assert snapshot(repo, "commit", objects) == (repo.commit, repo.tree)


def test_nothing_of_the_host_is_touched(host: Path, objects: Path, tmp_path: Path) -> None:
    trap = f"touch {tmp_path}/ran; false"
    for hook in ("post-index-change", "reference-transaction", "pre-commit", "post-commit"):
        write(host / ".git/hooks" / hook, f"#!/bin/sh\n{trap}\n", executable=True)
    git(host, "config", "core.fsmonitor", trap)
    git(host, "config", "filter.x.clean", trap)
    write(host / ".gitattributes", "*.x filter=x\n")
    write(host / "new.x", "x\n")
    write(host / "d/b", "staged\n")
    git(host, "-c", "core.fsmonitor=", "-c", "core.hooksPath=/none", "add", "d/b")
    write(host / "d/b", "and changed again\n")
    before = fingerprint(host)
    commit, tree = record(host, objects)
    assert fingerprint(host) == before
    assert not (tmp_path / "ran").exists()
    assert (commit, tree) == record(host, objects)


def test_the_objects_are_a_repositorys_own_with_the_host_as_alternate(
    host: Path, objects: Path, tmp_path: Path
) -> None:
    write(host / "d/b", "dirty\n")
    write(host / "new", "n\n")
    os.symlink("a", host / "link")
    (host / "run").chmod(0o755)
    (host / "d/c").unlink()
    commit, tree = record(host, objects)
    reader = tmp_path / "reader"
    reader.mkdir()
    git(reader, "init", "-q")
    write(reader / ".git/objects/info/alternates", f"{objects}\n")
    names = git(reader, "ls-tree", "-r", "--name-only", commit).split()
    assert names == [".gitignore", "a", "d/b", "link", "new", "run"]
    assert git(reader, "log", "-1", "--format=%P %T", commit) == (
        f"{git(host, 'rev-parse', 'HEAD')} {tree}"
    )
    git(reader, "fsck", "--strict", "--no-dangling", commit)
    assert record(host, objects) == (commit, tree)
    assert tree == expected(host)


def test_line_ends_and_encodings_are_what_git_add_makes_of_them(host: Path, objects: Path) -> None:
    write(
        host / ".gitattributes",
        "* text=auto\n*.bat eol=crlf\n*.bin -text\n*.u16 text working-tree-encoding=UTF-16\n",
    )
    git(host, "config", "core.autocrlf", "true")
    write(host / "x.txt", "one\r\ntwo\r\n")
    write(host / "x.bat", "one\r\ntwo\r\n")
    write(host / "x.bin", "one\r\ntwo\r\n")
    write(host / "x.u16", "one\r\nzwei ü\r\n".encode("utf-16"))
    _, tree = record(host, objects)
    assert tree == expected(host)
    assert git_bytes(host, "cat-file", "blob", f"{tree}:x.u16") == "one\nzwei ü\n".encode()


def test_a_checkout_with_converted_files_is_clean(host: Path, objects: Path) -> None:
    write(host / ".gitattributes", "* text eol=crlf\n")
    git(host, "add", "-A")
    git(host, "commit", "-q", "-m", "attributes")
    git(host, "rm", "-q", "--cached", "-r", ".")
    git(host, "reset", "-q", "--hard")
    assert (host / "a").read_bytes() == b"a\r\n"
    assert not dirty(repository.find(host))
    os.utime(host / "a", (1, 1))
    assert not dirty(repository.find(host))


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_every_index_version_is_read(host: Path, objects: Path, version: str) -> None:
    write(host / "intended", "i\n")
    git(host, "add", "-N", "intended")
    write(host / "long/" / ("n" * 200) / ("m" * 200), "l\n")
    git(host, "add", "long")
    git(host, "update-index", "--index-version", version)
    _, tree = record(host, objects)
    assert tree == expected(host)


def test_a_sparse_checkout_keeps_what_is_not_checked_out(host: Path, objects: Path) -> None:
    write(host / "e/f/g", "g\n")
    git(host, "add", "-A")
    git(host, "commit", "-q", "-m", "more")
    for arguments in (("--no-sparse-index",), ("--sparse-index",)):
        git(host, "sparse-checkout", "set", "--cone", *arguments, "d")
        assert not (host / "e").exists()
        assert not dirty(repository.find(host))
    # Outside the cone, yet there: git does not add what sparse checkout leaves out.
    write(host / "e/f/g", "g\n")
    write(host / "d/b", "dirty\n")
    _, tree = record(host, objects)
    (host / "e/f/g").unlink()
    (host / "e/f").rmdir()
    (host / "e").rmdir()
    assert tree == expected(host)
    names = git(host, "ls-tree", "-r", "--name-only", tree).split()
    assert {"e/f/g", "d/b"} <= set(names)


def test_a_merge_with_conflicts_is_recorded_as_the_files_are(host: Path, objects: Path) -> None:
    git(host, "checkout", "-q", "-b", "other")
    write(host / "a", "other\n")
    git(host, "commit", "-qam", "other")
    git(host, "checkout", "-q", "main")
    write(host / "a", "main\n")
    git(host, "commit", "-qam", "main")
    with pytest.raises(AssertionError):
        git(host, "merge", "other")
    _, tree = record(host, objects)
    assert tree == expected(host)


def test_a_file_changed_within_the_second_of_the_index_is_seen(host: Path, objects: Path) -> None:
    for number in range(20):
        write(host / "a", f"{number:02}\n")
        git(host, "add", "a")
        write(host / "a", f"{number + 50}\n")
        _, tree = record(host, objects)
        assert git_bytes(host, "show", ":a") == f"{number:02}\n".encode()
        assert tree == expected(host)


def test_submodules_stay_at_the_commit_of_the_index(host: Path, objects: Path) -> None:
    inner = make_repository(host.parent / "inner")
    git(host, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "sub")
    git(host, "commit", "-q", "-m", "sub")
    write(host / "sub/readme", "changed\n")
    assert not dirty(repository.find(host))


def test_a_linked_worktree_has_an_index_of_its_own(host: Path, objects: Path) -> None:
    linked = host.parent / "linked"
    git(host, "worktree", "add", "-q", str(linked))
    write(host / "a", "dirty in the main one\n")
    assert not dirty(repository.find(linked))
    write(linked / "a", "dirty\n")
    _, tree = snapshot(repository.find(linked), "worktree", objects)
    assert tree == expected(linked)


def test_a_missing_index_means_that_nothing_is_tracked(host: Path, objects: Path) -> None:
    (host / ".git/index").unlink()
    write(host / "new.o", "o\n")
    _, tree = record(host, objects)
    assert tree == expected(host)


def test_an_index_that_cannot_be_read_is_an_error(host: Path, objects: Path) -> None:
    git(host, "update-index", "--split-index")
    with pytest.raises(GitError, match="split"):
        record(host, objects)
    (host / ".git/index").write_bytes(b"DIRC" + bytes(50))
    with pytest.raises(GitError, match="cannot be read"):
        record(host, objects)


def test_what_cannot_be_read_is_an_error_if_tracked_and_is_never_opened_up(
    host: Path, objects: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root can read everything")
    (host / "untracked").mkdir(mode=0)
    assert not dirty(repository.find(host))
    write(host / "a", "changed\n")
    (host / "a").chmod(0)
    with pytest.raises(GitError, match="Permission denied"):
        record(host, objects)
    assert (host / "a").lstat().st_mode & 0o777 == 0
    assert (host / "untracked").lstat().st_mode & 0o777 == 0
    (host / "untracked").chmod(0o700)
