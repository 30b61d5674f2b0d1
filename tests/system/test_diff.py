"""Comparing snapshots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gitbox import git, make_repository, write

from sandbox.errors import GitError
from sandbox.repository import repository
from sandbox.repository.diff import Change, diff


def test_a_difference_lists_files_and_applies_as_a_patch(tmp_path: Path) -> None:
    host = make_repository(
        tmp_path / "host",
        {"gone": "g\n", "changed": "1\n2\n3\n", "moved": "long enough\n" * 20, "é": "e\n"},
    )
    base = git(host, "rev-parse", "HEAD")
    (host / "gone").unlink()
    write(host / "changed", "1\nzwei\n3\n")
    (host / "moved").rename(host / "there")
    write(host / ".envrc", "export X=1\n")
    write(host / "bin", b"\0\1\2")
    write(host / "é", b"\xff\n")
    os.symlink("changed", host / "link")
    git(host, "add", "-A")
    git(host, "commit", "-q", "-m", "two")
    found = diff(repository.find(host), base, git(host, "rev-parse", "HEAD"))
    assert {(file.path, file.change, file.added, file.deleted) for file in found.files} == {
        ("gone", Change.DELETED, 0, 1),
        ("changed", Change.MODIFIED, 1, 1),
        ("there", Change.RENAMED, 0, 0),
        (".envrc", Change.ADDED, 1, 0),
        ("bin", Change.ADDED, 0, 0),
        ("é", Change.MODIFIED, 1, 1),
        ("link", Change.ADDED, 1, 0),
    }
    assert [file.path for file in found.flagged] == [".envrc"]
    assert [file.path for file in found.files if file.binary] == ["bin"]
    assert "\\xff" in found.text
    git(host, "checkout", "-q", base)
    git(host, "apply", "--check", "--exclude=bin", stdin=found.patch)


def test_no_program_that_the_host_configures_is_run(tmp_path: Path) -> None:
    host = make_repository(tmp_path / "host", {"a.x": "a\n", ".gitattributes": "*.x diff=x\n"})
    git(host, "config", "diff.external", f"touch {tmp_path}/ran; true")
    git(host, "config", "diff.x.textconv", f"touch {tmp_path}/ran; cat")
    git(host, "config", "diff.x.command", f"touch {tmp_path}/ran; true")
    base = git(host, "rev-parse", "HEAD")
    write(host / "a.x", "b\n")
    git(host, "commit", "-qam", "two")
    found = diff(repository.find(host), base, git(host, "rev-parse", "HEAD^{tree}"))
    assert b"+b" in found.patch
    assert not (tmp_path / "ran").exists()


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    repo = repository.find(make_repository(tmp_path / "host"))
    with pytest.raises(GitError, match="no commit or tree"):
        diff(repo, repo.commit, "12" * 20)
