"""Other supervisors, each told to run the same commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sample import CACHE, say

_PYPI = ("supervisor>=4.2", "circus>=0.18", "honcho>=2.0")
_MARK = "NANOSUP_BENCH"


@dataclass(frozen=True, slots=True)
class Task:
    """A command to be kept running.

    Attributes:
        log: takes what it prints, through whatever the supervisor puts in between.
    """

    name: str
    argv: tuple[str, ...]
    log: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A supervisor.

    Attributes:
        arrange: writes its configuration into a directory, and returns its command line.
        restarts: it replaces a child that was killed.
    """

    name: str
    program: str
    arrange: Callable[[Path, Sequence[Task]], list[str]]
    restarts: bool = True


def peers() -> dict[str, tuple[Peer, str]]:
    """name → (peer, why it cannot be measured here; empty if it can). Installs them."""
    bin_path = _install()
    found = {}
    for peer in _PEERS:
        where = shutil.which(peer.program, path=f"{bin_path}:{os.environ['PATH']}")
        found[peer.name] = (peer, "" if where else f"no {peer.program}: not installed")
    return found


@contextmanager
def running(
    peer: Peer, directory: Path, tasks: Sequence[Task]
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs it; leaving kills it and everything that it has started."""
    directory.mkdir(parents=True)
    argv = peer.arrange(directory, tasks)
    path = f"{CACHE / 'peers/bin'}:{os.environ['PATH']}"
    with marked() as env, (directory / "own.log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=directory, env={**env, "PATH": path}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        process.returncode = -9  # `marked` waits for it
        yield


@contextmanager
def marked() -> Iterator[dict[str, str]]:
    """An environment; everything that was started with it is killed in the end."""
    mark = f"{_MARK}={uuid.uuid4().hex}"
    key, _, value = mark.partition("=")
    try:
        yield {**os.environ, key: value}
    finally:
        while pids := marked_pids(mark):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                try:
                    os.waitpid(pid, 0)
                except ChildProcessError:
                    pass


def marked_pids(mark: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if mark.encode() in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                found.append(int(entry))
        except OSError:
            continue
    return found


def _install() -> Path:
    """Those of PyPI into an environment of their own; those of Debian where we may."""
    directory = CACHE / "peers"
    done = directory / "installed"
    if not done.exists():
        say("installing supervisord, circus and honcho from PyPI")
        venv.create(directory, with_pip=True)
        pip = [str(directory / "bin/pip"), "install", "--quiet", *_PYPI]
        if subprocess.run(pip, capture_output=True).returncode == 0:
            done.touch()
    missing = [p for p in ("s6", "runit") if not shutil.which(_DEBIAN[p])]
    if missing and os.getuid() == 0 and shutil.which("apt-get"):
        say(f"installing {', '.join(missing)} from Debian")
        subprocess.run(
            ["apt-get", "install", "-y", "--no-install-recommends", *missing],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, capture_output=True,
        )  # fmt: skip
    return directory / "bin"


def _supervisord(directory: Path, tasks: Sequence[Task]) -> list[str]:
    lines = ["[supervisord]", "nodaemon=true", "logfile=/dev/null", "logfile_maxbytes=0",
             f"pidfile={directory}/pid", "minfds=4096"]  # fmt: skip
    for task in tasks:
        lines += [
            f"[program:{task.name}]", f"command={_quoted(task)}", "startsecs=0",
            "startretries=1000000", "autorestart=true", f"stdout_logfile={task.log}",
            "stdout_logfile_maxbytes=0",
        ]  # fmt: skip
    (directory / "conf").write_text("\n".join(lines).replace("%", "%%"))
    return ["supervisord", "-c", str(directory / "conf")]


def _circus(directory: Path, tasks: Sequence[Task]) -> list[str]:
    lines = ["[circus]", f"endpoint=ipc://{directory}/e", f"pubsub_endpoint=ipc://{directory}/p",
             "check_delay=0.2", "warmup_delay=0"]  # fmt: skip
    for task in tasks:
        lines += [
            f"[watcher:{task.name}]", f"cmd={_quoted(task)}", "respawn=True", "max_retry=-1",
            "copy_env=True", "stdout_stream.class=FileStream",
            f"stdout_stream.filename={task.log}",
        ]  # fmt: skip
    (directory / "circus.ini").write_text("\n".join(lines))
    return ["circusd", str(directory / "circus.ini")]


def _honcho(directory: Path, tasks: Sequence[Task]) -> list[str]:
    (directory / "Procfile").write_text("".join(f"{t.name}: {_quoted(t)}\n" for t in tasks))
    # Its one output is the log of all.
    return ["sh", "-c", f"exec honcho start -f Procfile > {tasks[0].log}"]


def _s6(directory: Path, tasks: Sequence[Task]) -> list[str]:
    _services(directory, tasks, "s6-log n1 s268435455 {}")
    return ["s6-svscan", "-c", "1000", str(directory / "services")]


def _runit(directory: Path, tasks: Sequence[Task]) -> list[str]:
    _services(directory, tasks, "svlogd {}")
    return ["runsvdir", str(directory / "services")]


def _services(directory: Path, tasks: Sequence[Task], logger: str) -> None:
    for task in tasks:
        service = directory / "services" / task.name
        (service / "log").mkdir(parents=True)
        logs = Path(f"{task.log}.d")
        logs.mkdir(exist_ok=True)
        if logger.startswith("svlogd"):
            (logs / "config").write_text("s0\nn0\n")
        for path, command in (
            (service / "run", f"exec {_quoted(task)}"),
            (service / "log/run", f"exec {logger.format(logs)}"),
        ):
            path.write_text(f"#!/bin/sh\n{command}\n")
            path.chmod(0o755)


def _quoted(task: Task) -> str:
    return " ".join(f"'{word}'" if set(word) & set(" $>&;|") else word for word in task.argv)


_DEBIAN = {"s6": "s6-svscan", "runit": "runsvdir"}
_PEERS = (
    Peer("supervisord", "supervisord", _supervisord),
    Peer("circus", "circusd", _circus),
    Peer("honcho", "honcho", _honcho, restarts=False),
    Peer("s6", "s6-svscan", _s6),
    Peer("runit", "runsvdir", _runit),
)
