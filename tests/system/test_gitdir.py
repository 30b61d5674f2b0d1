"""Git in a lane, as an agent finds it; and the index that makes `git status` read no file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from gitbox import ENV, fingerprint, git, git_bytes, make_layer, make_repository, write

from sandbox.errors import GitError
from sandbox.repository import gitdir, index, repository
from sandbox.repository.repository import Repository
from sandbox.repository.seal import seal

EPOCH_S = 1_000_000_000
FILES: dict[str, str | bytes] = {
    "a": "a\n",
    "a.b/c": "c\n",
    "a-b": "x\n",
    "d/e/f": "f\n",
    "d/empty": "",
    ("n" * 200) + "/" + ("m" * 250): "long\n",
    "é ü": "u\n",
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    path = make_repository(tmp_path / "host", FILES)
    write(path / "run.sh", "#!/bin/sh\n", executable=True)
    os.symlink("a", path / "link")
    git(path, "add", "-A")
    git(path, "update-index", "--add", "--cacheinfo", f"160000,{'12' * 20},sub")
    git(path, "commit", "-q", "-m", "two")
    (path / "sub").mkdir()
    return path


@pytest.fixture
def repo(host: Path) -> Repository:
    return repository.find(host)


def checkout(host: Path, view: Path) -> Path:
    """What the mount shows: the tree, everything at the epoch."""
    shutil.copytree(host, view, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    for parent, directories, files in os.walk(view):
        for name in (*directories, *files):
            path = os.path.join(parent, name)
            os.utime(path, (EPOCH_S, EPOCH_S), follow_symlinks=False)
    return view


def make_lane(
    repo: Repository, view: Path, root: Path, *, commit: str = "", layers: tuple[Path, ...] = ()
) -> Path:
    record = root / f"index-{commit or 'base'}"
    refs = root / "refs"
    index.record(
        record,
        repo,
        commit=commit or repo.commit,
        epoch_ns=EPOCH_S * 10**9,
        uid=os.getuid(),
        gid=os.getgid(),
        layers=layers,
    )
    gitdir.record_refs(repo, refs)
    gitdir.make(
        view / ".git",
        repo,
        commit=commit or repo.commit,
        alternates={path: str(path) for path in repo.object_dirs},
        index=record,
        refs=refs,
        uid=os.getuid(),
        gid=os.getgid(),
    )
    return view / ".git"


def opened(view: Path, root: Path) -> list[str]:
    """Files of the view that `git status` opens."""
    trace = root / "trace"
    subprocess.run(
        ["strace", "-f", "-e", "trace=open,openat,readlink", "-o", trace, "git", "status"],
        cwd=view,
        env=ENV,
        check=True,
        capture_output=True,
    )
    names = []
    for line in trace.read_text(errors="replace").splitlines():
        name = line.partition('"')[2].partition('"')[0]
        if not name or " = -1" in line or "O_DIRECTORY" in line or name.startswith((".git/", "/")):
            continue
        names.append(name)
    return names


def test_status_is_clean_and_reads_no_file(repo: Repository, host: Path, tmp_path: Path) -> None:
    view = checkout(host, tmp_path / "view")
    make_lane(repo, view, tmp_path)
    assert git(view, "-c", "status.branch=false", "status", "--porcelain") == ""
    if shutil.which("strace"):
        assert opened(view, tmp_path) == []


def test_the_index_is_what_read_tree_makes(repo: Repository, host: Path, tmp_path: Path) -> None:
    view = checkout(host, tmp_path / "view")
    make_lane(repo, view, tmp_path)
    assert git_bytes(view, "ls-files", "-s", "-z") == git_bytes(host, "ls-files", "-s", "-z")
    assert git(view, "write-tree") == repo.tree
    git(view, "fsck", "--strict", "--no-dangling")
    assert git(view, "rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert git(view, "log", "--format=%s") == "two\none"


def test_the_cached_trees_are_valid(repo: Repository, host: Path, tmp_path: Path) -> None:
    view = checkout(host, tmp_path / "view")
    lane = make_lane(repo, view, tmp_path)
    # With nothing but the index, write-tree can answer from the cached trees alone.
    bare = tmp_path / "bare"
    bare.mkdir()
    git(bare, "init", "-q")
    shutil.copy(lane / "index", bare / ".git/index")
    assert git(bare, "write-tree", "--missing-ok") == repo.tree
    assert git(bare, "write-tree", "--missing-ok", "--prefix=d/") == git(
        host, "rev-parse", "HEAD:d"
    )


def test_an_index_over_layers_has_their_stat_data(
    repo: Repository, host: Path, tmp_path: Path
) -> None:
    bottom = checkout(host, tmp_path / "bottom")
    middle = shutil.copytree(bottom, tmp_path / "middle", symlinks=True)
    write(middle / "a", "from one\n")
    write(middle / "d/e/f", "from one\n")
    write(middle / "new/x", "x\n")
    (middle / "d/empty").unlink()
    view = shutil.copytree(middle, tmp_path / "view", symlinks=True)
    shutil.rmtree(view / "d")
    write(view / "d/y", "y\n")
    shutil.rmtree(view / "a.b")
    os.symlink("elsewhere", view / "a.b")
    layers = (
        make_layer(bottom, middle, tmp_path / "one"),
        make_layer(middle, view, tmp_path / "two", replace=True),
    )
    sealed = seal(
        repo,
        parent=repo.commit,
        layers=layers,
        message="m",
        author="A <a@b>",
        when_s=1_700_000_000,
    )
    make_lane(repo, view, tmp_path, commit=sealed.commit, layers=layers)
    assert git(view, "diff-files") == ""
    assert git(view, "status", "--porcelain") == ""
    assert git(view, "write-tree") == sealed.tree


def test_refs_of_the_host_are_there_as_they_were_recorded(
    repo: Repository, host: Path, tmp_path: Path
) -> None:
    git(host, "tag", "-a", "-m", "t", "v1")
    git(host, "branch", "topic/x")
    git(host, "update-ref", "refs/remotes/origin/main", "HEAD~1")
    git(host, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    git(host, "symbolic-ref", "refs/remotes/gone/HEAD", "refs/remotes/gone/main")
    git(host, "update-ref", "refs/nanosup/s/p", "HEAD")
    view = checkout(host, tmp_path / "view")
    make_lane(repo, view, tmp_path)
    refs = git(view, "for-each-ref", "--format=%(refname)").split()
    assert refs == [
        "refs/heads/main",
        "refs/heads/topic/x",
        "refs/remotes/origin/HEAD",
        "refs/remotes/origin/main",
        "refs/tags/v1",
    ]
    assert git(view, "log", "--format=%s", "origin/main..main") == "two"
    assert git(view, "describe") == "v1"
    git(host, "branch", "later")
    gitdir.record_refs(repo, tmp_path / "refs")
    assert b"later" not in (tmp_path / "refs").read_bytes()


def test_commits_have_the_hosts_identity_and_none_of_its_programs_and_secrets(
    repo: Repository, host: Path, tmp_path: Path
) -> None:
    git(host, "config", "user.name", 'Ann "the" \\ dev')
    git(host, "config", "user.email", "ann@example.org")
    git(host, "config", "remote.origin.url", "https://user:secret@example.org/x")
    git(host, "config", "core.hooksPath", str(tmp_path / "hooks"))
    git(host, "config", "core.fsmonitor", "evil")
    git(host, "config", "filter.x.clean", "evil")
    git(host, "config", "include.path", str(tmp_path / "more"))
    write(host / ".git/hooks/post-commit", "#!/bin/sh\nexit 1\n", executable=True)
    write(host / ".git/info/exclude", "private\n")
    view = checkout(host, tmp_path / "view")
    lane = make_lane(repo, view, tmp_path)
    text = (lane / "config").read_text()
    assert not any(word in text for word in ("secret", "evil", "hooksPath", "include"))
    assert list((lane / "hooks").iterdir()) == []
    write(view / "private", "p\n")
    write(view / "new", "n\n")
    assert git(view, "status", "--porcelain") == "?? new"
    git(view, "add", "-A")
    env = {key: value for key, value in ENV.items() if "AUTHOR_" not in key}
    subprocess.run(["git", "commit", "-qm", "m"], cwd=view, env=env, check=True)
    assert git(view, "show", "-s", "--format=%an|%ae") == 'Ann "the" \\ dev|ann@example.org'


def test_a_lane_works_without_touching_the_host(
    repo: Repository, host: Path, tmp_path: Path
) -> None:
    before = fingerprint(host)
    view = checkout(host, tmp_path / "view")
    make_lane(repo, view, tmp_path)
    write(view / "a", "changed\n")
    git(view, "commit", "-qam", "m")
    git(view, "checkout", "-q", "-b", "topic", "HEAD~1")
    git(view, "merge", "-q", "main")
    write(view / "a", "stashed\n")
    git(view, "stash", "-q")
    git(view, "gc", "-q")
    assert fingerprint(host) == before


def test_detached_and_slashed_branches_and_shallow_hosts(host: Path, tmp_path: Path) -> None:
    git(host, "checkout", "-q", "-b", "topic/deep/er")
    view = checkout(host, tmp_path / "view")
    make_lane(repository.find(host), view, tmp_path)
    assert git(view, "symbolic-ref", "HEAD") == "refs/heads/topic/deep/er"

    git(tmp_path, "clone", "-q", "--depth=1", f"file://{host}", "shallow")
    git(tmp_path / "shallow", "checkout", "-q", "--detach")
    repo = repository.find(tmp_path / "shallow")
    other = checkout(tmp_path / "shallow", tmp_path / "other")
    (tmp_path / "refs").unlink()
    (tmp_path / "index-base").unlink()
    make_lane(repo, other, tmp_path)
    assert git(other, "rev-parse", "HEAD") == repo.commit
    assert git(other, "log", "--format=%s") == "two"
    assert git(other, "status", "--porcelain") == ""


def test_paths_in_the_jail_stand_in_the_alternates(host: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(host), "borrower")
    repo = repository.find(tmp_path / "borrower")
    alternates = [(path, f"/run/o/{n}") for n, path in enumerate(repo.object_dirs)]
    gitdir.make(tmp_path / "lane", repo, commit=repo.commit, alternates=alternates)

    written = (tmp_path / "lane/objects/info/alternates").read_text()
    assert written == "/run/o/0\n/run/o/1\n"
    assert gitdir.masks(alternates) == ("/run/o/0/info/alternates",)


def test_a_git_directory_in_use_is_refused(repo: Repository, tmp_path: Path) -> None:
    write(tmp_path / "lane/HEAD", "x")
    with pytest.raises(GitError, match="in use"):
        gitdir.make(tmp_path / "lane", repo, commit=repo.commit, alternates={})


def test_missing_blobs_are_an_error(repo: Repository, host: Path, tmp_path: Path) -> None:
    blob = git(host, "rev-parse", "HEAD:a")
    (host / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(GitError, match="lacks the git object"):
        index.record(tmp_path / "i", repo, commit=repo.commit, epoch_ns=0, uid=0, gid=0)
    assert not list(tmp_path.glob(".i*"))
