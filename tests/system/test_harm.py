"""Nothing that was written in a lane acts on the host later: sprints, used as a person would."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.fleetbox import Fleet, agent, phase
from tests.gitbox import fingerprint, git


def fleet_of(path: Path, script: str, **keys: object) -> Fleet:
    return Fleet(path, agent("a", script) + phase("build", access="write", restarts=0, **keys))


def built(fleet: Fleet) -> str:
    done = fleet.run("up")
    assert done.returncode == 0, done.stdout + done.stderr + fleet.run("logs", "build").stdout
    return str(fleet.attempts("build")[-1]["commit"])


PLANT = r"""
mark='touch %s'
for hook in pre-commit post-checkout post-index-change reference-transaction post-merge; do
    printf '#!/bin/sh\n%%s\n' "$mark" > .git/hooks/$hook; chmod +x .git/hooks/$hook
done
printf '#!/bin/sh\n%%s\ncat\n' "$mark" > evil.sh; chmod +x evil.sh
git config core.fsmonitor "$PWD/evil.sh"; git config core.hooksPath "$PWD"
git config diff.external "$PWD/evil.sh"; git config filter.evil.clean "$PWD/evil.sh"
git config filter.evil.smudge "$PWD/evil.sh"; git config core.pager "$PWD/evil.sh"
git config include.path "$PWD/more.config"; printf '[alias]\nst = !%%s\n' "$mark" > more.config
printf '* filter=evil diff=evil\n' > .gitattributes
echo /etc >> .git/objects/info/alternates
echo changed >> readme
"""


def test_what_git_would_run_is_never_run_by_the_host(tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    fleet = fleet_of(tmp_path / "repo", PLANT % mark)
    before = fingerprint(fleet.top / ".git/hooks"), (fleet.top / ".git/config").read_bytes()

    commit = built(fleet)
    for arguments in (
        ("status",),
        ("diff", commit),
        ("log", "-p", "--all"),
        ("worktree", "add", "-q", str(tmp_path / "copy"), commit),
        ("merge", "-q", commit),
        ("fsck", "--strict"),
        ("gc", "-q"),
    ):
        git(fleet.top, *arguments)

    assert not mark.exists()
    assert (fingerprint(fleet.top / ".git/hooks"), (fleet.top / ".git/config").read_bytes()) == (
        before
    )
    assert "evil.sh" in git(fleet.top, "ls-tree", "--name-only", commit)


def test_files_that_tools_of_the_host_load_are_pointed_out(tmp_path: Path) -> None:
    names = (
        ".claude/settings.json",
        ".mcp.json",
        ".envrc",
        ".vscode/tasks.json",
        ".husky/pre-push",
    )
    script = "\n".join(f"mkdir -p $(dirname {name}); echo x > {name}" for name in names)
    fleet = fleet_of(tmp_path / "repo", script + "\necho fine > fine.txt")
    built(fleet)

    shown = fleet.run("diff")
    listed = {file["path"]: file["flag"] for file in fleet.json("diff")["files"]}

    for name in names:
        assert name in shown.stderr and listed[name]
    assert listed["fine.txt"] is None and "fine.txt" not in shown.stderr


@pytest.mark.parametrize("commits", [False, True])
def test_a_gitmodules_that_would_run_something_is_not_sealed(tmp_path: Path, commits: bool) -> None:
    script = r"""
    printf '[submodule "../../hooks"]\n\tpath = x\n\turl = -u./evil\n' > .gitmodules
    echo work > work
    """ + ("git add -A; git commit -qm mine" if commits else "")
    fleet = fleet_of(tmp_path / "repo", script)

    commit = built(fleet)

    names = git(fleet.top, "ls-tree", "-r", "--name-only", commit).split()
    assert "work" in names and ".gitmodules" not in names
    assert ".gitmodules" in fleet.attempts("build")[-1]["reason"]
    git(fleet.top, "fsck", "--strict")


def test_links_in_a_lane_lead_nowhere_on_the_host(tmp_path: Path) -> None:
    """Neither as files of the tree, nor as directories that later work goes through."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("the key itself\n")
    script = f"""
    case $NANOSUP_PHASE in
    first) ln -s {secret}/key key; ln -s {secret} dir; ln -s / root
        ln -s {secret}/key .gitignore; ln -s {secret}/key .gitattributes ;;
    second) rm dir; mkdir dir; echo mine > dir/key; echo more > plain ;;
    esac
    """
    fleet = Fleet(
        tmp_path / "repo",
        agent("a", script)
        + phase("first", access="write")
        + phase("second", access="write", depends_on=["first"]),
    )

    done = fleet.run("up")

    assert done.returncode == 0, done.stdout
    commit = fleet.attempts("second")[-1]["commit"]
    modes = {
        line.split("\t")[1]: line.split()[0]
        for line in git(fleet.top, "ls-tree", "-r", commit).splitlines()
    }
    assert modes["key"] == modes["root"] == modes[".gitignore"] == "120000"
    assert modes["dir/key"] == modes["plain"] == "100644"
    assert "the key itself" not in git(fleet.top, "log", "-p", "--all")
    assert (secret / "key").read_text() == "the key itself\n"


def test_outputs_that_are_swapped_until_the_last_moment_are_taken_whole_or_refused(
    tmp_path: Path,
) -> None:
    """A process that is left behind is dead before anything is collected."""
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    script = f"""
    cd "$NANOSUP_OUTPUTS"; echo mine > out.txt
    (setsid sh -c 'while :; do ln -sf {secret} new; mv new out.txt; echo mine > new; mv new out.txt
    done' >/dev/null 2>&1 &)
    for i in 1 2 3 4 5 6 7 8 9; do cat out.txt >/dev/null 2>&1 || true; done
    """
    fleet = fleet_of(tmp_path / "repo", script, outputs=["out.txt"])

    fleet.run("up")

    (attempt,) = fleet.attempts("build")
    if attempt["state"] == "completed":
        out = tmp_path / "out"
        assert fleet.run("artifacts", "export", str(out)).returncode == 0
        assert {path.read_text() for path in out.rglob("*") if path.is_file()} <= {"mine\n", ""}
    else:
        assert "out.txt" in attempt["reason"] or "new" in attempt["reason"]
    assert secret.read_text() == "secret\n"


def test_a_tree_that_is_changed_until_the_last_moment_is_sealed_as_one_state(
    tmp_path: Path,
) -> None:
    """A directory and a link to the host take turns at one name while files are copied up."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "inside").write_text("host\n")
    script = f"""
    (setsid sh -c 'while :; do mv dir real; ln -s {outside} dir; rm dir; mv real dir
    done' >/dev/null 2>&1 &)
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        echo mine >> dir/inside 2>/dev/null || true
    done
    """
    fleet = Fleet(
        tmp_path / "repo",
        agent("a", script) + phase("build", access="write"),
        {"dir/inside": "inside\n", "readme": "x\n"},
    )

    commit = built(fleet)

    assert (outside / "inside").read_text() == "host\n"
    assert sorted(os.listdir(outside)) == ["inside"]
    names = git(fleet.top, "ls-tree", "-r", "--name-only", commit).split()
    assert set(names) <= {"dir", "dir/inside", "real/inside", "readme", "nanosup.toml"}
    git(fleet.top, "fsck", "--strict")


def test_escape_sequences_of_an_agent_reach_no_terminal(tmp_path: Path) -> None:
    script = r"""
    printf '\033]0;title\007\033[2Jplain\033[31mred\n\033]52;c;ZXZpbA==\007\n' | tee /dev/stderr
    printf '\302\233 31mc1\r\b\b\n'
    printf x > "$(printf 'na\033[2Jme')"
    exit 3
    """
    fleet = fleet_of(tmp_path / "repo", script)

    said = [fleet.run("up").stdout]
    said += [fleet.run(*args).stdout for args in (("logs", "build"), ("status",), ("events",))]

    for text in said:
        assert not {"\x1b", "\x07", "\x08", "\x9b"} & set(text), repr(text)
    assert "plain" in said[1]


def test_exporting_goes_through_no_link_that_an_agent_has_planted(tmp_path: Path) -> None:
    """Where artifacts are exported to, an agent may have worked before."""
    fleet = fleet_of(tmp_path / "repo", 'echo x > "$NANOSUP_OUTPUTS/authorized_keys"')
    built(fleet)
    victim = tmp_path / "victim"
    victim.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "build").symlink_to(victim)

    done = fleet.run("artifacts", "export", str(out))

    assert done.returncode == 16
    assert list(victim.iterdir()) == []


def test_a_lanes_git_directory_replaced_by_a_pointer_to_the_hosts_is_not_followed(
    tmp_path: Path,
) -> None:
    script = """
    echo work > work
    rm -rf .git/refs .git/objects 2>/dev/null || true
    ln -s %s/.git/objects .git/objects; ln -s %s/.git/refs .git/refs
    echo %s/.git > .git/commondir; echo 'ref: refs/heads/main' > .git/HEAD
    """ % ((tmp_path / "repo",) * 3)
    fleet = fleet_of(tmp_path / "repo", script)
    before = git(fleet.top, "for-each-ref", "refs/heads")

    commit = built(fleet)

    assert git(fleet.top, "show", f"{commit}:work") == "work"
    assert git(fleet.top, "for-each-ref", "refs/heads") == before
    subprocess.run(["git", "fsck", "--strict"], cwd=fleet.top, check=True, capture_output=True)
    assert json.loads(fleet.run("artifacts", "verify", "--json").stdout)["ok"]
