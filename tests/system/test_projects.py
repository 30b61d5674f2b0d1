"""Other people's projects, built and tested in a write lane: the same as in a plain directory."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fleetbox import Fleet, agent, phase
from gitbox import git


def debian_source(name: str, directory: Path) -> Path:
    """Unpacks the source of a Debian package, without Debian's changes to it."""
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get")
    listed = subprocess.run(
        [
            *("apt-get", "indextargets", "--format"),
            *("deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"),
        ],
        capture_output=True,
        text=True,
    ).stdout
    directory.mkdir()
    (directory / "lists/partial").mkdir(parents=True)
    # The release itself: its sources are where its packages are.
    words = {tuple(line.split()) for line in listed.splitlines()}
    lines = [" ".join(each) for each in words if each[3:] == ("main",) and "-" not in each[2]]
    (directory / "sources.list").write_text("\n".join(sorted(lines)) + "\n")
    options = [
        *("-o", f"Dir::Etc::sourcelist={directory}/sources.list", "-o", "Dir::Etc::sourceparts=-"),
        *("-o", f"Dir::State::lists={directory}/lists", "-o", "APT::Sandbox::User="),
    ]
    for command in (["update"], ["source", "--download-only", name]):
        done = subprocess.run(["apt-get", *options, *command], cwd=directory, capture_output=True)
    (archive, *_) = [*directory.glob("*.orig.tar.*z*"), None]
    if done.returncode or archive is None:
        pytest.skip("no Debian sources to be had")
    return _unpacked(archive, directory)


def python_source(name: str, directory: Path) -> Path:
    """Unpacks the source distribution of a Python package."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    directory.mkdir()
    done = subprocess.run([*command, name], cwd=directory, capture_output=True)
    archives = list(directory.glob("*.tar.gz"))
    if done.returncode or not archives:
        pytest.skip("no source distributions to be had")
    return _unpacked(archives[0], directory)


def _unpacked(archive: Path, directory: Path) -> Path:
    target = directory / "unpacked"
    target.mkdir()
    subprocess.run(["tar", "xf", archive, "-C", target, "--no-same-owner"], check=True)
    (top,) = target.iterdir()
    return top


def repository(source: Path, path: Path) -> Fleet:
    """A repository that holds the project."""
    files: dict[str, str | bytes] = {"README.lane": "x\n"}
    fleet = Fleet(
        path,
        agent("none", "exit 1") + phase("build", access="write", agents=["none"]),
        files,
    )
    shutil.copytree(source, path, symlinks=True, dirs_exist_ok=True)
    git(path, "add", "-A", "-f")
    git(path, "commit", "-q", "-m", "the project")
    return fleet


def in_a_lane(fleet: Fleet, script: str, *, timeout_s: int = 900) -> str:
    """What the script prints in a write lane at the repository's own path."""
    nanosup = str(Path(sys.executable).with_name("nanosup"))
    done = subprocess.run(
        [nanosup, "run", "build", "--", "/bin/sh", "-euc", script],
        cwd=fleet.top,
        env=fleet.env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def in_the_directory(fleet: Fleet, script: str) -> str:
    """The same, in the working tree itself."""
    command = ["/bin/sh", "-euc", script]
    done = subprocess.run(command, cwd=fleet.top, env=fleet.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def made(root: Path) -> dict[str, tuple[int, str]]:
    """Mode and digest of everything but logs."""
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_file() and not name.startswith(".git/") and not name.endswith(".log"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = (stat.S_IMODE(path.lstat().st_mode), digest)
    return found


@pytest.mark.long
def test_a_c_project_builds_and_tests_the_same_in_a_lane(tmp_path: Path) -> None:
    if not shutil.which("make") or not shutil.which("gcc"):
        pytest.skip("no make or gcc")
    fleet = repository(debian_source("zlib", tmp_path / "source"), tmp_path / "zlib")
    script = "umask 022; ./configure; make -j2 all; make -s test; make -s example; ./example"
    try:
        said = in_a_lane(fleet, script)
        assert said.count("*** zlib test OK ***") == 1
        # The whole layer, objects and libraries: the working tree with it is what make leaves.
        (layer,) = (fleet.board / "layers").iterdir()
        seen = tmp_path / "seen"
        shutil.copytree(fleet.top, seen, ignore=shutil.ignore_patterns(".git"), symlinks=True)
        shutil.copytree(layer, seen, dirs_exist_ok=True, symlinks=True)
        plain = in_the_directory(fleet, script)
        # How deeply make nests is said in other words where it ran before.
        assert sorted(said.splitlines()) == sorted(plain.splitlines())
        ours, theirs = made(seen), made(fleet.top)
        assert [name for name in ours | theirs if ours.get(name) != theirs.get(name)] == []
        assert any(name.endswith(".so.1.2.13") or ".so." in name for name in ours)
    finally:
        fleet.close()


@pytest.mark.long
def test_a_python_projects_own_tests_pass_in_a_lane(tmp_path: Path) -> None:
    # 116 tests of a package about files and directories, made in the lane's own tree.
    source = python_source("path", tmp_path / "source")
    deps = source / "deps"
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(deps)]
    subprocess.run([*command, "more-itertools"], check=True, capture_output=True)
    fleet = repository(source, tmp_path / "path")
    script = (
        "mkdir made; TMPDIR=$PWD/made PYTHONPATH=deps:. "
        f"{sys.executable} -B -m pytest -q -c /dev/null --rootdir . -p no:cacheprovider"
        " --basetemp=$PWD/made/base tests; rm -rf made"
    )
    try:
        lane, plain = in_a_lane(fleet, script), in_the_directory(fleet, script)
        summary = re.compile(r"^(\d+ passed, \d+ skipped)", re.MULTILINE)
        (found,) = summary.findall(lane)
        assert [found] == summary.findall(plain)
        assert int(found.split()[0]) > 100
    finally:
        fleet.close()
