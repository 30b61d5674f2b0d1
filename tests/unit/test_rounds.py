"""A lane is looked after often while something happens in it, and seldom where nothing does."""

from __future__ import annotations

from itertools import pairwise

from supervisor.keeper.rounds import OFTEN_S, SELDOM_S, Rounds


def looks(rounds: Rounds, count: int, *, quiet: bool) -> list[float]:
    """The seconds between that many looks, each made when it is due."""
    times = [rounds.due_s]
    for _ in range(count):
        rounds.made(times[-1], quiet=quiet)
        times.append(rounds.due_s)
    return [after - before for before, after in pairwise(times)]


def test_first_look_is_soon() -> None:
    assert Rounds(100.0).due_s == 100.0 + OFTEN_S


def test_busy_lane_is_looked_after_often() -> None:
    assert looks(Rounds(0.0), 9, quiet=False) == [OFTEN_S] * 9


def test_quiet_lane_is_looked_after_ever_more_seldom_but_always_again() -> None:
    found = looks(Rounds(0.0), 9, quiet=True)
    assert found == sorted(found)
    assert found[0] > OFTEN_S
    assert set(found[3:]) == {SELDOM_S}


def test_what_must_not_be_missed_is_not() -> None:
    assert looks(Rounds(0.0, always=True), 9, quiet=True) == [OFTEN_S] * 9


def test_output_brings_the_next_look_near() -> None:
    rounds = Rounds(0.0)
    looks(rounds, 9, quiet=True)
    now = rounds.due_s - SELDOM_S + 1
    rounds.stir(now)
    assert rounds.due_s == now + OFTEN_S
    rounds.made(rounds.due_s, quiet=False)
    assert looks(rounds, 1, quiet=True) == [OFTEN_S * 2]


def test_output_does_not_put_a_look_off() -> None:
    rounds = Rounds(0.0)
    rounds.stir(4.0)
    assert rounds.due_s == OFTEN_S
