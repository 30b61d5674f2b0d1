"""What ailed an agent that failed, told from how it exited and the last it said. Pure.

The agents' words are their own and change; presets name them. Only an attempt that failed is looked
at, and only its last lines, so an agent that writes *about* rate limits is not taken for limited.
"""

from __future__ import annotations

import re

from supervisor.model.phase import Agent, Symptom
from supervisor.model.record import Trouble

_LONGEST_S = 7 * 86400.0
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
# "retry after 30", "retry in 34.07s", "try again in 3 days 4 hours", "Retry-After: 120".
_IN = re.compile(
    r"(?:retry|try\s+again)[\s_-]*(?:after|in)\W{0,3}((?:\d+(?:\.\d+)?\s*[a-z]*[\s,]*(?:and\s+)?){1,5})",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|s|m|h|d|$)?[a-z]*", re.IGNORECASE)
_SECONDS = re.compile(r'"(?:resets?_in_seconds|retry_after(?:_seconds)?)"\s*:\s*"?(\d+(?:\.\d+)?)')
# Seconds since 1970: "usage limit reached|1750000000", "resets_at": 1750000000.
_AT = re.compile(r'(?:\||resets?_?at"?\s*:\s*)(\d{10})\b', re.IGNORECASE)


def diagnose(
    agent: Agent, exit_code: int | None, last_words: str, *, wall_s: float
) -> tuple[Trouble | None, float | None]:
    """What ailed the agent, and in how many seconds it may be tried again, where it says so.

    Args:
        last_words: the end of what it printed.
        wall_s: seconds since 1970 now: some agents name a date.
    """
    if _shows(agent.not_logged_in, exit_code, last_words):
        return Trouble.NOT_LOGGED_IN, None
    if _shows(agent.rate_limited, exit_code, last_words):
        return Trouble.RATE_LIMITED, retry_s(last_words, wall_s=wall_s)
    return None, None


def retry_s(text: str, *, wall_s: float) -> float | None:
    """In how many seconds to try again, as `text` says; None where it does not."""
    waits = [float(match[1]) for match in _SECONDS.finditer(text)]
    waits += [_amount_s(match[1]) for match in _IN.finditer(text)]
    waits += [float(match[1]) - wall_s for match in _AT.finditer(text)]
    sound = [wait for wait in waits if wait > 0]
    return min(sound[-1], _LONGEST_S) if sound else None


def _shows(symptom: Symptom, exit_code: int | None, last_words: str) -> bool:
    if exit_code is not None and exit_code in symptom.exit:
        return True
    said = last_words.casefold()
    return any(words.casefold() in said for words in symptom.output if words)


def _amount_s(text: str) -> float:
    """ "3 days 4 hours" → seconds; a number without a unit is seconds."""
    total = 0.0
    for match in _AMOUNT.finditer(text):
        unit = (match[2] or "s").lower()
        total += float(match[1]) * _UNITS_S["ms" if unit == "milli" else unit]
    return total
