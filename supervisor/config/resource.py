"""The files that ship with nanosup: presets, prompts, fleets, schemas."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def configs() -> Path:
    """The directory `configs/`: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def presets() -> dict[str, Path]:
    """Name → file of each agent preset."""
    return {path.stem: path for path in sorted((configs() / "agents").glob("*.toml"))}


def schemas() -> dict[str, Path]:
    """Phase name → file of the JSON Schema of what it hands on, `<name>.json`."""
    return {path.stem: path for path in sorted((configs() / "schemas").glob("*.json"))}


def prompts() -> dict[str, str]:
    """Phase name → what to ask of an agent when the configuration does not say."""
    return {path.stem: path.read_text() for path in sorted((configs() / "prompts").glob("*.md"))}
