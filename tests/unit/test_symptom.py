"""What ailed an agent, told from its own words."""

from __future__ import annotations

import pytest

from supervisor.model.phase import Agent, Symptom
from supervisor.model.record import Trouble
from supervisor.model.symptom import diagnose, retry_s

AGENT = Agent(
    name="a",
    command=("a",),
    rate_limited=Symptom(exit=(75,), output=("usage limit",)),
    not_logged_in=Symptom(exit=(41,), output=("please run /login",)),
)


@pytest.mark.parametrize(
    ("code", "words", "trouble"),
    [
        (1, "some other failure", None),
        (41, "", Trouble.NOT_LOGGED_IN),
        (1, "Invalid API key · Please run /login", Trouble.NOT_LOGGED_IN),
        (75, "", Trouble.RATE_LIMITED),
        (1, "You've hit your Usage Limit.", Trouble.RATE_LIMITED),
        (None, "usage limit", Trouble.RATE_LIMITED),
        (None, "", None),
    ],
)
def test_symptom_is_a_code_or_words(code: int | None, words: str, trouble: Trouble | None) -> None:
    assert diagnose(AGENT, code, words, wall_s=0)[0] is trouble


def test_agent_without_symptoms_has_none() -> None:
    assert diagnose(Agent(name="b", command=("b",)), 1, "usage limit", wall_s=0) == (None, None)


@pytest.mark.parametrize(
    ("words", "wait_s"),
    [
        ("Claude AI usage limit reached|1750000600", 600),
        ('{"error":{"type":"usage_limit_reached","resets_at":1750000060}}', 60),
        ('{"resets_in_seconds": 444287}', 444287),
        ("Please retry in 34.07s.", 34.07),
        ("Retry-After: 120", 120),
        ("rate limited, try again in 5 minutes", 300),
        ("try again in 1 day 2 hours 3 minutes.", 86400 + 7200 + 180),
        ("Please try again in 250ms", 0.25),
        ("try again in 400 days", 7 * 86400),
        ("try again later", None),
        ("limit reached|1749999999", None),  # past
        ("retry in 10s ... retry in 20s", 20),  # the last word holds
    ],
)
def test_time_to_wait_is_read_as_agents_say_it(words: str, wait_s: float | None) -> None:
    found = retry_s(words, wall_s=1750000000)

    assert found == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize("evil", ["retry in " + "1 " * 50_000, "try again in " + "9" * 50_000])
def test_long_nonsense_takes_no_time(evil: str) -> None:
    retry_s(evil, wall_s=0)
