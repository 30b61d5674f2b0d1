"""What `nanosup up` was asked for. Imports nothing that takes time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The options of the command (docs/commands/up.md).

    Attributes:
        stack: None: as nanosup.toml says.
    """

    goals: tuple[str, ...]
    agent: str | None
    graph: str | None
    stack: bool | None
    detach: bool
    plain: bool
    as_json: bool
