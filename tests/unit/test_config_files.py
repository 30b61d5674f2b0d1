"""The presets, fleets and prompts that ship with nanosup are valid."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from supervisor.config.config import build, preset
from supervisor.config.resource import configs, presets, prompts
from supervisor.model.graph import default_phases

FLEETS = sorted((configs() / "fleets").glob("*.toml"))
PLACEHOLDERS = {"{prompt}", "{prompt_file}", "{phase}", "{outputs}"}


def test_all_products_have_a_preset() -> None:
    assert set(presets()) == {"aider", "claude", "codex", "cursor", "gemini", "opencode"}


@pytest.mark.parametrize("name", sorted(presets()))
def test_a_preset_hands_the_prompt_over_and_knows_its_placeholders(name: str) -> None:
    command = preset(name).command
    used = {word for word in command if word.startswith("{")}

    assert used & {"{prompt}", "{prompt_file}"}
    assert used <= PLACEHOLDERS


@pytest.mark.parametrize("name", sorted(presets()))
def test_a_preset_takes_no_keys_that_are_not_the_agents_own(name: str) -> None:
    agent = preset(name)
    taken = [*agent.credentials, *agent.home_read]

    assert not [path for path in taken if re.match(r"\.(ssh|aws|gnupg|netrc|docker|kube)", path)]
    assert not [path for path in taken if Path(path).is_absolute() or ".." in Path(path).parts]
    # The whole of a tool's directory would bring its sessions, hooks and MCP servers along.
    assert not [path for path in agent.credentials if len(Path(path).parts) < 2]


@pytest.mark.parametrize("path", FLEETS, ids=lambda path: path.stem)
def test_a_fleet_to_start_from_is_a_valid_configuration(path: Path) -> None:
    assert build(tomllib.loads(path.read_text()), path).agents


def test_every_phase_of_the_default_graph_has_a_prompt_that_names_its_outputs() -> None:
    for phase in default_phases(["claude"], prompts()):
        assert phase.prompt
        for output in phase.outputs:
            assert f"$NANOSUP_OUTPUTS/{output}" in phase.prompt
