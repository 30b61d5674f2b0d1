"""Where an attempt runs: the directories of its lane, and how it is described to the sandbox."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from sandbox.errors import MountError
from supervisor.phase import Agent, Phase
from supervisor.record import Sprint

INPUTS = "/run/nanosup/inputs"
OUTPUTS = "/run/nanosup/outputs"
PROMPT = "/run/nanosup/prompt.md"
OBJECTS = "/run/nanosup/objects"
BEAT_FILE = "nanosup.beat"
BEAT = f"/tmp/{BEAT_FILE}"


@dataclass(frozen=True, slots=True)
class LaneDir:
    """The directories of one attempt, all on the board.

    Attributes:
        path: `attempts/NNNN/lane`.
    """

    path: str

    @property
    def upper(self) -> str:
        return os.path.join(self.path, "upper")

    @property
    def work(self) -> str:
        return os.path.join(self.path, "work")

    @property
    def mount(self) -> str:
        return os.path.join(self.path, "mnt")

    @property
    def grafts(self) -> str:
        return os.path.join(self.path, "grafts")

    @property
    def home(self) -> str:
        return os.path.join(self.path, "home")

    @property
    def tmp(self) -> str:
        return os.path.join(self.path, "tmp")

    @property
    def inputs(self) -> str:
        return os.path.join(self.path, "inputs")

    @property
    def outputs(self) -> str:
        return os.path.join(self.path, "outputs")

    @property
    def git(self) -> str:
        return os.path.join(self.path, "git")

    @property
    def scratch(self) -> str:
        return os.path.join(self.path, "scratch")

    @property
    def prompt(self) -> str:
        return os.path.join(self.path, "prompt.md")

    def scratch_for(self, phase: Phase) -> dict[str, str]:
        """Repository path → the directory that is bound over it."""
        return {
            path: os.path.join(self.scratch, str(number))
            for number, path in enumerate(phase.scratch)
        }

    def make(self, phase: Phase, *, uid: int, gid: int) -> None:
        """Makes the directories; those that the agent writes belong to `uid` and `gid`."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        ours = [self.mount, self.inputs, self.scratch]
        theirs = [self.home, self.tmp, self.outputs]
        theirs += self.scratch_for(phase).values()
        if phase.access.writes:
            ours.append(self.work)
            theirs.append(self.upper)
        for directory in (*ours, *theirs):
            os.mkdir(directory, 0o755)
        if os.getuid() != uid:
            for directory in theirs:
                os.chown(directory, uid, gid)


def variables(
    sprint: Sprint, phase: Phase, n: int, agent: Agent, host: Mapping[str, str]
) -> dict[str, str]:
    """The environment of an attempt beyond what every lane has. Pure."""
    return {
        **{name: host[name] for name in agent.pass_env if name in host},
        **agent.env,
        **phase.env,
        "NANOSUP_SPRINT": sprint.id,
        "NANOSUP_PHASE": phase.name,
        "NANOSUP_ATTEMPT": str(n),
        "NANOSUP_GOAL": sprint.goal,
        "NANOSUP_BASE": sprint.base.commit,
        "NANOSUP_INPUTS": INPUTS,
        "NANOSUP_OUTPUTS": OUTPUTS,
        "NANOSUP_PROMPT_FILE": PROMPT,
        "NANOSUP_BEAT": BEAT,
    }


def placeholders(sprint: Sprint, phase: Phase, n: int, top: str, prompt: str) -> dict[str, str]:
    """What {…} in an agent's command stands for. Pure."""
    return {
        "prompt": prompt,
        "prompt_file": PROMPT,
        "phase": phase.name,
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "goal": sprint.goal,
        "sprint": sprint.id,
        "attempt": str(n),
        "repo": top,
    }


@contextmanager
def locked(lane: LaneDir) -> Iterator[IO[bytes]]:
    """Holds the lane's lock (flock(2)). It lasts until every process that inherits it is gone."""
    with open(os.path.join(lane.path, "lock"), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file


def await_unlocked(lane: LaneDir, timeout_s: float) -> None:
    """Returns when nothing writes to the lane's upper layer any more.

    A keeper that was killed leaves a server that is still writing out what it has.

    Raises:
        MountError: something still does after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    try:
        lock = os.open(os.path.join(lane.path, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise MountError(
                        f"the file system server of {lane.path} has not ended",
                        hint="the disk may hang: look for processes in state D",
                    ) from None
                time.sleep(0.01)
    finally:
        os.close(lock)
