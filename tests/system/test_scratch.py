"""Scratch and share: what a reader may write to, and where it does not go."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetbox import Fleet, agent, phase
from gitbox import git

_FILES: dict[str, str | bytes] = {
    "Makefile": "check: out/app\n\tout/app\nout/app: app.c\n\tmkdir -p out\n\tcc -o $@ app.c\n",
    "app.c": '#include <stdio.h>\nint main(void) { puts("built"); return 0; }\n',
    "package.json": '{"name": "it", "version": "1.0.0", "scripts": {"test": "node --test"}}\n',
    "it.test.js": (
        "const test = require('node:test'), fs = require('fs');\n"
        "test('writes', () => { fs.writeFileSync('node-out/x', 'y'); });\n"
    ),
    "test_it.py": "def test_it(tmp_path):\n    (tmp_path / 'x').write_text('y')\n",
    "tests/cache/kept": "from the tree\n",
    "nested/file": "x\n",
    ".gitignore": "shared/\nsite\n",
}
_SCRATCH = [".pytest_cache", "out", "node-out", "deep/er/scratch", "tests/cache"]

_EMPTY = """
test -d out && test -z "$(ls -A out)"
test -d deep/er/scratch && test -z "$(ls -A deep/er/scratch)"
test -z "$(ls -A tests/cache)"
"""
# A clone below /tmp is not to be seen in a lane, and so neither is its own environment.
_PYTEST = f"PYTHONPATH=site {os.path.realpath(sys.executable)} -B -m pytest"
_QA = f"""{_EMPTY}refused() {{ if "$@" 2>/dev/null; then echo "$* was possible"; exit 9; fi; }}
{_PYTEST} -q -p no:randomly test_it.py
test -e .pytest_cache/v/cache/nodeids
if command -v cc >/dev/null && command -v make >/dev/null; then make -s check; fi
if command -v npm >/dev/null; then npm test --silent; test -e node-out/x; fi
echo mine > deep/er/scratch/mine
echo mine > tests/cache/mine
refused touch new
refused touch deep/new
refused touch nested/file
cat shared/lib > /dev/null
refused touch shared/x
git status --porcelain > $NANOSUP_OUTPUTS/status.txt
ls -A . > $NANOSUP_OUTPUTS/names.txt
"""
_BUILD = "mkdir -p deep; echo built > made; mkdir out; echo theirs > out/theirs; cat shared/lib"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    path = tmp_path / "repository"
    made = Fleet(
        path,
        agent("build", _BUILD)
        + agent("qa", _QA)
        + agent("again", _EMPTY)
        + agent("look", "ls -A deep/er > $NANOSUP_OUTPUTS/seen.txt || true")
        + phase("build", access="write", agents=["build"], share=["shared"])
        + phase(
            "qa",
            depends_on=["build"],
            agents=["qa"],
            scratch=_SCRATCH,
            share=["shared", "site"],
            outputs=["status.txt", "names.txt"],
        )
        + phase("again", depends_on=["qa"], agents=["again"], scratch=_SCRATCH, share=["shared"])
        + phase(
            "after",
            depends_on=["again"],
            access="write",
            agents=["look"],
            outputs=["seen.txt"],
        ),
        _FILES,
    )
    (path / "shared").mkdir()
    (path / "shared/lib").write_text("library\n")
    (path / "site").symlink_to(sysconfig.get_path("purelib"))
    yield made
    made.close()


def test_tests_run_in_a_read_lane_and_leave_nothing_behind(fleet: Fleet) -> None:
    done = fleet.run("up", "--goal", "test it")
    assert done.returncode == 0, done.stdout + done.stderr + fleet.run("logs", "qa").stdout
    # A second reader found its scratch directories empty; the next writer none that were not there.
    assert fleet.states("again") == ["completed"]
    names = fleet.run("artifacts", "show", "qa", "names.txt").stdout.split()
    assert {"made", "out", "node-out", "deep", "shared", ".pytest_cache"} <= set(names)
    assert fleet.run("artifacts", "show", "after", "seen.txt").stdout == ""
    sealed = fleet.phase("after")["attempts"][-1]["tree"]
    listed = git(fleet.top, "ls-tree", "-r", "--name-only", sealed).split("\n")
    assert "out/theirs" in listed
    assert "tests/cache/kept" in listed
    assert not [path for path in listed if "mine" in path or "scratch" in path]
    assert not [path for path in listed if path.startswith((".pytest_cache", "node-out", "shared"))]
    for layer in (fleet.board / "layers").iterdir():
        assert not [p for p in layer.rglob("*") if p.name in ("mine", "shared", ".pytest_cache")]
    # On the host: nothing but what was there.
    assert sorted(p.name for p in fleet.top.iterdir()) == sorted(
        {*(Path(name).parts[0] for name in _FILES), ".git", "nanosup.toml", "shared", "site"}
    )
    assert [p.name for p in (fleet.top / "shared").iterdir()] == ["lib"]


def test_a_snapshot_of_the_worktree_is_what_a_lane_sees(tmp_path: Path) -> None:
    seen = (
        "git status --porcelain; cat changed; cat 'not yet added'; test ! -e removed;"
        " test ! -e junk.o; ls -l script | cut -c1-10; readlink link"
    )
    fleet = Fleet(
        tmp_path / "repository",
        '[workspace]\nsnapshot = "worktree"\n'
        + agent("look", f"({seen}) > $NANOSUP_OUTPUTS/seen.txt")
        + phase("look", agents=["look"], outputs=["seen.txt"]),
        {"changed": "old\n", "removed": "x\n", "script": "#!/bin/sh\n", ".gitignore": "*.o\n"},
    )
    try:
        (fleet.top / "changed").write_text("new\n")
        (fleet.top / "not yet added").write_text("added\n")
        (fleet.top / "removed").unlink()
        (fleet.top / "junk.o").write_text("junk")
        (fleet.top / "script").chmod(0o755)
        (fleet.top / "link").symlink_to("changed")
        status = git(fleet.top, "status", "--porcelain")
        done = fleet.run("up", "--goal", "look")
        assert done.returncode == 0, done.stdout + done.stderr
        found = fleet.run("artifacts", "show", "look", "seen.txt").stdout
        assert found == "new\nadded\n-rwxr-xr-x\nchanged\n"
        assert git(fleet.top, "status", "--porcelain") == status
    finally:
        fleet.close()
