"""A sprint with the real agent CLIs, their model scripted on loopback: what they may write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.agents.scripted_model import ScriptedModel

ROOT = Path(__file__).resolve().parents[2]
NANOSUP = Path(sys.executable).with_name("nanosup")
CACHE = ROOT / ".cache" / "agents"

FLEET = """
[agents.it]
preset = "{preset}"

[[phase]]
name = "build"
access = "write"
agents = ["it"]
prompt = "This is the build."
network = "host"
timeout_s = 100
restarts = 0

[[phase]]
name = "review"
depends_on = ["build"]
access = "read"
gate = false
agents = ["it"]
prompt = "This is the review."
network = ["127.0.0.1"]
timeout_s = 100
restarts = 0
"""

COMMAND = "echo from {phase} > made.txt; echo status=$?; git log --format=%s; cat made.txt"


@dataclass(frozen=True)
class Case:
    """An agent as its user has it.

    Attributes:
        settings: path under HOME → content; {url} is where the model is.
        environment: what the user has exported; the same.
    """

    preset: str
    settings: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


CASES = [
    Case(
        "codex",
        settings={
            ".codex/config.toml": """
model = "scripted"
model_provider = "scripted"

[model_providers.scripted]
name = "a script on loopback"
base_url = "{url}/v1"
wire_api = "responses"
requires_openai_auth = false
request_max_retries = 0
stream_max_retries = 0
"""
        },
    ),
    Case("claude", environment={"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_API_KEY": "scripted"}),
    Case(
        "gemini",
        settings={
            ".gemini/settings.json": '{"security": {"auth": {"selectedType": "gemini-api-key"}}}'
        },
        environment={
            "GEMINI_API_KEY": "scripted",
            "GEMINI_MODEL": "gemini-2.5-flash",
            "GOOGLE_GEMINI_BASE_URL": "{url}",
        },
    ),
    Case(
        "opencode",
        settings={
            ".config/opencode/opencode.json": json.dumps(
                {
                    "model": "scripted/model",
                    "provider": {
                        "scripted": {
                            "npm": "@ai-sdk/anthropic",
                            "options": {"baseURL": "{url}/v1", "apiKey": "scripted"},
                            "models": {"model": {"name": "a script on loopback"}},
                        }
                    },
                }
            )
        },
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case.preset)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    if not (CACHE / found.preset / "version").exists():
        pytest.skip(f"{found.preset} is not installed (scripts/test does that where npm is)")
    return found


def test_the_agent_creates_a_file_in_build_and_gets_erofs_in_review(
    tmp_path: Path, case: Case
) -> None:
    repository = committed(tmp_path / "project", FLEET.format(preset=case.preset))
    with ScriptedModel(command_for) as model:
        nanosup = user(case, tmp_path / "home", repository, model.url)

        done = nanosup("up", "--plain", "--goal", "make a file")

        assert done.returncode == 0, done.stdout + done.stderr + nanosup("logs", "build").stdout
        assert [phase_of(prompt) for prompt in model.prompts] == ["build", "review"]
        in_build, in_review = model.tool_results

    sprint = json.loads(nanosup("status", "--json").stdout)["sprints"][0]
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


REFUSED = """
[agents.it]
preset = "{preset}"
# It would try again by itself for minutes.
env = {{ CLAUDE_CODE_MAX_RETRIES = "0" }}

[agents.other]
command = ["true"]

[[phase]]
name = "build"
agents = ["it", "other"]
network = "host"
timeout_s = 100
restarts = 5
"""


@pytest.mark.parametrize(("status", "trouble"), [(401, "not_logged_in"), (429, "rate_limited")])
def test_what_keeps_an_agent_from_its_work_is_told_from_how_it_ends(
    request: pytest.FixtureRequest, tmp_path: Path, case: Case, status: int, trouble: str
) -> None:
    if case.preset == "opencode" and not request.config.getoption("--long"):
        pytest.skip("opencode takes its time to start; run with --long")
    if status == 429 and case.preset in ("gemini", "opencode"):
        pytest.skip(f"{case.preset} tries again by itself, for longer than a test can wait")
    repository = committed(tmp_path / "project", REFUSED.format(preset=case.preset))
    with ScriptedModel(command_for, refusal=status) as model:
        nanosup = user(case, tmp_path / "home", repository, model.url)

        done = nanosup("up", "--plain")

    # Not one restart was used up for it: the other agent took over at once.
    assert done.returncode == 0, done.stdout + done.stderr + nanosup("logs", "build").stdout
    sprint = json.loads(nanosup("status", "--json").stdout)["sprints"][0]
    attempts = sprint["phases"][0]["attempts"]
    said = nanosup("logs", "build", "--attempt", "1").stdout
    assert [a["agent"] for a in attempts] == ["it", "other"], said
    assert attempts[0]["trouble"] == trouble, said


def command_for(prompt: str) -> str:
    return COMMAND.format(phase=phase_of(prompt))


def phase_of(prompt: str) -> str:
    return "build" if "This is the build." in prompt else "review"


def committed(repository: Path, fleet: str) -> Path:
    repository.mkdir()
    (repository / "README").write_text("a project\n")
    (repository / "nanosup.toml").write_text(fleet)
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "add", "--all")
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    git(repository, *identity, "commit", "--quiet", "--message", "Start")
    return repository


def user(
    case: Case, home: Path, repository: Path, url: str
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Somebody who has the agent installed as `npm install --prefix ~/.local` leaves it."""
    (home / ".local" / "bin").mkdir(parents=True)
    (home / ".local" / "lib").symlink_to(CACHE / case.preset)
    (home / ".local" / "bin" / case.preset).symlink_to(f"../lib/node_modules/.bin/{case.preset}")
    for path, content in case.settings.items():
        (home / path).parent.mkdir(parents=True)
        (home / path).write_text(content.replace("{url}", url))
    environment = {
        **os.environ,
        **{name: value.replace("{url}", url) for name, value in case.environment.items()},
        "HOME": str(home),
        "PATH": f"{home}/.local/bin:{os.environ['PATH']}",
    }

    def nanosup(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [NANOSUP, *arguments],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=250,
        )

    return nanosup


def git(repository: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=repository, check=True, capture_output=True, text=True
    ).stdout
