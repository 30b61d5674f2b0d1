"""SIGKILL of `nanosup up`, of a keeper, or of who prepares its lane, as it makes any of the calls
that others can see."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faultbox import Scenario, finish, phase, stand_in

# Around these a kill makes a difference to the board, or to who runs: enough for every day.
_TURNS = {
    "up": ("sendall", "renameat2", "link"),
    "keeper": ("posix_spawn", "link", "sendmsg"),
    "preparer": ("renameat2", "sendmsg"),
}
_TINY = stand_in("a", "say('x'); save('f', 'x')") + phase(
    "p", access="write", restarts=3, backoff_s=0.01, outputs=["ledger"]
)


def calls_of(path: Path, role: str) -> list[str]:
    """The calls that a process of this role makes when nothing goes wrong."""
    scenario = Scenario(path / "calm", _TINY)
    log = path / "calls"
    with scenario.doomed(role, 0, log):
        assert scenario.run("up").returncode == 0
    return log.read_text().split()


def die_at_each(path: Path, role: str, calls: list[int]) -> None:
    """A round for each call, a few at a time: they mostly wait."""
    with ThreadPoolExecutor(4) as pool:
        rounds = [pool.submit(die_at, path / str(call), role, call) for call in calls]
        for done in rounds:
            done.result()


def die_at(path: Path, role: str, call: int) -> None:
    """One process dies, another `up` goes on to the end, and nothing is lost or left."""
    scenario = Scenario(path, _TINY)
    try:
        with scenario.doomed(role, call):
            code, said = finish(scenario.up("--goal", "g"))
        assert code == -9 if role == "up" else code == 0, (call, said)
        if scenario.sprints():
            scenario.check()
        done = scenario.run("up", "--plain", "--goal", "g")
        assert done.returncode == 0, (call, done.stdout, done.stderr)
        scenario.check_completed()
    finally:
        scenario.close()


@pytest.mark.parametrize("role", ["up", "keeper", "preparer"])
def test_killed_around_each_claim_start_and_end_nothing_is_lost(tmp_path: Path, role: str) -> None:
    calls = calls_of(tmp_path, role)
    assert set(_TURNS[role]) <= set(calls)

    # After each: to be killed before it is to be killed after the call before.
    die_at_each(tmp_path, role, [n + 1 for n, call in enumerate(calls, 1) if call in _TURNS[role]])


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("role", ["up", "keeper", "preparer"])
def test_killed_at_any_call_nothing_is_lost(tmp_path: Path, role: str) -> None:
    die_at_each(tmp_path, role, list(range(1, len(calls_of(tmp_path, role)) + 1)))
