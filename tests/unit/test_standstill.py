"""What is paused, from what was asked for in order."""

from __future__ import annotations

import pytest

from supervisor.model.standstill import PauseRecord, standstill


def asked(*words: str) -> list[PauseRecord]:
    """ "pause build", "resume": records."""
    pairs = [word.partition(" ")[::2] for word in words]
    return [PauseRecord(paused=verb == "pause", at="", phase=name or None) for verb, name in pairs]


@pytest.mark.parametrize(
    ("words", "still"),
    [
        ((), set()),
        (("pause build",), {"build"}),
        (("pause",), {"plan", "build"}),
        (("pause", "resume build"), {"plan"}),
        (("pause build", "resume"), set()),
        (("resume build", "pause"), {"plan", "build"}),
        (("pause build", "resume build", "pause plan"), {"plan"}),
    ],
)
def test_last_word_about_a_phase_holds(words: tuple[str, ...], still: set[str]) -> None:
    found = standstill(asked(*words))

    assert {name for name in ("plan", "build") if found.covers(name)} == still
