"""Mounts by hand: `python -m sandbox mount --git-dir .git --tree HEAD^{tree} MOUNTPOINT`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

from sandbox.union.spec import MountSpec


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox")
    commands = parser.add_subparsers(dest="command", required=True)
    mount = commands.add_parser("mount", help="mount an overlay and serve it in the foreground")
    mount.add_argument("mountpoint")
    mount.add_argument("--git-dir", default="", help="repository whose object store has the tree")
    mount.add_argument("--tree", default="", help="commit or tree, as git names them")
    mount.add_argument("--layer", action="append", default=[], help="sealed layer; bottom first")
    mount.add_argument("--upper", help="directory that takes changes; without it, read-only")
    mount.add_argument("--work", help="scratch directory beside it")
    mount.add_argument("--graft", action="append", default=[], help="path shown as a directory")
    mount.add_argument("--uid", type=int, default=os.getuid())
    mount.add_argument("--gid", type=int, default=os.getgid())
    mount.add_argument("--epoch", type=int, default=None, help="seconds; default now")
    mount.add_argument("--allow-other", action="store_true")
    return parser.parse_args()


def _resolve(git_dir: str, tree: str) -> tuple[str, str]:
    """The common directory and the hex id of the tree."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", git_dir, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    common = git("rev-parse", "--path-format=absolute", "--git-common-dir")
    return common, git("rev-parse", "--verify", f"{tree}^{{tree}}")


def main() -> int:
    """Mounts, prints `ready`, and serves until SIGTERM or Ctrl-C."""
    given = _arguments()
    git_dir, tree = given.git_dir, given.tree
    if git_dir:
        try:
            git_dir, tree = _resolve(git_dir, tree or "HEAD")
        except subprocess.CalledProcessError as error:
            print(error.stderr.strip(), file=sys.stderr)
            return 21
    spec = MountSpec(
        git_dir=git_dir,
        tree=tree,
        layers=tuple(os.path.abspath(path) for path in given.layer),
        upper=os.path.abspath(given.upper) if given.upper else None,
        work=os.path.abspath(given.work) if given.work else None,
        mountpoint=os.path.abspath(given.mountpoint),
        epoch_ns=(given.epoch if given.epoch is not None else int(time.time())) * 1_000_000_000,
        uid=given.uid,
        gid=given.gid,
        allow_other=given.allow_other,
        grafts=tuple(given.graft),
    )
    ready, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        from sandbox.mount.server import serve

        os.close(ready)
        serve(spec, ready_write)
    os.close(ready_write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    answer = os.read(ready, 4096)
    if answer == b"\1":
        print("ready", flush=True)
    else:
        print(answer.decode(errors="replace") or "the server died", file=sys.stderr)
    _pid, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
