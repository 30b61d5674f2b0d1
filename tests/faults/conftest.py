"""What the fault suite's modules share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faultbox import Make, Scenario


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes scenarios, and ends at the end whatever they have left running."""
    with ExitStack() as stack:

        def made(toml: str) -> Scenario:
            scenario = Scenario(tmp_path / "repo", toml)
            stack.callback(scenario.close)
            return scenario

        yield made
