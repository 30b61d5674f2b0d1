"""Finding the repository, and what is said when it cannot be worked with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gitbox import ENV, git, make_repository, write

from sandbox.errors import GitError
from sandbox.repository import repository


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "host", {"a": "a\n", "d/e/f": "f\n"})


def test_it_is_found_from_a_subdirectory_and_through_symbolic_links(
    host: Path, tmp_path: Path
) -> None:
    os.symlink(host / "d", tmp_path / "link")
    found = repository.find(host)
    assert repository.find(host / "d/e") == found
    assert repository.find(tmp_path / "link/e") == found
    assert found.root == host
    assert found.git_dir == found.common_dir == host / ".git"
    assert found.object_dirs == (host / ".git/objects",)
    assert found.commit == git(host, "rev-parse", "HEAD")
    assert found.tree == git(host, "rev-parse", "HEAD^{tree}")
    assert found.branch == "main"
    assert not found.shallow


def test_a_linked_worktree_shares_its_common_directory(host: Path, tmp_path: Path) -> None:
    git(host, "worktree", "add", "-q", "-b", "side/branch", str(tmp_path / "linked"))
    found = repository.find(tmp_path / "linked")
    assert found.root == tmp_path / "linked"
    assert found.common_dir == host / ".git"
    assert found.git_dir == host / ".git/worktrees/linked"
    assert found.branch == "side/branch"
    assert found.objects == host / ".git/objects"


def test_a_submodule_is_a_repository_of_its_own(host: Path, tmp_path: Path) -> None:
    outer = make_repository(tmp_path / "outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(host), "sub")
    found = repository.find(outer / "sub/d")
    assert found.root == outer / "sub"
    assert found.common_dir == outer / ".git/modules/sub"


def test_a_detached_head_has_no_branch(host: Path) -> None:
    git(host, "checkout", "-q", "--detach")
    assert repository.find(host).branch is None


def test_alternates_are_resolved_recursively(host: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(host), "one")
    git(tmp_path, "clone", "-q", "--shared", "one", "two")
    dirs = repository.find(tmp_path / "two").object_dirs
    assert dirs == tuple(tmp_path / name / ".git/objects" for name in ("two", "one", "host"))


def test_alternates_may_be_relative_missing_and_circular(host: Path, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other")
    write(
        host / ".git/objects/info/alternates",
        "# comment\n../../../other/.git/objects\n/nowhere/objects\n",
    )
    write(other / ".git/objects/info/alternates", f'"{host}/.git/objects"\n')
    assert repository.find(host).object_dirs == (
        host / ".git/objects",
        other / ".git/objects",
    )


def test_a_shallow_clone_is_fine(host: Path, tmp_path: Path) -> None:
    git(host, "commit", "-q", "--allow-empty", "-m", "two")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{host}", "shallow")
    assert repository.find(tmp_path / "shallow").shallow


def test_a_partial_clone_that_has_its_commit_is_fine(host: Path, tmp_path: Path) -> None:
    git(host, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{host}", "partial")
    assert repository.find(tmp_path / "partial").partial


def test_a_clone_without_the_trees_of_its_commit_is_an_error(host: Path, tmp_path: Path) -> None:
    git(host, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=tree:0", f"file://{host}", "partial")
    with pytest.raises(GitError, match="lacks objects") as caught:
        repository.find(tmp_path / "partial")
    assert "refetch" in caught.value.hint


def _nothing(path: Path) -> None:
    path.mkdir()


def _bare(path: Path) -> None:
    path.mkdir()
    git(path, "init", "-q", "--bare")


def _empty(path: Path) -> None:
    path.mkdir()
    git(path, "init", "-q")


def _unborn(path: Path) -> None:
    make_repository(path)
    git(path, "checkout", "-q", "--orphan", "fresh")


def _sha256(path: Path) -> None:
    path.mkdir()
    git(path, "init", "-q", "--object-format=sha256")


def _damaged(path: Path) -> None:
    make_repository(path)
    tree = git(path, "rev-parse", "HEAD^{tree}")
    (path / ".git/objects" / tree[:2] / tree[2:]).unlink()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_nothing, "is not in a git repository"),
        (_bare, "is bare"),
        (_empty, "has no commit"),
        (_unborn, "has no commit"),
        (_sha256, "SHA-256"),
        (_damaged, "lacks objects"),
    ],
)
def test_what_cannot_be_worked_with_is_said_in_one_line(
    tmp_path: Path, make: object, words: str
) -> None:
    assert callable(make)
    make(tmp_path / "r")
    with pytest.raises(GitError, match=words) as caught:
        repository.find(tmp_path / "r")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 21


def test_the_environment_of_git_does_not_mislead(host: Path, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other", {"x": "x\n"})
    code = (
        "import sys; from pathlib import Path; from sandbox.repository import repository\n"
        "found = repository.find(Path(sys.argv[1])); print(found.root, found.commit)"
    )
    env = {
        **ENV,
        "GIT_DIR": f"{other}/.git",
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": f"{other}/.git/index",
        "GIT_OBJECT_DIRECTORY": f"{other}/.git/objects",
        "GIT_CEILING_DIRECTORIES": str(host),
    }
    out = subprocess.check_output([sys.executable, "-c", code, str(host / "d")], env=env, text=True)
    assert out.split() == [str(host), git(host, "rev-parse", "HEAD")]


def test_a_repository_of_another_user_is_no_obstacle(host: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for parent, directories, files in os.walk(host):
        for name in (*directories, *files):
            os.chown(os.path.join(parent, name), 12345, 12345)
    os.chown(host, 12345, 12345)
    assert repository.find(host).branch == "main"
