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
from supervisor.model.phase import Agent, Phase
from supervisor.model.record import Sprint

INPUTS = "/run/nanosup/inputs"
OUTPUTS = "/run/nanosup/outputs"
PROMPT = "/run/nanosup/prompt.md"
OBJECTS = "/run/nanosup/objects"
BEAT_FILE = "nanosup.beat"
BEAT = f"/tmp/{BEAT_FILE}"
CHANGES = "/run/nanosup/changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where an agent finds what it is given (`lodging.py`).

    Attributes:
        top: the repository.
        beat: the file whose touching is a beat.
    """

    top: str
    inputs: str = INPUTS
    outputs: str = OUTPUTS
    prompt: str = PROMPT
    beat: str = BEAT


@dataclass(frozen=True, slots=True)
class LaneDir:
    """The directories of one attempt: all on the board, but for the room of a lane that has no
    namespaces (`lodging.py`).

    Attributes:
        path: `attempts/NNNN/lane`.
    """

    path: str

    @property
    def room(self) -> str:
        """Where the directories are that the agent sees."""
        try:
            return os.readlink(os.path.join(self.path, "room"))
        except OSError:
            return self.path

    @property
    def is_confined(self) -> bool:
        """Whether it is a lane without namespaces, in a room of its own."""
        return self.room != self.path

    @property
    def tree(self) -> str:
        return os.path.join(self.room, "tree")

    @property
    def manifest(self) -> str:
        return os.path.join(self.room, "tree.manifest")

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
        return os.path.join(self.room, "home")

    @property
    def tmp(self) -> str:
        return os.path.join(self.room, "tmp")

    @property
    def inputs(self) -> str:
        return os.path.join(self.room, "inputs")

    @property
    def outputs(self) -> str:
        return os.path.join(self.room, "outputs")

    @property
    def git(self) -> str:
        return os.path.join(self.room, "git")

    @property
    def scratch(self) -> str:
        return os.path.join(self.room, "scratch")

    @property
    def prompt(self) -> str:
        return os.path.join(self.room, "prompt.md")

    def scratch_for(self, phase: Phase) -> dict[str, str]:
        """Repository path → the directory that is bound over it."""
        return {
            path: os.path.join(self.scratch, str(number))
            for number, path in enumerate(phase.scratch)
        }

    def make(self, phase: Phase, *, uid: int, gid: int, room: str | None = None) -> None:
        """Makes the directories; those that the agent writes belong to `uid` and `gid`.

        Args:
            room: where those are to be that the agent sees; must not exist.
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        if room is not None:
            os.mkdir(room, 0o755)
            os.symlink(room, os.path.join(self.path, "room"))
        ours = [self.mount, self.inputs, self.scratch, self.git]
        theirs = [self.home, self.tmp, self.outputs]
        theirs += self.scratch_for(phase).values()
        upper = f"{self.upper}.made"
        if phase.access.writes:
            ours.append(self.work)
            if room is None:  # else it is made of what has changed, at the end
                theirs.append(upper)
        for directory in (*ours, *theirs):
            os.mkdir(directory, 0o755)
        if os.getuid() != uid:
            for directory in theirs:
                os.chown(directory, uid, gid)
        if upper in theirs:
            # At once: the next attempt's tree has the owner that its top has, if we are killed.
            os.rename(upper, self.upper)


def variables(
    sprint: Sprint, phase: Phase, n: int, agent: Agent, host: Mapping[str, str], seen: Places
) -> dict[str, str]:
    """The environment of an attempt beyond what every lane has. Pure."""
    return {
        # git status would write the whole index to remember what the mount tells it again anyway,
        # and hold the index's lock meanwhile.
        "GIT_OPTIONAL_LOCKS": "0",
        **{name: host[name] for name in agent.pass_env if name in host},
        **agent.env,
        **phase.env,
        "NANOSUP_SPRINT": sprint.id,
        "NANOSUP_PHASE": phase.name,
        "NANOSUP_ATTEMPT": str(n),
        "NANOSUP_GOAL": sprint.goal,
        "NANOSUP_BASE": sprint.base.commit,
        "NANOSUP_INPUTS": seen.inputs,
        "NANOSUP_OUTPUTS": seen.outputs,
        "NANOSUP_PROMPT_FILE": seen.prompt,
        "NANOSUP_BEAT": seen.beat,
    }


def placeholders(sprint: Sprint, phase: Phase, n: int, seen: Places, prompt: str) -> dict[str, str]:
    """What {…} in an agent's command stands for. Pure."""
    return {
        "prompt": prompt,
        "prompt_file": seen.prompt,
        "phase": phase.name,
        "inputs": seen.inputs,
        "outputs": seen.outputs,
        "goal": sprint.goal,
        "sprint": sprint.id,
        "attempt": str(n),
        "repo": seen.top,
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
