"""docs/jail.md lists what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.jail import exposure
from sandbox.jail.seccomp import RULES

PAGE = (Path(__file__).resolve().parents[2] / "docs/jail.md").read_text()


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (exposure.TOOLCHAINS, "~/"),
        (exposure.SECRETS, "~/"),
        (exposure.MASKED, ""),
        (exposure.ENVIRONMENT, ""),
        (tuple(rule.name for rule in RULES), ""),
    ],
    ids=["toolchains", "secrets", "masks", "environment", "system calls"],
)
def test_the_page_lists_them_all(names: tuple[str, ...], prefix: str) -> None:
    assert [name for name in names if f"`{prefix}{name}`" not in PAGE] == []
