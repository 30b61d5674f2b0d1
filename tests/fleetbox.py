"""A repository with a nanosup.toml, driven as a user drives it: by the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.gitbox import git, make_repository

TIMEOUT_S = 60
NANOSUP = str(Path(sys.executable).with_name("nanosup"))


class Fleet:
    """A repository, and nanosup in it.

    Agents are shell scripts: `script("build", "echo x > f")` is what the agent of a phase runs.
    """

    def __init__(self, path: Path, toml: str, files: dict[str, str | bytes] | None = None) -> None:
        self.top = make_repository(path, files)
        self.configure(toml)
        self.env = {**os.environ, "NO_COLOR": "1"}
        self._started: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        """Ends whatever a test has left running."""
        if any(process.poll() is None for process in self._started):
            self.run("down", "--now")
        for process in self._started:
            process.kill()
            process.communicate()

    def configure(self, toml: str) -> None:
        """Writes nanosup.toml and commits it, so that the working tree is clean."""
        (self.top / "nanosup.toml").write_text(toml)
        git(self.top, "add", "-A")
        git(self.top, "commit", "-q", "--allow-empty", "-m", "configure")

    def run(self, *args: str, stdin: Any = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return subprocess.run(
            [NANOSUP, *args],
            cwd=self.top,
            env=self.env,
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Starts a command."""
        process = subprocess.Popen(
            [NANOSUP, *args],
            cwd=self.top,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def json(self, *args: str) -> Any:
        """What a command prints with --json."""
        done = self.run(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def sprint(self) -> Any:
        """The last sprint, as `status --json` shows it."""
        return self.json("status")["sprints"][-1]

    def phase(self, name: str) -> Any:
        (found,) = (p for p in self.sprint()["phases"] if p["name"] == name)
        return found

    def attempts(self, name: str) -> list[Any]:
        return list(self.phase(name)["attempts"])

    def states(self, name: str) -> list[str]:
        return [attempt["state"] for attempt in self.attempts(name)]

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run("events", "--json").stdout.splitlines()]

    def lane(self, phase: str, n: int = 1) -> Path:
        """The lane of an attempt on the board."""
        sprint = self.sprint()["id"]
        return self.board / f"sprints/{sprint}/phases/{phase}/attempts/{n:04d}/lane"

    @property
    def board(self) -> Path:
        return self.top / ".git/nanosup"

    @contextmanager
    def events(self) -> Iterator[Callable[..., dict[str, Any]]]:
        """Gives a function that returns the next event of a name, waiting for it."""
        follow = self.start("events", "-f", "--json")
        assert follow.stdout is not None

        def wait(event: str, **fields: Any) -> dict[str, Any]:
            assert follow.stdout is not None
            for line in follow.stdout:
                found = json.loads(line)
                if found["event"] == event and fields.items() <= found.items():
                    return dict(found)
            raise AssertionError(f"no event {event} {fields} before the sprint ended")

        try:
            yield wait
        finally:
            follow.kill()
            follow.communicate()


def agent(name: str, script: str) -> str:
    """An agent that runs a shell script; $NANOSUP_PHASE and $NANOSUP_ATTEMPT tell it what for."""
    return f"[agents.{name}]\ncommand = {json.dumps(['/bin/sh', '-euc', script])}\n\n"


def phase(name: str, **keys: Any) -> str:
    """A [[phase]] table."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(["[[phase]]", f'name = "{name}"', *lines, "", ""])
