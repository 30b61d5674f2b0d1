"""A sprint with the real Codex CLI, its model scripted on loopback: what it may write, what not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agents.scripted_model import ScriptedModel

ROOT = Path(__file__).resolve().parents[2]
NANOSUP = Path(sys.executable).with_name("nanosup")
CODEX = ROOT / ".cache" / "codex"

pytestmark = pytest.mark.skipif(
    not (CODEX / "version").exists(),
    reason="the Codex CLI is not installed (scripts/test does that where npm is)",
)

FLEET = """
[agents.codex]
preset = "codex"

[[phase]]
name = "build"
access = "write"
agents = ["codex"]
prompt = "This is the build."
network = "host"
timeout_s = 60
restarts = 0

[[phase]]
name = "review"
depends_on = ["build"]
access = "read"
agents = ["codex"]
prompt = "This is the review."
network = "host"
timeout_s = 60
restarts = 0
"""

CODEX_CONFIG = """
model = "scripted"
model_provider = "scripted"

[model_providers.scripted]
name = "a script on loopback"
base_url = "{base_url}"
wire_api = "responses"
requires_openai_auth = false
request_max_retries = 0
stream_max_retries = 0
"""

COMMAND = "echo from {phase} > made.txt; echo status=$?; git log --format=%s; cat made.txt"


def test_codex_creates_a_file_in_build_and_gets_erofs_in_review(tmp_path: Path) -> None:
    repository = committed(tmp_path / "project", FLEET)
    with ScriptedModel(command_for) as model:
        home = home_with_codex(tmp_path / "home", model.base_url)

        status = nanosup(repository, home, "up", "--plain", "--goal", "make a file")

        assert status.returncode == 0, status.stdout + status.stderr
        asked = [request_phase(request) for request in model.requests]
        assert asked == ["build", "build", "review", "review"]
        in_build, in_review = model.tool_results

    sprint = json.loads(nanosup(repository, home, "status", "--json").stdout)["sprints"][0]
    assert [phase["state"] for phase in sprint["phases"]] == ["completed", "completed"]
    assert "status=0" in in_build
    sealed = git(repository, "show", f"refs/nanosup/{sprint['id']}/build:made.txt")
    assert sealed == "from build\n"
    assert "Read-only file system" in in_review
    assert "status=0" not in in_review
    # The reviewer saw what was built, and the host has nothing of it.
    assert "from build" in in_review
    assert git(repository, "status", "--porcelain") == ""
    assert not (repository / "made.txt").exists()


def command_for(prompt: str) -> str:
    return COMMAND.format(phase="build" if "This is the build." in prompt else "review")


def request_phase(request: dict[str, object]) -> str:
    return "build" if "This is the build." in json.dumps(request) else "review"


def committed(repository: Path, fleet: str) -> Path:
    repository.mkdir()
    (repository / "README").write_text("a project\n")
    (repository / "nanosup.toml").write_text(fleet)
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "add", "--all")
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    git(repository, *identity, "commit", "--quiet", "--message", "Start")
    return repository


def home_with_codex(home: Path, base_url: str) -> Path:
    """A HOME as `npm install --prefix ~/.local` and a look into Codex's settings leave it."""
    (home / ".codex").mkdir(parents=True)
    (home / ".codex" / "config.toml").write_text(CODEX_CONFIG.format(base_url=base_url))
    (home / ".local" / "bin").mkdir(parents=True)
    (home / ".local" / "lib").symlink_to(CODEX)
    (home / ".local" / "bin" / "codex").symlink_to("../lib/node_modules/.bin/codex")
    return home


def nanosup(repository: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{home}/.local/bin:{os.environ['PATH']}",
    }
    return subprocess.run(
        [NANOSUP, *arguments],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=150,
    )


def git(repository: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=repository, check=True, capture_output=True, text=True
    ).stdout
