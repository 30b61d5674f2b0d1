"""docs/board.md is enough for another program to take part: it leaves no key out."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from supervisor.board.beat import Beat
from supervisor.board.reset import ResetRecord
from supervisor.model.record import (
    AttemptState,
    Exit,
    Input,
    Outcome,
    Output,
    Owner,
    Revision,
    Snapshot,
    Sprint,
)
from supervisor.model.standstill import PauseRecord
from supervisor.upkeep.ack import Ack

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "board.md").read_text()


@pytest.mark.parametrize(
    "kind",
    [
        Owner,
        Outcome,
        Snapshot,
        Input,
        Output,
        Sprint,
        Revision,
        Beat,
        ResetRecord,
        PauseRecord,
        Ack,
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_key_of_every_document_is_described(kind: type[msgspec.Struct]) -> None:
    named = set(re.findall(r"`([a-z0-9_]+)`", PAGE))
    assert set(kind.__struct_fields__) - named == set()


def test_every_way_to_end_is_described() -> None:
    ends = {state.value for state in AttemptState if state is not AttemptState.RUNNING}
    assert {end for end in ends if f"`{end}`" not in PAGE} == set()
    assert all(f'{{"{field}": n}}' in PAGE for field in Exit.__struct_fields__)
