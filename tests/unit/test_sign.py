"""Silence and stalls, by a clock that the test turns."""

from __future__ import annotations

from supervisor.keeper.sign import Pulse


def test_silence_of_stall_s_is_a_stall_and_no_less() -> None:
    pulse = Pulse(8.0, lambda: 0, 100.0)

    assert [pulse.has_stalled(100.0 + t) for t in (2, 4, 6, 7.9)] == [False] * 4
    assert pulse.has_stalled(108.1)


def test_any_sign_of_life_begins_the_count_anew() -> None:
    signs = iter([0, 0, 0, 1, 1, 1, 1, 1])
    pulse = Pulse(8.0, lambda: next(signs), 0.0)

    assert [pulse.has_stalled(t) for t in (2, 4, 6, 8, 10, 12)] == [False] * 6
    assert pulse.has_stalled(14)


def test_last_look_comes_no_later_than_stall_s() -> None:
    pulse = Pulse(100.0, lambda: 0, 0.0)

    now = 0.0
    while not pulse.has_stalled(now):
        now = pulse.due_s

    assert now == 100.0


def test_time_in_which_the_keeper_did_not_run_is_nobodys_silence() -> None:
    pulse = Pulse(8.0, lambda: 0, 0.0)

    assert not pulse.has_stalled(2)
    assert not pulse.has_stalled(3602)
    assert not pulse.has_stalled(3606)
    assert pulse.has_stalled(3610)


def test_suspended_host_begins_the_count_anew() -> None:
    # CLOCK_MONOTONIC stood still: only the other clock tells that an hour is gone.
    pulse = Pulse(8.0, lambda: 0, 0.0, suspended_s=50.0)

    assert [pulse.has_stalled(t, 50.0) for t in (2, 4, 6)] == [False] * 3
    assert [pulse.has_stalled(t, 3650.0) for t in (8, 10, 12, 14)] == [False] * 4
    assert pulse.has_stalled(16, 3650.0)


def test_pause_is_nobodys_silence() -> None:
    pulse = Pulse(8.0, lambda: 0, 0.0)

    assert [pulse.has_stalled(t) for t in (2, 4, 6)] == [False] * 3
    pulse.begin_anew(100)

    assert [pulse.has_stalled(t) for t in (102, 104, 106)] == [False] * 3
    assert pulse.has_stalled(108)
