"""A seal makes the very tree that `git add -A && git write-tree` makes of the same directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gitbox import ENV, git, git_bytes, make_layer, make_repository, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.repository import repository
from sandbox.repository.seal import fold_again, seal
from sandbox.repository.snapshot import dirty, snapshot

_NAMES = st.sampled_from(["a", "b", "B", "d", "e", "x.o", "build", "é", "-n", "sp ace", "a.b"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_CONTENT = st.sampled_from(
    [
        b"",
        b"one\n",
        b"two\n",
        b"one\r\ntwo\r\n",
        b"lone\rcr\r\n",
        b"nul\0\r\n",
        b"$Id: x$\n",
        b"mix\r\n\n",
    ]
)
_IGNORES = st.lists(
    st.sampled_from(
        [
            "*.o",
            "!*.o",
            "build/",
            "/build",
            "d/*",
            "!/d/a",
            "a",
            "!a/",
            "/a/b",
            "d/**/b",
            "**/e",
            "e/**",
            "[ab]",
            "!b",
            "a.?",
            "*",
            "!*/",
            "# no",
            "sp\\ ace",
            "é",
        ]
    ),
    max_size=3,
).map(lambda lines: "\n".join(lines).encode())
_ATTRIBUTES = st.lists(
    st.sampled_from(
        [
            "* text=auto",
            "*.o -text",
            "a text",
            "b eol=crlf",
            "d/* text=auto eol=lf",
            "* ident",
            "a binary",
        ]
    ),
    max_size=2,
).map(lambda lines: "\n".join(lines).encode())
_PREFIX = st.sampled_from(["", "", "d/", "a/", "d/e/"])


@dataclass(frozen=True)
class Op:
    what: str
    path: str
    content: bytes = b""
    other: str = ""


_OPS = st.one_of(
    st.builds(Op, st.sampled_from(["write", "execute"]), _PATHS, _CONTENT),
    st.builds(Op, st.just("link"), _PATHS, other=_PATHS),
    st.builds(Op, st.just("remove"), _PATHS),
    st.builds(Op, st.just("mkdir"), _PATHS),
    st.builds(Op, st.just("rename"), _PATHS, other=_PATHS),
    st.builds(lambda p, c: Op("write", p + ".gitignore", c), _PREFIX, _IGNORES),
    st.builds(lambda p: Op("remove", p + ".gitignore"), _PREFIX),
    st.builds(lambda p, c: Op("write", p + ".gitattributes", c), _PREFIX, _ATTRIBUTES),
)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


def _room(root: Path, path: Path) -> None:
    for parent in reversed(path.relative_to(root).parents[:-1]):
        here = root / parent
        if here.is_symlink() or not here.is_dir():
            _clear(here)
            here.mkdir()


def _apply(root: Path, op: Op) -> None:
    path = root / op.path
    if op.what == "remove":
        if os.path.realpath(path.parent) == str(path.parent):
            _clear(path)
        return
    if op.what == "rename":
        target = root / op.other
        if not os.path.lexists(path) or os.path.realpath(path.parent) != str(path.parent):
            return
        if target.is_relative_to(path) or path.is_relative_to(target):
            return
        _room(root, target)
        if os.path.lexists(path):
            _clear(target)
            path.rename(target)
        return
    _room(root, path)
    _clear(path)
    if op.what == "mkdir":
        path.mkdir()
    elif op.what == "link":
        path.symlink_to(op.other)
    else:
        write(path, op.content, executable=op.what == "execute")


_SETTINGS = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _host_and_view(root: Path, base: list[Op]) -> tuple[Path, Path]:
    host = make_repository(root / "host", {"keep": "k\n"})
    for op in base:
        _apply(host, op)
    git(host, "add", "-A")
    git(host, "commit", "-q", "--allow-empty", "-m", "base")
    # The lane begins as a checkout does: nothing that is ignored, no empty directories.
    view = root / "view"
    git(root, "-c", "core.autocrlf=false", "clone", "-q", "--no-local", str(host), str(view))
    git(view, "config", "core.autocrlf", "false")
    # A lane shows files as the blobs are, so the checkout must not convert either.
    _checkout_raw(host, view)
    return host, view


def _rounds(root: Path, rounds: list[list[Op]], base: list[Op], replace: bool) -> None:
    host, view = _host_and_view(root, base)
    repo = repository.find(host)
    parent, below = repo.commit, []
    for number, ops in enumerate(rounds):
        before = root / f"before{number}"
        shutil.copytree(view, before, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        for op in ops:
            _apply(view, op)
        _backdate(view, number + 1)
        layer = make_layer(before, view, root / f"layer{number}", replace=replace)
        git(view, "add", "-A")
        expected = git(view, "write-tree")
        sealed = seal(
            repo,
            parent=parent,
            layers=[layer],
            below=below,
            message="m",
            author="Agent <a@example.org>",
            when_s=1_700_000_001,
        )
        assert sealed.notes == ()
        if sealed.tree != expected:
            ours, theirs = (
                git(host, "ls-tree", "-r", sealed.tree),
                git(view, "ls-tree", "-r", expected),
            )
            assert ours == theirs
        assert sealed.tree == expected
        assert (sealed.changed == 0) == (
            sealed.tree == git(host, "rev-parse", f"{parent}^{{tree}}")
        )
        parent = sealed.commit
        below.append(layer)
        again = fold_again(repo, base_tree=repo.tree, layers=below, tree=sealed.tree)
        assert again == sealed.tree
    git(host, "fsck", "--strict", "--no-dangling")


def _backdate(view: Path, number: int) -> None:
    """Keeps git from reading unchanged files again because they are as young as the index, and
    from missing changes of equal size because they have the same age."""
    now_s, when_s = time.time(), 1_600_000_000 + 100 * number
    for parent, directories, files in os.walk(view):
        if ".git" in directories:
            directories.remove(".git")
        for file in files:
            path = os.path.join(parent, file)
            if os.lstat(path).st_mtime > now_s - 50:
                os.utime(path, (when_s, when_s), follow_symlinks=False)


def _age(layer: Path, view: Path) -> None:
    """Makes git look at every changed file again. Left alone it would keep what it made of one
    under attributes that no longer hold; a seal goes by those that do."""
    for parent, _, files in os.walk(layer):
        for file in files:
            path = view / os.path.relpath(parent, layer) / file
            if os.path.lexists(path):
                os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)


def _checkout_raw(host: Path, view: Path) -> None:
    for line in git(view, "ls-files", "-s", "-z").split("\0"):
        if not line:
            continue
        entry, name = line.split("\t", 1)
        mode, oid, _stage = entry.split(" ")
        path = view / name
        if mode != "120000":
            content = path.read_bytes()
            blob = git_bytes(host, "cat-file", "blob", oid)
            if blob != content:
                write(path, blob, executable=mode == "100755")
    _backdate(view, 0)
    git(view, "add", "-u")
    git(view, "reset", "-q", "--mixed", "HEAD")


@_SETTINGS
@given(
    base=st.lists(_OPS, max_size=8),
    rounds=st.lists(st.lists(_OPS, min_size=1, max_size=8), min_size=1, max_size=3),
    replace=st.booleans(),
)
def test_a_seal_is_what_git_add_makes_of_the_view(
    base: list[Op], rounds: list[list[Op]], replace: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        _rounds(Path(directory).resolve(), rounds, base, replace)


_GIT_OPS = st.one_of(
    st.just(Op("git", "", other="commit --allow-empty -qam agent")),
    st.just(Op("git", "", other="add -A")),
    st.builds(Op, st.just("git"), _PATHS, other=st.just("add -f --")),
    st.builds(Op, st.just("git"), _PATHS, other=st.just("rm -rq --cached --")),
)


@_SETTINGS
@given(
    base=st.lists(_OPS, max_size=8),
    steps=st.lists(
        st.tuples(st.lists(_OPS, max_size=4), st.lists(_GIT_OPS, max_size=3)), max_size=4
    ),
)
def test_a_seal_over_the_agents_commits_is_what_git_add_makes_there(
    base: list[Op], steps: list[tuple[list[Op], list[Op]]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        host, view = _host_and_view(root, base)
        repo = repository.find(host)
        before = root / "before"
        shutil.copytree(view, before, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        for number, (ops, commands) in enumerate(steps):
            for op in ops:
                _apply(view, op)
            _backdate(view, number + 1)
            for op in commands:
                words = [*op.other.split(), *([op.path] if op.path else [])]
                # It may well fail: the path may not be there.
                subprocess.run(["git", *words], cwd=view, env=ENV, capture_output=True)
        git(view, "commit", "-q", "--allow-empty", "-m", "last")
        head = git(view, "rev-parse", "HEAD")
        layer = make_layer(before, view, root / "layer")
        _age(layer, view)
        sealed = seal(
            repo,
            parent=repo.commit,
            layers=[layer],
            lane_git=view / ".git",
            message="m",
            author="Agent <a@example.org>",
            when_s=1_700_000_001,
        )
        git(view, "add", "-A")
        assert sealed.notes == ()
        expected = git(view, "write-tree")
        ours = git(host, "ls-tree", "-r", sealed.tree)
        assert ours == git(view, "ls-tree", "-r", expected)
        assert sealed.tree == expected
        as_committed = expected == git(view, "rev-parse", "HEAD^{tree}")
        assert as_committed == (sealed.commit == head)
        git(host, "fsck", "--strict", "--no-dangling", sealed.commit)
        again = fold_again(repo, base_tree=repo.tree, layers=[layer], tree=sealed.tree)
        assert again == sealed.tree


@_SETTINGS
@given(base=st.lists(_OPS, max_size=8), ops=st.lists(_OPS, max_size=8))
def test_a_worktree_snapshot_is_what_git_add_makes_of_it(base: list[Op], ops: list[Op]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        host = make_repository(root / "host", {"keep": "k\n"})
        for op in base:
            _apply(host, op)
        git(host, "add", "-A")
        git(host, "commit", "-q", "--allow-empty", "-m", "base")
        for op in ops:
            _apply(host, op)
        repo = repository.find(host)
        commit, tree = snapshot(repo, "worktree", root / "objects")
        assert dirty(repo) == (tree != repo.tree)
        git(host, "add", "-A")
        assert tree == git(host, "write-tree")
        assert (commit == repo.commit) == (tree == repo.tree)
