"""git in a lane does what it does in a plain clone: the same commands in both, the same result."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lanebox import git_lane

from tests.gitbox import ENV, make_repository

# Run by sh at the top of the working tree; `$OTHER` is a directory beside it.
SCRIPTS = {
    "commit on a branch": "git checkout -q -b t; echo x >> a/f1; git commit -qam one; git log -1",
    "clone of it": 'git clone -q . "$OTHER/c"; cd "$OTHER/c"; git log --format=%T; git fsck',
    "clone into it": "git clone -q . inside; git status --porcelain; ls -A inside",
    "checkout of files": "rm -r a; echo y > b/f2; git checkout -q -- .; git status --porcelain",
    "switch with a directory that becomes a file": (
        "git checkout -q -b t; git rm -qr a; echo file > a; git add a; git commit -qm a;"
        "git checkout -q main; cat a/f1; git checkout -q t; cat a"
    ),
    "rebase": (
        "git checkout -q -b t; echo 1 > new1; git add -A; git commit -qm t1; echo 2 >> b/f2;"
        "git commit -qam t2; git checkout -q main; echo m >> a/f1; git commit -qam m;"
        "git checkout -q t; git rebase -q main; git log --format='%s %T'"
    ),
    "rebase with a conflict": (
        "git checkout -q -b t; echo 1 > a/f1; git commit -qam t1; git checkout -q main;"
        "echo 2 > a/f1; git commit -qam m; git checkout -q t; git rebase main && exit 9;"
        "git status --porcelain; cat a/f1; git checkout -q --theirs a/f1; git add a/f1;"
        "GIT_EDITOR=true git rebase --continue; git log --format='%s %T'"
    ),
    "stash": (
        "echo 1 >> a/f1; echo u > untracked; git stash push -qu; git status --porcelain;"
        "test ! -e untracked; git stash pop -q; git status --porcelain; cat untracked a/f1"
    ),
    "merge and revert": (
        "git checkout -q -b t; git mv a moved; git commit -qm mv; git checkout -q main;"
        "echo m >> a/f2; git commit -qam m; git merge -q t -m merge; git log --format='%s %T';"
        "git revert --no-edit -m 1 HEAD; git status --porcelain; ls"
    ),
    "gc": "echo 1 >> a/f1; git commit -qam 1; git gc -q --prune=now; git fsck; git count-objects",
    "repack": "git repack -adq; git fsck --strict; git log --format=%T",
    "worktree": (
        'git worktree add -q "$OTHER/w"; cd "$OTHER/w"; echo w >> a/f1; git status --porcelain;'
        "git commit -qam w; git worktree list --porcelain | grep -c ^worktree"
    ),
    "submodule": (
        'git init -q -b main "$OTHER/s"; cd "$OTHER/s"; echo s > s; git add s; git commit -qm s;'
        'cd - >/dev/null; git -c protocol.file.allow=always submodule add -q "$OTHER/s" sub;'
        "git commit -qm sub; git submodule status | cut -c2-50; cat sub/s; echo t >> sub/s;"
        "git status --porcelain"
    ),
    "move of a directory": "git mv d e; git status --porcelain; git commit -qm mv; ls -R e",
    "apply and am": (
        "echo p >> a/f1; git diff > ../p; git checkout -q a/f1; git apply ../p; git commit -qam p;"
        "git format-patch -q -1 -o ..; git reset -q --hard HEAD~1; git am -q ../0001-p.patch;"
        "git log --format='%s %T'"
    ),
    "bisect": (
        "for i in 1 2 3 4 5; do echo $i > a/f1; git commit -qam $i; done;"
        "git bisect start -q HEAD HEAD~5 >/dev/null; git bisect run sh -c 'test $(cat a/f1) -lt 3'"
        " | grep 'first bad'; git bisect reset -q"
    ),
    "clean and ignored": (
        "mkdir out; echo o > out/o; echo i > x.o; git status --porcelain --ignored;"
        "git clean -qfdx; git status --porcelain --ignored; ls"
    ),
    "sparse checkout": "git sparse-checkout set a; ls -A; git sparse-checkout disable; ls",
    "lock that is held": "touch .git/index.lock; git add -A || echo refused; rm .git/index.lock",
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    files: dict[str, str | bytes] = {
        f"{top}/f{number}": f"{top} {number}\n" * 5 for top in "abd" for number in range(3)
    }
    return make_repository(tmp_path / "host", files | {".gitignore": "*.o\nout/\n"})


@pytest.fixture
def lane(tmp_path: Path, host: Path) -> Iterator[Path]:
    with git_lane(tmp_path, host) as made:
        yield made.path


def run(top: Path, script: str) -> list[object]:
    """How a script ends, what it says, and what is there afterwards."""
    other = top.parent / "other"
    other.mkdir()
    done = subprocess.run(
        ["sh", "-c", script.replace(";", "\n")],
        cwd=top,
        env={**ENV, "OTHER": str(other), "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
    )
    said = done.stdout.replace(str(top.parent), "TOP")
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=top, env=ENV, capture_output=True, text=True
    )
    return [done.returncode, said, status.stdout, contents(top)]


def contents(top: Path) -> dict[str, str]:
    """Every file of a working tree, by its mode and content."""
    found = {}
    for directory, names, files in os.walk(top):
        if ".git" in names:
            names.remove(".git")
        for name in files:
            path = Path(directory, name)
            if name == ".git":
                continue
            mode = stat.S_IMODE(path.lstat().st_mode)
            content = path.read_bytes().replace(os.fsencode(top.parent), b"TOP")
            digest = hashlib.sha256(content).hexdigest()
            found[str(path.relative_to(top))] = f"{mode:o} {digest}"
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_git_does_in_a_lane_what_it_does_in_a_clone(
    tmp_path: Path, host: Path, lane: Path, name: str
) -> None:
    plain = tmp_path / "plain" / "mnt"
    plain.parent.mkdir()
    clone = ["git", "clone", "-q", "--no-hardlinks", str(host), str(plain)]
    subprocess.run(clone, env=ENV, check=True)

    expected = run(plain, SCRIPTS[name])
    found = run(lane, SCRIPTS[name])

    if name == "gc":  # what a clone has itself, a lane borrows
        expected[1] = found[1] = ""
    assert found == expected
