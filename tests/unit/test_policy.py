"""What follows from a history: who is next, when, and when it is enough. Time is a number here."""

from __future__ import annotations

import pytest

from supervisor.model.phase import Phase
from supervisor.model.policy import GiveUp, Past, Reset, Try, after, backoff_s
from supervisor.model.record import AttemptState, Trouble

S = AttemptState
TWO = Phase(name="x", agents=("a", "b"), restarts=1)


def next_agent(step: Try | GiveUp) -> str:
    assert isinstance(step, Try), step
    return step.agent


def limited(agent: str, age_s: float, retry_s: float | None = None) -> Past:
    return Past(agent, S.FAILED, age_s, trouble=Trouble.RATE_LIMITED, retry_s=retry_s)


def test_next_agent_takes_over_when_one_has_used_up_its_restarts() -> None:
    failures = [Past("a", S.FAILED), Past("a", S.LOST), Past("b", S.STALLED)]

    assert after(TWO, []) == Try("a")
    assert next_agent(after(TWO, failures[:1])) == "a"
    assert next_agent(after(TWO, failures[:2])) == "b"
    assert next_agent(after(TWO, failures)) == "b"
    end = after(TWO, [*failures, Past("b", S.TIMED_OUT)])
    assert end == GiveUp("4 of 4 attempts failed, the last: timed_out")


def test_attempt_by_hand_counts_against_whose_turn_it_was() -> None:
    hand = [Past("me", S.FAILED), Past("me", S.FAILED)]

    assert next_agent(after(TWO, hand)) == "b"
    assert isinstance(after(TWO, hand * 2), GiveUp)


@pytest.mark.parametrize("state", [S.REVOKED, S.RELEASED])
def test_revoked_and_released_attempts_are_nobodys_failure(state: AttemptState) -> None:
    phase = Phase(name="x", agents=("a",), restarts=0)

    assert after(phase, [Past("a", state, 0.0)] * 5) == Try("a")


def test_failures_further_apart_than_the_window_never_add_up() -> None:
    phase = Phase(name="x", agents=("a",), restarts=2, window_s=60)
    ages = [1000.0 - 40 * n for n in range(20)]

    slow = [Past("a", S.FAILED, age_s) for age_s in ages]
    quick = [*slow, Past("a", S.FAILED, ages[-1] - 10)]

    assert next_agent(after(phase, slow)) == "a"
    assert isinstance(after(phase, quick), GiveUp)


def test_window_is_between_failures_and_not_until_now() -> None:
    phase = Phase(name="x", agents=("a",), restarts=1, window_s=60)

    assert isinstance(after(phase, [Past("a", S.FAILED, 9010), Past("a", S.FAILED, 9000)]), GiveUp)


def test_backoff_runs_from_the_end_of_the_last_failure() -> None:
    phase = Phase(name="x", agents=("a",), restarts=9, backoff_s=8)

    early = after(phase, [Past("a", S.FAILED, 0.0)])
    later = after(phase, [Past("a", S.FAILED, 3.0)])

    assert isinstance(early, Try)
    assert isinstance(later, Try)
    assert 4 <= early.wait_s <= 8
    assert later.wait_s == pytest.approx(early.wait_s - 3)
    assert after(phase, [Past("a", S.FAILED, 9.0)]) == Try("a")


def test_backoff_of_zero_is_none() -> None:
    phase = Phase(name="x", agents=("a",), restarts=9, backoff_s=0)

    assert after(phase, [Past("a", S.LOST, 0.0)] * 5) == Try("a")


def test_rate_limited_agent_is_passed_over_at_once_and_burns_no_restart() -> None:
    phase = Phase(name="x", agents=("a", "b"), restarts=0)
    history = [limited("a", 10.0, retry_s=100.0)]

    assert after(phase, history) == Try("b")
    assert after(phase, [limited("a", 100.0, retry_s=100.0)]) == Try("a")


def test_phase_is_parked_until_the_first_of_its_agents_may_go_on() -> None:
    phase = Phase(name="x", agents=("a", "b"), restarts=0)
    history = [limited("a", 10.0, retry_s=100.0), limited("b", 5.0, retry_s=50.0)]

    assert after(phase, history) == Try("b", 45.0, "b is rate limited")


def test_parks_of_unknown_length_grow_up_to_an_hour() -> None:
    phase = Phase(name="x", agents=("a",), restarts=0)

    waits = []
    for times in (1, 2, 3, 50):
        step = after(phase, [limited("a", 0.0)] * times)
        assert isinstance(step, Try)
        waits.append(step.wait_s)

    assert waits == [60, 120, 240, 3600]


def test_agent_that_is_not_logged_in_hands_over_at_once() -> None:
    out = Past("a", S.FAILED, 0.0, trouble=Trouble.NOT_LOGGED_IN)

    assert after(TWO, [out]) == Try("b")
    end = after(TWO, [out, Past("b", S.FAILED), Past("b", S.FAILED)])
    assert isinstance(end, GiveUp)
    assert end.reason.startswith("not logged in: a;")


def test_full_disk_is_nobodys_failure() -> None:
    phase = Phase(name="x", agents=("a",), restarts=0)
    full = Past("a", S.FAILED, 100.0, trouble=Trouble.NO_SPACE)

    assert after(phase, [full] * 9) == Try("a")


def test_reset_forgets_what_was_before_it_and_may_name_who_is_next() -> None:
    phase = Phase(name="x", agents=("a", "b"), restarts=0)
    spent = [Past("a", S.FAILED, 0.0), Past("b", S.FAILED, 0.0)]

    assert isinstance(after(phase, spent), GiveUp)
    assert after(phase, spent, resets=[Reset(2)]) == Try("a")
    assert after(phase, spent, resets=[Reset(2, "b")]) == Try("b")
    assert after(phase, spent, resets=[Reset(2, "b"), Reset(2)]) == Try("a")
    assert after(phase, [], resets=[Reset(0, "c")]) == Try("c")
    third = [*spent, Past("b", S.FAILED, 0.0)]
    assert next_agent(after(phase, third, resets=[Reset(2, "b")])) == "a"


def test_backoff_grows_has_jitter_and_a_limit() -> None:
    assert 0.25 <= backoff_s(1, "s") <= 0.5
    assert 0.5 <= backoff_s(2, "s") <= 1.0
    assert backoff_s(1000, "s") <= 60.0
    assert backoff_s(3, "one") != backoff_s(3, "two")
    assert backoff_s(3, "one") == backoff_s(3, "one")
