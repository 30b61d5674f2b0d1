"""The keys of `nanosup.toml` about gates and schemas: checked, and turned into what they mean."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from supervisor.config.resource import schemas
from supervisor.config.schema import PhaseTable, Workspace
from supervisor.errors import ConfigError
from supervisor.model import contract, ijson
from supervisor.model.graph import Graph
from supervisor.model.phase import Access, OnFail, Phase

GATES = ("review", "security", "qa")
_SCHEMA_LIMIT_BYTES = 256 << 10


def gated(phase: Phase, table: PhaseTable, where: str, top: Path) -> Phase:
    """`phase` with what its table says of `gate`, `on_fail`, `max_rounds` and `schemas`.

    Raises:
        ConfigError: they do not fit together, or a schema cannot be read or is none.
    """
    can_be = phase.access is Access.READ and bool(phase.outputs) and _is_json(phase.outputs[0])
    gate = (table.name in GATES and can_be) if table.gate is None else table.gate
    if gate and not can_be:
        raise ConfigError(
            f'{where}: gate = true needs access = "read" and a JSON file as the first of outputs',
            hint=f'such as outputs = ["{table.name}.json"]: its "verdict" is what counts',
        )
    if not gate and (table.on_fail is not None or table.max_rounds is not None):
        raise ConfigError(
            f"{where}: on_fail and max_rounds are for gates, and this phase is none",
            hint="add gate = true, or take them away",
        )
    return msgspec.structs.replace(
        phase,
        gate=gate,
        on_fail=table.on_fail or OnFail.REJECT,
        max_rounds=phase.max_rounds if table.max_rounds is None else table.max_rounds,
        schemas={**shipped(phase), **_own(table, where, top)},
    )


def with_default(
    phases: Sequence[Phase], workspace: Workspace, said: Collection[str] = ()
) -> list[Phase]:
    """`phases`, with the gates other than those `said` doing on "fail" what `[workspace]` says.

    A gate with no write phase before it has nothing to open again, and goes on rejecting.
    """
    graph = Graph(phases)
    return [
        msgspec.structs.replace(phase, on_fail=workspace.on_fail)
        if phase.gate and phase.name not in said and graph.writer_before(phase.name) is not None
        else phase
        for phase in phases
    ]


def shipped(phase: Phase) -> dict[str, Any]:
    """The schemas that ship with nanosup, for those of a phase's outputs that have one."""
    name = f"{phase.name}.json"
    return {name: _shipped(phase.name)} if name in phase.outputs and phase.name in schemas() else {}


@cache
def _shipped(name: str) -> Any:
    return ijson.loads(schemas()[name].read_bytes())


def _own(table: PhaseTable, where: str, top: Path) -> dict[str, Any]:
    found = {}
    for output, path in table.schemas.items():
        at = f"{where}: schemas.{output!r}"
        if not _is_json(output):
            raise ConfigError(f"{at}: not a .json file", hint="only JSON can have a schema")
        try:
            with (top / path).open("rb") as file:
                data = file.read(_SCHEMA_LIMIT_BYTES + 1)
        except OSError as error:
            raise ConfigError(
                f"{at}: {path!r} cannot be read: {error.strerror}",
                hint="write the path relative to the top of the repository",
            ) from None
        try:
            if len(data) > _SCHEMA_LIMIT_BYTES:
                raise ijson.StrictError(f"has more than {_SCHEMA_LIMIT_BYTES} bytes")
            schema = ijson.loads(data)
        except ijson.StrictError as error:
            raise ConfigError(f"{at}: {path!r} {error}", hint="mend it") from None
        if (fault := contract.broken_schema(schema)) is not None:
            raise ConfigError(f"{at}: {path!r} {fault}", hint="mend it")
        found[output] = schema
    return found


def _is_json(name: str) -> bool:
    return name.endswith(".json")
