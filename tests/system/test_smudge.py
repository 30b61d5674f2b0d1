"""Files are shown as `git checkout` would make them, with git itself as the oracle."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest
from mounting import Stage, enter_private_namespace, git, served

from sandbox.repository import index
from sandbox.repository.repository import find
from sandbox.repository.seal import seal
from sandbox.union.spec import MountSpec

EPOCH_NS = 1_600_000_000_000_000_000

TEXTS = {
    "lf": b"one\ntwo\n",
    "crlf": b"one\r\ntwo\r\n",
    "mixed": b"one\ntwo\r\nthree",
    "lonecr": b"one\rtwo\nthree\n",
    "binary": b"one\n\0two\n",
    "ident": b"$Id$ a\n$Id: 1234 $ b\n$Id: foreign thing $ c\n$Id: open\n$\n$Id:$ $Idx$\n",
    "utf8": "gr\u00fc\u00dfe \u2713\n".encode(),
    "latin": "gr\u00fc\u00dfe\n".encode("latin-1"),
    "empty": b"",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
}
ATTRIBUTES = (
    "text",
    "-text",
    "text=auto",
    "text=input",
    "eol=crlf",
    "eol=lf",
    "text eol=crlf",
    "-text eol=crlf",
    "text=auto eol=crlf",
    "text=input eol=crlf",
    "crlf",
    "crlf=input eol=crlf",
    "-crlf eol=crlf",
    "ident",
    "ident eol=crlf",
    "working-tree-encoding=UTF-16",
    "working-tree-encoding=UTF-16LE-BOM eol=crlf",
    "working-tree-encoding=latin1",
    "working-tree-encoding=UTF-8",
    "working-tree-encoding=no-such",
    "filter=lfs diff=lfs merge=lfs -text",
    "binary eol=crlf",
    "windows",
    "!eol",
)


def repository(path: Path) -> str:
    """A commit with every text under every attribute, nested so that attributes add up."""
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    blobs = {}
    for name, data in TEXTS.items():
        found = subprocess.run(
            ["git", "-C", path, "hash-object", "-w", "--stdin", "--no-filters"],
            input=data,
            capture_output=True,
            check=True,
        )
        blobs[name] = found.stdout.decode().strip()
    lines = [f"d{number}/** {text}" for number, text in enumerate(ATTRIBUTES)]
    top = "\n".join(["[attr]windows text eol=crlf", "*.win windows", *lines]) + "\n"
    files = {".gitattributes": top.encode()}
    entries = []
    for number, name in itertools.product(range(len(ATTRIBUTES)), TEXTS):
        entries.append((f"d{number}/{name}", blobs[name]))
        entries.append((f"d{number}/inner/{name}.txt", blobs[name]))
    files |= {
        "d0/inner/.gitattributes": b"*.txt eol=crlf\n",
        "d4/inner/.gitattributes": b"*.txt -text\n",
        "d13/inner/.gitattributes": b"*.txt -ident\n",
        "plain/.gitattributes": b"* text\n",
    }
    entries += [("a.win", blobs["lf"]), ("plain/x", blobs["lf"]), ("other/x.win", blobs["lf"])]
    for name, data in files.items():
        found = subprocess.run(
            ["git", "-C", path, "hash-object", "-w", "--stdin"],
            input=data,
            capture_output=True,
            check=True,
        )
        entries.append((name, found.stdout.decode().strip()))
    text = "".join(f"100644 {oid}\t{name}\n" for name, oid in entries)
    link = blobs["lf"]
    text += f"120000 {link}\td4/link\n"
    command = ["git", "-C", path, "update-index", "--index-info"]
    subprocess.run(command, input=text.encode(), check=True)
    git(path, "commit", "-q", "-m", "all")
    git(path, "reset", "-q", "--hard")
    return git(path, "rev-parse", "HEAD")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Stage, str]:
    enter_private_namespace()
    commit = repository(tmp_path / "repository")
    spec = MountSpec(
        git_dir=str(tmp_path / "repository/.git"),
        tree=git(tmp_path / "repository", "rev-parse", "HEAD^{tree}"),
        mountpoint=str(tmp_path / "mnt"),
        epoch_ns=EPOCH_NS,
        uid=os.getuid(),
        gid=os.getgid(),
        grafts=(".git",),
    )
    return Stage(tmp_path, spec, tmp_path / "repository"), commit


def contents(root: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for directory, names, files in os.walk(root):
        if ".git" in names:
            names.remove(".git")
        for name in files:
            path = Path(directory, name)
            size = path.lstat().st_size
            data = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
            found[str(path.relative_to(root))] = (size, data)
    return found


def test_a_lane_shows_what_a_checkout_would_make(made: tuple[Stage, str]) -> None:
    stage, _commit = made
    expected = contents(stage.checkout)
    assert len({data for _, data in expected.values()}) > 30
    with served(stage.read_only()) as lane:
        assert contents(lane.mountpoint) == expected


def test_copy_up_keeps_what_was_shown(made: tuple[Stage, str]) -> None:
    stage, _commit = made
    expected = contents(stage.checkout)
    with served(stage.writable()) as lane:
        for name in expected:
            path = lane.mountpoint / name
            if not path.is_symlink():
                path.chmod(0o600)
        assert contents(lane.mountpoint) == expected


def test_the_index_of_a_lane_has_the_sizes_that_the_mount_shows(made: tuple[Stage, str]) -> None:
    stage, commit = made
    record = stage.path / "index"
    index.record(
        record,
        find(stage.checkout),
        commit=commit,
        epoch_ns=EPOCH_NS,
        uid=os.getuid(),
        gid=os.getgid(),
    )
    with served(stage.read_only()) as lane:
        environment = {
            **os.environ,
            "GIT_INDEX_FILE": str(record),
            "GIT_DIR": str(stage.checkout / ".git"),
            "GIT_WORK_TREE": str(lane.mountpoint),
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        listed = subprocess.run(
            ["git", "ls-files", "--debug"],
            cwd=lane.mountpoint,
            env=environment,
            capture_output=True,
            check=True,
        ).stdout
        sizes = [int(word.split()[1]) for word in listed.decode().split("\n") if "size:" in word]
        names = [line for line in listed.decode().split("\n") if line and not line.startswith(" ")]
        shown = {name: size for name, (size, _) in contents(lane.mountpoint).items()}
        assert dict(zip(names, sizes, strict=True)) == shown
        said = subprocess.run(
            # As in a lane's own configuration.
            ["git", "-c", "core.checkStat=minimal", "-c", "core.trustctime=false", "diff-files"],
            cwd=lane.mountpoint,
            env=environment,
            capture_output=True,
            check=True,
        )
        assert said.stdout == b""


def test_a_seal_of_files_touched_but_unchanged_is_what_git_add_makes(
    made: tuple[Stage, str],
) -> None:
    stage, commit = made
    spec = stage.writable()
    assert spec.upper is not None
    with served(spec) as lane:
        for name in contents(lane.mountpoint):
            if not (lane.mountpoint / name).is_symlink():
                os.utime(lane.mountpoint / name)
    found = seal(
        find(stage.checkout),
        parent=commit,
        layers=[Path(spec.upper)],
        message="touched",
        author="Agent <agent@example.org>",
        when_s=1_700_000_000,
    )
    for path in stage.checkout.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path)
    # What was not in its encoding stays as it was for us, and is an error for git.
    wrong = [f":!d{n}/{path}" for n in (15, 16) for path in ("latin", "inner/latin.txt")]
    git(stage.checkout, "add", "-A", "--", ".", ":!d19", *wrong)
    tree = git(stage.checkout, "write-tree")
    assert git(stage.checkout, "diff", "--raw", tree, found.tree, "--", ".", *wrong) == ""


def test_a_tree_is_shown_as_far_as_git_would_check_it_out(tmp_path: Path) -> None:
    """Crafted names are left out; submodules are empty directories; case tells files apart."""
    enter_private_namespace()
    path = tmp_path / "repository"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")

    def stored(kind: str, data: bytes) -> bytes:
        command = ["git", "-C", path, "hash-object", "-w", "-t", kind, "--literally", "--stdin"]
        done = subprocess.run(command, input=data, capture_output=True, check=True)
        return bytes.fromhex(done.stdout.decode())

    blob = stored("blob", b"content")
    below = stored("tree", b"100644 config\0" + blob)
    entries = (
        *((b"40000", name, below) for name in (b".git", b".GIT", b"git~1", b"..", b"a/b")),
        (b"40000", ".g\u200cit".encode(), below),
        (b"120000", b".gitmodules", blob),
        (b"160000", b"module", bytes(range(20))),
        *((b"100644", name, blob) for name in (b"name", b"Name", b"NAME", b".gitignore")),
        (b"40000", b"git", below),
    )
    tree = stored("tree", b"".join(b"%s %s\0%s" % entry for entry in entries))
    spec = MountSpec(
        git_dir=str(path / ".git"),
        tree=tree.hex(),
        mountpoint=str(tmp_path / "mnt"),
        epoch_ns=EPOCH_NS,
        uid=os.getuid(),
        gid=os.getgid(),
    )
    (tmp_path / "mnt").mkdir()
    with served(spec) as lane:
        names = set(os.listdir(lane.mountpoint))
        assert names == {"module", "name", "Name", "NAME", ".gitignore", "git"}
        assert os.listdir(lane.mountpoint / "module") == []
        assert not (lane.mountpoint / ".git").exists()
