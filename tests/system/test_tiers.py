"""The same sprint in each tier: a writer's work is sealed, a reader cannot write, outputs come out.

As root, and (the whole again, in one process) as an ordinary user.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import host
from sandbox.tier import Tier, lacking
from tests.fleetbox import NANOSUP, Fleet, agent, phase
from tests.gitbox import git
from tests.ordinary import OrdinaryUser, ordinary_user, why_not

FILES: dict[str, str | bytes] = {
    "README": "hello\n",
    "src/a.c": "int a;\n",
    "src/b.c": "int b;\n",
    "empty/one": "",
    "empty/two": "",
    "crlf.txt": b"one\r\ntwo\r\n",
    "old/gone/x": "x\n",
    ".gitignore": "*.o\n",
}

BUILD = """
test "$(git status --porcelain)" = ""
test "$(git rev-parse HEAD)" = "$NANOSUP_BASE"
echo more >> README
rm -r old
mv empty/one empty/moved
chmod +x src/a.c
mkdir -p new/deep
echo l > new/deep/x
ln -s ../README new/link
git add -A
git commit -qm 'by the agent'
echo after > src/b.c
echo obj > t.o
echo built > "$NANOSUP_OUTPUTS/built.txt"
"""

# Every attempt to write must fail; what is seen must be what was built.
REVIEW = """
for try in 'echo x >> README' 'echo x > nope' 'mkdir d' 'rm README' 'mv src/a.c src/z.c' \
    'chmod 777 README' 'touch README' 'ln -s x y' 'truncate -s 0 src/b.c' 'mknod p p' \
    'ln README hard' 'echo x > .git/HEAD' 'rm -rf new'
do
    if sh -c "$try" 2>/dev/null; then echo "WROTE: $try"; exit 9; fi
done
test "$(git status --porcelain)" = ""
git log --format=%s | grep -q 'by the agent'
test "$(cat README)" = "hello
more"
test "$(cat src/b.c)" = after
test "$(cat t.o)" = obj
test "$(cat "$NANOSUP_INPUTS/build/built.txt")" = built
test ! -e old && test ! -e empty/one && test -x src/a.c && test -L new/link
echo scratch > .cache/x
echo tmp > "$TMPDIR/x"
printf '{"saw": "%s"}' "$(git rev-parse HEAD)" > "$NANOSUP_OUTPUTS/seen.json"
"""


def toml(tier: str) -> str:
    script = f"case $NANOSUP_PHASE in build) {BUILD} ;; inspect) {REVIEW} ;; esac"
    return (
        f'[workspace]\nmount = "{tier}"\n\n'
        + agent("sh", script)
        + phase("build", access="write", outputs=["built.txt"])
        + phase("inspect", depends_on=["build"], outputs=["seen.json"], scratch=[".cache"])
    )


@pytest.fixture(params=list(Tier))
def tier(request: pytest.FixtureRequest) -> Iterator[str]:
    missing = lacking(host.probe(), request.param)
    if missing:
        pytest.skip(f"{request.param.value}: {missing[0].detail}")
    yield request.param.value


def check(top: Path, tier: str, status: Any) -> None:
    (sprint,) = status["sprints"]
    assert sprint["state"] == "completed", sprint
    attempts = {p["name"]: p["attempts"] for p in sprint["phases"]}
    assert {a["tier"] for one in attempts.values() for a in one} == {tier}
    (built,), (review,) = attempts["build"], attempts["inspect"]
    commit = built["commit"]
    assert git(top, "show", f"{commit}:README") == "hello\nmore"
    assert git(top, "show", f"{commit}:src/b.c") == "after"
    assert git(top, "log", "--format=%s", f"{commit}^", "-1") == "by the agent"
    tree = git(top, "ls-tree", "-r", commit).splitlines()
    assert sorted(line.split("\t")[1] for line in tree) == [
        ".gitignore",
        "README",
        "crlf.txt",
        "empty/moved",
        "empty/two",
        "nanosup.toml",
        "new/deep/x",
        "new/link",
        "src/a.c",
        "src/b.c",
    ]
    assert {line.split()[0] for line in tree if "src/a.c" in line} == {"100755"}
    assert git(top, "cat-file", "blob", f"{commit}:crlf.txt") == "one\r\ntwo\r"
    assert review["sees"] == built["tree"]
    assert git(top, "status", "--porcelain") == ""


def test_a_sprint_is_the_same_in_every_tier(tmp_path: Path, tier: str) -> None:
    fleet = Fleet(tmp_path / "proj", toml(tier), FILES)

    done = fleet.run("up")

    assert done.returncode == 0, done.stdout + done.stderr + fleet.run("logs", "inspect").stdout
    check(fleet.top, tier, fleet.json("status"))
    assert fleet.json("artifacts", "verify")["ok"]
    assert f"tier {tier}" in fleet.run("status").stdout


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_sprint_is_the_same_for_an_ordinary_user(tier: str) -> None:
    with ordinary_user() as user:
        fleet = Fleet(user.directory / "proj", toml(tier), FILES)
        subprocess.run(["chown", "-R", f"{user.uid}:{user.uid}", fleet.top], check=True)

        done = as_user(user, fleet.top, "up")

        assert done.returncode == 0, done.stdout + done.stderr
        status = json.loads(as_user(user, fleet.top, "status", "--json").stdout)
        subprocess.run(["chown", "-R", "0:0", fleet.top], check=True)  # for git's safe.directory
        check(fleet.top, tier, status)


def as_user(user: OrdinaryUser, top: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = ["env", "-C", str(top), NANOSUP, *args]
    return subprocess.run(
        user.command(*command),
        cwd="/",
        env=user.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
