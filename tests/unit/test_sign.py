"""Silence and stalls, by a clock that the test turns."""

from __future__ import annotations

from supervisor.sign import Pulse


def test_silence_of_stall_s_is_a_stall_and_no_less() -> None:
    pulse = Pulse(8.0, lambda: 0, 100.0)

    assert [pulse.has_stalled(100.0 + t) for t in (2, 4, 6, 7.9)] == [False] * 4
    assert pulse.has_stalled(108.1)


def test_any_sign_of_life_begins_the_count_anew() -> None:
    signs = iter([0, 0, 0, 1, 1, 1, 1, 1])
    pulse = Pulse(8.0, lambda: next(signs), 0.0)

    assert [pulse.has_stalled(t) for t in (2, 4, 6, 8, 10, 12)] == [False] * 6
    assert pulse.has_stalled(14)


def test_time_in_which_the_keeper_did_not_run_is_nobodys_silence() -> None:
    pulse = Pulse(8.0, lambda: 0, 0.0)

    assert not pulse.has_stalled(2)
    assert not pulse.has_stalled(3602)
    assert not pulse.has_stalled(3606)
    assert pulse.has_stalled(3610)
