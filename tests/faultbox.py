"""Faults: stand-in agents, something that goes wrong, and what must hold whatever it was.

A scenario is a scratch repository, agents scripted in Python, and `nanosup up` as a real process.
Agents keep a ledger of what they printed and what they wrote through, each entry made *after* the
act; so when any of them is killed, the ledger says what must not have been lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.board.board import Board
from supervisor.board.observe import observe
from supervisor.views.views import status_document
from tests.fleetbox import TIMEOUT_S, Fleet, phase

_PATIENCE_S = 30.0
_DOOM = str(Path(__file__).resolve().parent / "faults/doom")

PRELUDE = '''
import hashlib, os, signal, subprocess, sys, time
n = int(os.environ["NANOSUP_ATTEMPT"])
phase = os.environ["NANOSUP_PHASE"]
outputs = os.environ["NANOSUP_OUTPUTS"]
_ledger = os.open(outputs + "/ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
_said, _total = hashlib.sha256(), 0

def note(*words):
    """An entry of the ledger: when, by a clock that all attempts share, and what."""
    line = " ".join(map(str, (time.clock_gettime_ns(time.CLOCK_BOOTTIME), *words)))
    os.write(_ledger, line.encode() + b"\\n")

def say(data):
    """Prints bytes or a line, and then says so in the ledger."""
    global _total
    data = data if isinstance(data, bytes) else data.encode() + b"\\n"
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
    _said.update(data)
    _total += len(data)
    note("said", _total, _said.hexdigest())

def save(name, data):
    """Writes a file of the repository through, and then says so in the ledger."""
    data = data if isinstance(data, bytes) else data.encode()
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    note("saved", name, hashlib.sha256(data).hexdigest())

def wait():
    """Waits for the test to call `release`."""
    os.mkfifo(outputs + "/gate")
    note("waits")
    os.close(os.open(outputs + "/gate", os.O_RDONLY))
    os.unlink(outputs + "/gate")
    note("goes on")

note("starts")
'''


def stand_in(name: str, script: str, **keys: Any) -> str:
    """An agent that runs a Python script after PRELUDE: `n` is its attempt; say, save, wait, note.

    Args:
        keys: more keys of its table.
    """
    command = ["python3", "-S", "-E", "-c", PRELUDE + script]
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join([f"[agents.{name}]", f"command = {json.dumps(command)}", *lines, "", ""])


@dataclass(frozen=True)
class Entry:
    """A line of a ledger. `at_ns`: CLOCK_BOOTTIME."""

    at_ns: int
    words: tuple[str, ...]


class Scenario(Fleet):
    """A fleet that things go wrong with.

    Every process that it starts, directly or not, is found again by a variable of its environment,
    by its sprint, or by what it has mounted.
    """

    def __init__(self, path: Path, toml: str, files: dict[str, str | bytes] | None = None) -> None:
        super().__init__(path, toml, files)
        self._mark = f"NANOSUP_TEST_MARK={uuid.uuid4().hex}"
        key, _, value = self._mark.partition("=")
        self.env[key] = value

    def close(self) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        super().close()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    @contextmanager
    def doomed(self, role: str, call: int, log: Path | None = None) -> Iterator[None]:
        """One process started meanwhile is killed as it makes its n-th call that has an effect.

        See faults/doom/sitecustomize.py. Call 0 kills nobody; `log` takes the names of the calls.

        Args:
            role: "up", "template" or "keeper".
        """
        kept = dict(self.env)
        self.env["PYTHONPATH"] = _DOOM
        self.env["NANOSUP_TEST_DOOM"] = f"{role}:{call}:{self.top}.doomed:{log or ''}"
        try:
            yield
        finally:
            self.env.clear()
            self.env.update(kept)

    @contextmanager
    def shifted(self, seconds: int) -> Iterator[None]:
        """What is started meanwhile has a wall clock that is ahead by `seconds`."""
        kept = dict(self.env)
        self.env["PYTHONPATH"] = _DOOM
        self.env["NANOSUP_TEST_WALL_S"] = str(seconds)
        try:
            yield
        finally:
            self.env.clear()
            self.env.update(kept)

    # What is there

    def sprints(self) -> list[Any]:
        """As `status --json` shows them; read here, since a scenario looks often."""
        board = Board(self.board)
        seen = [observe(board.sprint(known)) for known in board.sprints()]
        return list(status_document(seen, {})["sprints"])

    def sprint(self) -> Any:
        return self.sprints()[-1]

    def processes(self) -> list[int]:
        """The living processes of this scenario, the test's own aside."""
        ours = os.stat("/proc/self/ns/mnt").st_ino
        pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return [pid for pid in pids if pid != os.getpid() and self._is_ours(pid, ours)]

    def jailed(self) -> dict[int, tuple[str, int]]:
        """pid → (phase, attempt) of every process that runs as an agent."""
        ids = {sprint["id"] for sprint in self.sprints()}
        found = {}
        for pid in self.processes():
            env = dict(v.partition("=")[::2] for v in _environment(pid))
            if env.get("NANOSUP_SPRINT") in ids:
                found[pid] = (env["NANOSUP_PHASE"], int(env["NANOSUP_ATTEMPT"]))
        return found

    def ledger(self, phase: str, attempt: int = 1) -> list[Entry]:
        if not self.sprints():
            return []
        try:
            lines = (self.lane(phase, attempt) / "outputs/ledger").read_text().splitlines()
        except (FileNotFoundError, IndexError):  # no ledger, or no sprint yet
            return []
        return [Entry(int(at), tuple(words)) for at, *words in map(str.split, lines)]

    def log(self, phase: str, attempt: int = 1, name: str = "stdout.log") -> Path:
        return self.lane(phase, attempt).parent / name

    # What the test does

    def await_entry(self, word: str, phase: str, attempt: int = 1) -> None:
        """Returns once the agent has made an entry of this kind."""
        await_true(
            lambda: any(e.words[0] == word for e in self.ledger(phase, attempt)),
            f"{phase}.{attempt} {word}",
        )

    def release(self, phase: str, attempt: int = 1) -> None:
        """Lets an agent that waits, or is about to, go on."""
        self.await_entry("waits", phase, attempt)
        gate = self.lane(phase, attempt) / "outputs/gate"
        os.close(os.open(gate, os.O_WRONLY))

    def up(self, *args: str) -> subprocess.Popen[str]:
        return self.start("up", "--plain", *args)

    # What must hold

    def check(self) -> None:
        """What holds at any time: one living attempt a phase, and nothing lost."""
        states = {
            (p["name"], a["n"]): a["state"] for p in self.sprint()["phases"] for a in p["attempts"]
        }
        for name in {name for name, _ in states}:
            alive = [n for (of, n), state in states.items() if of == name and state == "running"]
            assert len(alive) <= 1, f"{name} has several living attempts: {alive}"
        for pid, attempt in self.jailed().items():
            if states.get(attempt) != "running":
                # Whose keeper was killed dies some milliseconds after it, of the same signal.
                await_true(lambda p=pid: not _lives(p), f"{attempt}, to die", patience_s=1)
        self.check_turns([name for name, _ in states])
        for name, n in states:
            self.check_kept(name, n)

    def check_turns(self, phases: list[str]) -> None:
        """No attempt at a phase did anything after the next one had begun."""
        for name in phases:
            before = 0
            for attempt in range(1, len(self.attempts(name)) + 1):
                entries = self.ledger(name, attempt)
                assert not entries or entries[0].at_ns > before, f"{name}.{attempt} overlaps"
                before = entries[-1].at_ns if entries else before

    def check_kept(self, phase: str, attempt: int) -> None:
        """What an attempt printed is in its log, and what it wrote through is in its layer."""
        entries = [e.words for e in self.ledger(phase, attempt)]
        if said := [e for e in entries if e[0] == "said"]:
            size, digest = int(said[-1][1]), said[-1][2]
            data = self.log(phase, attempt).read_bytes()[:size]
            assert hashlib.sha256(data).hexdigest() == digest, f"{phase}.{attempt} lost output"
        saved = {e[1]: e[2] for e in entries if e[0] == "saved"}
        upper = self.lane(phase, attempt) / "upper"
        sealed = self.board / "layers" / f"{self.sprint()['id']}-{phase}-{attempt:04d}"
        for name, digest in saved.items():
            # In this order: it may be sealed, which moves it, while we look.
            kept = _content(upper / name)
            if kept is None:
                kept = _content(sealed / name)
            assert kept is not None, f"{phase}.{attempt} lost {name}"
            assert hashlib.sha256(kept).hexdigest() == digest, name

    def check_gone(self) -> None:
        """No process of ours is left, and nothing is mounted."""
        await_true(lambda: not self.processes(), lambda: f"none of {_told(self.processes())}")
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(self.top) not in mounts

    def complete(self) -> None:
        """The sprint goes on to its end by another `up`, and everything is in order then."""
        self.check()
        done = self.run("up", "--plain")
        assert done.returncode == 0, done.stdout + done.stderr
        self.check_completed()

    def check_completed(self) -> None:
        assert self.sprint()["state"] == "completed"
        verified = self.run("artifacts", "verify", "--json")
        assert verified.returncode == 0, verified.stdout
        self.check()
        self.check_gone()

    def _is_ours(self, pid: int, our_namespace: int) -> bool:
        if not _lives(pid):
            return False
        environment = _environment(pid)
        if self._mark in environment:
            return True
        try:
            # Inside of a jail there is nothing of our environment; what it sees is ours.
            if os.stat(f"/proc/{pid}/ns/mnt").st_ino == our_namespace:
                return False
            return str(self.top) in Path(f"/proc/{pid}/mountinfo").read_text()
        except OSError:
            return False


Make = Callable[[str], Scenario]


def await_true(
    condition: Callable[[], object],
    what: str | Callable[[], str],
    *,
    patience_s: float = _PATIENCE_S,
) -> None:
    """Returns once `condition` holds; fails, naming what was waited for, if it never does."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what() if callable(what) else what}")
        time.sleep(0.005)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The status of a process that ends, and all that it said."""
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out + err


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 :][:1] not in (b"Z", b"X")


def _environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _told(pids: list[int]) -> list[str]:
    told = []
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:80]
            told.append(f"{pid} {words}")
        except OSError:
            pass
    return told


__all__ = ["Entry", "Scenario", "await_true", "finish", "phase", "stand_in"]
