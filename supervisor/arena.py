"""A place to try to break out of lanes: a repository, a HOME with secrets, a process to reach for.

All of it is made for the purpose, and removed; lanes are real ones, run by `nanosup run`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from sandbox.errors import JailError
from sandbox.git.gitname import Refusal, refusal
from sandbox.tiers.tier import Tier
from supervisor.config.resource import configs
from supervisor.keeper.lodging import rooms_path

PREFIX = "nanosup-redteam-"
SECRETS = (
    ".ssh/id_ed25519",
    ".aws/credentials",
    ".netrc",
    ".gnupg/private-keys",
    ".docker/config.json",
)

_LANE_S = 180
_PROCESSES, _OPEN_FILES, _MEMORY_MIB, _DISK_MIB = 256, 256, 512, 64
_LIMITS = (
    f'processes = {_PROCESSES}, open_files = {_OPEN_FILES}, memory = "{_MEMORY_MIB}M", '
    f'disk = "{_DISK_MIB}M"'
)
_FILES = {
    "victim.txt": "victim\n",
    "second.txt": "second\n",
    "third.txt": "third\n",
    "host.txt": "host\n",
    "directory/inside": "inside\n",
    "empty/keep": "",
}
_TOML = """\
[workspace]
mount = "{tier}"

[agents.nobody]
command = ["true"]

[[phase]]
name = "decoy"
network = "none"

[[phase]]
name = "read"
network = "none"
gate = false
limits = {{ {limits} }}

[[phase]]
name = "net"
network = ["allowed.invalid:80"]
gate = false

[[phase]]
name = "write"
network = "none"
access = "write"
limits = {{ {limits} }}
"""


@dataclass(slots=True)
class Arena:
    """Use as a context manager. `tier` None: no repository of nanosup's, for control.

    Attributes:
        facts: what attempts may know; see `configs/redteam`.
    """

    tier: Tier | None
    facts: dict[str, Any] = field(default_factory=dict)
    _top: Path = field(default_factory=Path)
    _canary: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._top = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._top.chmod(0o755)
        try:
            self._furnish()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()

    @property
    def repository(self) -> Path:
        return self._top / "repository"

    @property
    def board(self) -> Path:
        return self.repository / ".git/nanosup"

    def attack(self, access: str, only: str = "") -> list[dict[str, str]]:
        """Runs all attempts in a lane of `access`, and says what came of each.

        Args:
            only: an attempt's name, or `not:` and a guard; for control.
        """
        facts = self.facts
        if self.tier is not None:
            facts = {**facts, "own_attempt": f"{self._phase(access)}/attempts/0001"}
        runner = [_python(), "-B", "redteam/run.py", json.dumps(facts), access]
        if self.tier is None:
            mode = "control-root" if os.getuid() == 0 else "control-any"
            done = self._run([*runner, mode, only])
        else:
            done = self._nanosup("run", access, "--", *runner)
        answers = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if not answers:
            raise JailError(f"no attempt was made in the {access} lane: {why}")
        made = [self._judged(answer) for answer in answers[1:]]
        return made + _missed(answers[0]["plan"], made, why)

    # -- making

    def _furnish(self) -> None:
        home, repository = self._top / "home", self.repository
        facts = self.facts
        facts |= {
            "home": str(home),
            "host_uid": os.getuid(),
            "host_repository": str(repository),
            "board": str(self.board),
            "mark": f"mark-{secrets.token_hex(8)}",
            "secret": f"secret-{secrets.token_hex(8)}",
            "daemon_mark": f"{PREFIX}daemon-{secrets.token_hex(8)}",
            "limit_processes": _PROCESSES,
            "limit_files": _OPEN_FILES,
            "limit_memory_mib": _MEMORY_MIB,
            "limit_disk_mib": _DISK_MIB,
            "pwned": str(self._top / "pwned"),
        }
        for name in (*SECRETS, ".profile"):
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{facts['secret']}\n" if name in SECRETS else "")
        sockets = self._top / "sockets"
        sockets.mkdir()
        command = [_python(), "-B", str(configs() / "redteam/canary.py"), str(sockets)]
        self._canary = subprocess.Popen(
            [*command, f"{PREFIX}{secrets.token_hex(8)}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment(),
        )
        assert self._canary.stdout is not None
        facts |= json.loads(self._canary.stdout.readline())
        self._make_repository()

    def _make_repository(self) -> None:
        top = self.repository
        shutil.copytree(configs() / "redteam", top / "redteam")
        for name, text in _FILES.items():
            (top / name).parent.mkdir(exist_ok=True)
            (top / name).write_text(text)
        if self.tier is not None:
            (top / "nanosup.toml").write_text(_toml(self.tier))
        self._git("init", "-q", "-b", "main")
        self._git("add", "-A")
        self._git("commit", "-qm", "one")
        if self.tier is None:
            self._make_decoy(top.parent / "board")
            return
        done = self._nanosup("run", "decoy", "--", "true")
        if done.returncode:
            raise JailError(f"no lane can be had: {done.stderr.strip()}")
        self.facts["other_attempt"] = f"{self._phase('decoy')}/attempts/0001"
        lane = Path(self.facts["other_attempt"], "lane")
        self.facts["other_lane"] = (
            os.path.realpath(lane / "room") if (lane / "room").is_symlink() else str(lane)
        )

    def _make_decoy(self, board: Path) -> None:
        """For control, what a board has, where nobody is kept from it."""
        attempt = board / "sprints/one/phases/decoy/attempts/0001"
        (attempt / "lane/home").mkdir(parents=True)
        (attempt / "owner.json").write_text('{"agent": "nobody"}')
        (board / "key").mkdir()
        (board / "key/ed25519.pem").write_text("a key")
        self.facts |= {
            "board": str(board),
            "other_attempt": str(attempt),
            "other_lane": str(attempt / "lane"),
            "own_attempt": str(attempt),
        }

    def _phase(self, name: str) -> str:
        (sprint,) = os.listdir(self.board / "sprints")
        return str(self.board / "sprints" / sprint / "phases" / name)

    # -- judging

    def _judged(self, answer: dict[str, str]) -> dict[str, str]:
        """The answer, with what was looked up outside where only that can tell."""
        if answer["result"] != "escaped" or answer["by"] != "judged outside":
            return answer
        found = self._found_outside(answer["attempt"], answer["guard"])
        if found:
            return {**answer, "by": found}
        return {**answer, "result": "stopped", "by": "nothing of it is to be found outside"}

    def _found_outside(self, attempt: str, guard: str) -> str:
        mark = self.facts["mark"]
        match attempt:
            case "a daemon that outlives the lane":
                return self._daemon()
            case "write to HOME of the user":
                return "in HOME" if mark in (self._top / "home/.profile").read_text() else ""
            case "write to the host's working tree":
                return "in the tree" if mark in (self.repository / "host.txt").read_text() else ""
            case "write to the host's .git/config":
                config = (self.repository / ".git/config").read_text()
                return "in its configuration" if mark in config else ""
        return self._sealed() if guard == "seal" else "nobody looked"

    def _daemon(self) -> str:
        for process in psutil.process_iter(["cmdline"]):
            if self.facts["daemon_mark"] in (process.info["cmdline"] or ()):
                process.kill()
                return f"pid {process.pid} is still there"
        return ""

    def _sealed(self) -> str:
        """Uses the repository as a person would, and looks at what was sealed."""
        for arguments in (
            ("status",),
            ("log", "--all", "--stat"),
            ("diff", "main"),
            ("fsck", "--strict"),
            ("commit", "-q", "--allow-empty", "-m", "two"),
        ):
            done = self._git(*arguments, check=False)
            if done.returncode and "fsck" in arguments:
                return f"git fsck: {done.stderr.strip().splitlines()[-1]}"
        refs = self._git("for-each-ref", "--format=%(refname)", "refs/nanosup").stdout.split()
        if self.tier is not None and not refs:
            return "nothing was sealed, so nothing was tried"
        for ref in refs:
            copy = self._top / "copy"
            self._git("worktree", "add", "-q", "--detach", str(copy), ref, check=False)
            self._git("worktree", "remove", "--force", str(copy), check=False)
            listed = self._git("ls-tree", "-r", "-t", "-z", ref).stdout.split("\0")
            for line in filter(None, listed):
                meta, _, path = line.partition("\t")
                name = os.fsencode(path).rpartition(b"/")[2]
                if refusal(name, symlink=meta.startswith("120000")) is not Refusal.NONE:
                    return f"the tree has an entry {path!r}"
        if os.path.exists(self.facts["pwned"]):
            os.unlink(self.facts["pwned"])
            return "the host has run it"
        return ""

    # -- running

    def _environment(self) -> dict[str, str]:
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GIT_", "NANOSUP_"))
        }
        rooms = self._top / "rooms"
        rooms.mkdir(exist_ok=True)
        return {
            **env,
            "HOME": self.facts["home"],
            "NANOSUP_CANARY": self.facts["secret"],
            "NANOSUP_ROOMS": str(rooms),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "NO_COLOR": "1",
        }

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        env = self._environment() | {"TMPDIR": str(self._top)}
        return subprocess.run(
            command,
            cwd=self.repository,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LANE_S,
            errors="replace",
        )

    def _nanosup(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = "from supervisor.cli import main; main()"
        return self._run([sys.executable, "-P", "-c", program, *arguments])

    def _git(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        person = ["-c", "user.name=redteam", "-c", "user.email=redteam@localhost"]
        done = self._run(["git", *person, *arguments])
        if check and done.returncode:
            raise JailError(f"git {arguments[0]}: {done.stderr.strip()}")
        return done

    def _clear(self) -> None:
        if self._canary is not None and self._canary.stdin is not None:
            self._canary.stdin.close()
            self._canary.kill()
            self._canary.wait()
            if self._canary.stdout is not None:
                self._canary.stdout.close()
        shutil.rmtree(self._top, ignore_errors=True)
        rooms = rooms_path(str(self.board))
        if os.path.isdir(rooms):
            shutil.rmtree(rooms, ignore_errors=True)


def _missed(
    planned: list[tuple[str, str]], made: list[dict[str, str]], why: str
) -> list[dict[str, str]]:
    """Answers for attempts that came to nothing, since the lane had ended: for using too much of
    the host, which is how it may be stopped, or for something that is wrong."""
    rest = planned[len(made) :]
    by_limit = bool(rest) and rest[0][1] == "limits"
    return [
        {
            "attempt": name,
            "guard": guard,
            "result": "stopped" if by_limit and guard == "limits" else "broken",
            "by": f"the lane was ended: {why}",
        }
        for name, guard in rest
    ]


def _toml(tier: Tier) -> str:
    text = _TOML.format(tier=tier.value, limits=_LIMITS)
    # A list of hosts is refused where it cannot be kept to.
    return text if tier.namespaced else text.replace('["allowed.invalid:80"]', '"none"')


def _python() -> str:
    """An interpreter that lanes can see."""
    usual = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    return usual or os.path.realpath(sys.executable)
