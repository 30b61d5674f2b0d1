"""Bad input and hosts that lack something: one line, an exit code, and nothing started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fleetbox import NANOSUP, TIMEOUT_S, Fleet, agent, phase
from tests.gitbox import git, make_repository

ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="mounts over /dev/fuse and makes a tmpfs")


def nanosup(
    cwd: Path, *args: str, prefix: Sequence[str] = (), env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, NANOSUP, *args],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def assert_one_line(
    done: subprocess.CompletedProcess[str], code: int, said: str, hint: str = ""
) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("nanosup: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert hint in done.stderr


def test_no_repository(tmp_path: Path) -> None:
    assert_one_line(nanosup(tmp_path, "up"), 21, "is not in a git repository", "git init")


def test_bare_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", ".")

    assert_one_line(nanosup(tmp_path, "up"), 21, "is bare", "clone it")


def test_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", ".")

    assert_one_line(nanosup(tmp_path, "up", "--agent", "codex"), 21, "has no commit", "commit")


@pytest.mark.parametrize(
    ("toml", "args", "code", "said", "hint"),
    [
        (None, [], 10, "no nanosup.toml", "nanosup init"),
        (None, ["--agent", "cladue"], 10, "nor a preset", "did you mean 'claude'?"),
        ('[agents.a]\npreset = "codx"\n', [], 10, "unknown preset 'codx'", "'codex'"),
        ('[agents.a]\ncommand = ["not-there-at-all"]\n', [], 10, "is not installed", "install it"),
        ('[agents.a]\ncommand = ["./tool"]\n', [], 10, "./tool is not there", "install it"),
        (agent("a", "true") + phase("p", prompt_file="no.md"), [], 10, "'no.md'", "looked for"),
        (agent("a", "true") + phase("p", outputs=["../x"]), [], 10, "'../x'", "plain"),
        (agent("a", "true") + phase("p", outputs=["a/x"]), [], 10, "'a/x'", "directly"),
        (agent("a", "true") + phase("p", depends_on=["p"]), [], 10, "a cycle: p → p", "take one"),
        (
            '[workspace]\nmount = "landlock"\n'
            + agent("a", "true")
            + phase("p", network=["x.org"]),
            [],
            18,
            "'p': network",
            "none",
        ),
        ("[[phase]\n", [], 10, "not TOML", ""),
    ],
)
def test_bad_configuration(
    tmp_path: Path, toml: str | None, args: list[str], code: int, said: str, hint: str
) -> None:
    top = make_repository(tmp_path / "repo")
    if toml is not None:
        (top / "nanosup.toml").write_text(toml)

    done = nanosup(top, "up", *args)

    assert_one_line(done, code, said, hint)
    assert not (top / ".git/nanosup").exists()


def test_error_is_a_document_with_json(tmp_path: Path) -> None:
    done = nanosup(make_repository(tmp_path / "repo"), "up", "--json")

    document = json.loads(done.stderr)
    assert set(document) == {"error", "message", "hint", "exit"}
    assert (document["error"], document["exit"]) == ("Config", 10)


def test_unknown_option_is_a_usage_error(tmp_path: Path) -> None:
    assert nanosup(tmp_path, "up", "--nope").returncode == 2
    assert nanosup(tmp_path, "nope").returncode == 2


def test_changes_that_are_not_committed_are_allowed_but_said(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "repo", agent("a", "cat readme") + phase("p"))
    (fleet.top / "readme").write_text("changed\n")

    done = fleet.run("up")

    assert done.returncode == 0
    assert "changes that are not committed" in done.stderr
    assert fleet.run("logs", "p").stdout == "hello\n"


def test_who_goes_on_is_not_told_that_a_sprint_starts_without_them(tmp_path: Path) -> None:
    fleet = Fleet(
        tmp_path / "repo", agent("a", "test $NANOSUP_ATTEMPT = 2 || sleep 60") + phase("p")
    )
    assert fleet.run("up", "--detach").returncode == 0
    with fleet.events() as wait:
        wait("attempt.running")
    fleet.run("down")
    (fleet.top / "readme").write_text("changed\n")

    done = fleet.run("up")

    assert done.returncode == 0
    assert "going on with sprint" in done.stderr
    assert "not committed" not in done.stderr


def test_working_tree_snapshot_takes_them_along(tmp_path: Path) -> None:
    fleet = Fleet(
        tmp_path / "repo",
        '[workspace]\nsnapshot = "worktree"\n' + agent("a", "cat readme new") + phase("p"),
    )
    (fleet.top / "readme").write_text("changed\n")
    (fleet.top / "new").write_text("untracked\n")
    before = (fleet.top / ".git/index").read_bytes()

    done = fleet.run("up")

    assert (done.returncode, done.stderr) == (0, "")
    assert fleet.run("logs", "p").stdout == "changed\nuntracked\n"
    assert (fleet.top / ".git/index").read_bytes() == before


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "repo", agent("a", "true") + phase("p"))


def in_own_mounts(script: str) -> list[str]:
    """A prefix that runs a command in a mount namespace prepared by `script`."""
    return ["unshare", "-m", "sh", "-ec", f'{script}; exec "$@"', "sh"]


@ROOT_ONLY
def test_host_without_fuse(fleet: Fleet) -> None:
    done = nanosup(
        fleet.top, "up", prefix=in_own_mounts("mount -t tmpfs none /dev; touch /dev/null")
    )

    assert_one_line(done, 18, "/dev/fuse")
    assert not fleet.board.exists()


def test_host_without_bubblewrap(fleet: Fleet, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "git"):
        (programs / name).symlink_to(str(shutil.which(name)))

    fleet.configure('[workspace]\nrequire = ["jail"]\n' + agent("a", "true") + phase("p"))

    done = nanosup(fleet.top, "up", env={"PATH": str(programs)})

    assert_one_line(done, 18, "jail", "better tier")
    fleet.configure('[workspace]\nmount = "kernel"\n' + agent("a", "true") + phase("p"))
    done = nanosup(fleet.top, "up", env={"PATH": str(programs)})
    assert_one_line(done, 18, "bubblewrap", "apt install bubblewrap")
    assert not fleet.board.exists()


@pytest.mark.parametrize("state", ["/proc/nope", "/sys/nope"])
def test_state_directory_that_cannot_be_written(fleet: Fleet, state: str) -> None:
    done = nanosup(fleet.top, "up", env={"NANOSUP_STATE": state})

    assert_one_line(done, 20, state)


@ROOT_ONLY
def test_full_disk(fleet: Fleet, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    script = f"mount -t tmpfs -o size=16k none {full}; cat /dev/zero > {full}/fill || true"

    done = nanosup(
        fleet.top,
        "up",
        prefix=in_own_mounts(f"({script}) 2>/dev/null"),
        env={"NANOSUP_STATE": str(full / "state")},
    )

    assert_one_line(done, 20, "no space left")
