"""The same sprint in each tier: a writer's work is sealed, a reader cannot write, outputs come out.

As root, and (the whole again, in one process) as an ordinary user.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox.probe import host
from sandbox.tiers.tier import Tier, lacking
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


@pytest.fixture
def rooms() -> Iterator[Path]:
    """Where lanes without namespaces are: a directory that any user can traverse."""
    path = Path(tempfile.mkdtemp(prefix="nanosup-rooms-", dir="/var/tmp"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=list(Tier))
def tier(request: pytest.FixtureRequest) -> str:
    return offered(request.param)


@pytest.fixture(params=[Tier.KERNEL, Tier.LANDLOCK])
def other_tier(request: pytest.FixtureRequest) -> str:
    """The best tier is what all other tests are about."""
    return offered(request.param)


def offered(tier: Tier) -> str:
    missing = lacking(host.probe(), tier)
    if missing:
        pytest.skip(f"{tier.value}: {missing[0].detail}")
    return tier.value


def check(top: Path, tier: str, status: Any) -> None:
    (sprint,) = status["sprints"]
    assert sprint["state"] == "completed", sprint
    attempts = {p["name"]: p["attempts"] for p in sprint["phases"]}
    assert {a["tier"] for one in attempts.values() for a in one} == {tier}
    assert [len(one) for one in attempts.values()] == [1, 1], attempts
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


def test_a_sprint_is_the_same_in_every_tier(tmp_path: Path, tier: str, rooms: Path) -> None:
    fleet = Fleet(tmp_path / "proj", toml(tier), FILES)
    fleet.env["NANOSUP_ROOMS"] = str(rooms)

    done = fleet.run("up")

    assert done.returncode == 0, done.stdout + done.stderr + fleet.run("logs", "inspect").stdout
    check(fleet.top, tier, fleet.json("status"))
    assert fleet.json("artifacts", "verify")["ok"]
    assert f"tier {tier}" in fleet.run("status").stdout
    (sprint,) = fleet.json("status")["sprints"]
    assert bool(sprint["not_enforced"]) == (tier == "landlock")


def test_what_a_failed_writer_left_is_carried_on_in_the_other_tiers(
    tmp_path: Path, other_tier: str, rooms: Path
) -> None:
    script = (
        'if [ "$NANOSUP_ATTEMPT" = 1 ]; then echo half > half; rm README; exit 3; fi; '
        "test ! -e README; test $(cat half) = half; echo whole > half"
    )
    text = f'[workspace]\nmount = "{other_tier}"\n\n' + agent("sh", script)
    fleet = Fleet(tmp_path / "proj", text + phase("build", access="write"), FILES)
    fleet.env["NANOSUP_ROOMS"] = str(rooms)

    done = fleet.run("up")

    assert done.returncode == 0, done.stdout + done.stderr
    assert fleet.states("build") == ["failed", "completed"]
    commit = fleet.attempts("build")[1]["commit"]
    changed = git(fleet.top, "diff", "--name-status", "HEAD", commit).split()
    assert changed == ["D", "README", "A", "half"]
    assert git(fleet.top, "show", f"{commit}:half") == "whole"


def test_a_killed_keeper_takes_all_of_its_lane_with_it_in_the_other_tiers(
    tmp_path: Path, other_tier: str, rooms: Path
) -> None:
    """Daemons that forked twice, in sessions of their own, included."""
    script = "(setsid sh -c 'echo $$; exec sleep 600' &); echo ready; exec sleep 600"
    text = f'[workspace]\nmount = "{other_tier}"\n\n' + agent("sh", script)
    fleet = Fleet(tmp_path / "proj", text + phase("look", restarts=0), FILES)
    fleet.env["NANOSUP_ROOMS"] = str(rooms)
    marker = str(fleet.top)
    try:
        with fleet.events() as wait:
            fleet.start("up")
            wait("attempt.running")
            keeper = fleet.attempts("look")[0]["pid"]
            log = fleet.start("logs", "-f", "look")
            assert log.stdout is not None
            said = {log.stdout.readline().strip() for _ in range(2)}  # the daemon's pid, and ready
            assert "ready" in said
            pids = [os.pidfd_open(p.pid) for p in psutil.Process(keeper).children(recursive=True)]
            os.kill(keeper, signal.SIGKILL)
            wait("sprint.ended")
        for pid in pids:
            ready, _, _ = select.select([pid], [], [], 20)
            assert ready, f"a process of the lane in {marker} is still alive"
            os.close(pid)
        assert len(pids) >= 3
        assert fleet.states("look") == ["lost"]
    finally:
        fleet.close()


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_sprint_is_the_same_for_an_ordinary_user(other_tier: str, rooms: Path) -> None:
    with ordinary_user() as user:
        fleet = Fleet(user.directory / "proj", toml(other_tier), FILES)
        subprocess.run(["chown", "-R", f"{user.uid}:{user.uid}", fleet.top], check=True)

        done = as_user(user, fleet.top, rooms, "up")

        assert done.returncode == 0, done.stdout + done.stderr
        status = json.loads(as_user(user, fleet.top, rooms, "status", "--json").stdout)
        subprocess.run(["chown", "-R", "0:0", fleet.top], check=True)  # for git's safe.directory
        check(fleet.top, other_tier, status)


NO_NAMESPACES = """
import os, sys
from sandbox import syscalls
from sandbox.jail import seccomp
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.seccomp_filter(seccomp.assemble(os.uname().machine))
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_where_namespaces_are_forbidden_the_landlock_tier_is_taken_and_said(rooms: Path) -> None:
    """The filter is the one that lanes have: no namespaces, no mounts, as in many containers."""
    offered(Tier.LANDLOCK)
    with ordinary_user() as user:
        text = toml("landlock").replace('mount = "landlock"\n', "")
        fleet = Fleet(user.directory / "proj", text, FILES)
        subprocess.run(["chown", "-R", f"{user.uid}:{user.uid}", fleet.top], check=True)
        command = [sys.executable, "-P", "-c", NO_NAMESPACES, NANOSUP]

        doctor = as_user(user, fleet.top, rooms, "doctor", "--json", command=command)
        done = as_user(user, fleet.top, rooms, "up", command=command)

        assert json.loads(doctor.stdout)["enforcement"] == "reduced"
        assert not json.loads(doctor.stdout)["features"]["tier_kernel"]["ok"]
        assert done.returncode == 0, done.stdout + done.stderr
        assert "landlock tier" in done.stderr
        status = json.loads(as_user(user, fleet.top, rooms, "status", "--json").stdout)
        subprocess.run(["chown", "-R", "0:0", fleet.top], check=True)
        check(fleet.top, "landlock", status)


def as_user(
    user: OrdinaryUser, top: Path, rooms: Path, *args: str, command: Sequence[str] = (NANOSUP,)
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        user.command("env", "-C", str(top), *command, *args),
        cwd="/",
        env={**user.environment(), "NANOSUP_ROOMS": str(rooms)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
