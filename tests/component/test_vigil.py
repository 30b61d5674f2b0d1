"""The watch over a lane, with a command that no signal ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.jail.census import Process
from supervisor.keeper import vigil
from supervisor.keeper.vigil import Vigil
from supervisor.keeper.wakeup import Wakeup
from supervisor.model.ending import Cause
from supervisor.model.phase import Phase


class Deaf:
    """A command in state D: it never ends, and its pidfd never tells."""

    left: tuple[Process, ...] = ()
    has_exited = False

    def __init__(self, *requests: int) -> None:
        self._requests = list(requests)
        self.fd, self._other = os.pipe()
        self.did: list[str] = []

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._other)

    def fileno(self) -> int:
        return self.fd

    def poll(self) -> None:
        return None

    def kill(self) -> None:
        self.did.append("kill")

    def terminate(self, number: int) -> bool:
        self.did.append("terminate")
        return True

    def abandon(self) -> None:
        self.did.append("abandon")

    def operations(self) -> int:
        return self._requests.pop() if self._requests else 0

    def agent_state(self) -> str:
        return "D"

    def processes(self) -> tuple[Process, ...]:
        return (Process(pid=7, parent=1, name="tar", state="D", cpu_ticks=0),)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A keeper whose lane has ended ignores what asks for that; later tests must not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    made = Deaf()
    yield made
    made.close()


def test_what_cannot_be_killed_is_told_and_left_behind(
    deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vigil, "_DEATH_S", 0.05)
    told: list[tuple[str, dict[str, Any]]] = []
    phase = Phase(name="p", timeout_s=0.05, grace_s=0.05)
    server: Any = Deaf()

    with Wakeup() as wakeup:
        watch = Vigil(phase, lambda event, **fields: told.append((event, fields)), wakeup)
        child: Any = deaf
        ending = watch.keep(child, server, sample=lambda: 0, refresh=lambda: None)
    server.close()

    assert ending.cause is Cause.TIMEOUT
    assert [process.name for process in ending.stuck] == ["tar"]
    assert not ending.served
    assert deaf.did == ["terminate", "terminate", "kill", "kill", "abandon"]
    assert server.did == ["kill"]
    assert told == [("attempt.stuck", {"processes": ["tar (7, state D)"]})]


def test_server_that_still_answers_is_not_taken_from_under_the_dying(
    deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have gigabytes to write out; only when nothing happens any more is it killed."""
    monkeypatch.setattr(vigil, "_DEATH_S", 0.05)
    server: Any = Deaf(2, 1)
    killed_after: list[int] = []
    monkeypatch.setattr(server, "kill", lambda: killed_after.append(len(server._requests)))

    with Wakeup() as wakeup:
        phase = Phase(name="p", timeout_s=0.05, grace_s=0)
        watch = Vigil(phase, lambda *_, **__: None, wakeup)
        child: Any = deaf
        watch.keep(child, server, sample=lambda: 0, refresh=lambda: None)
    server.close()

    assert killed_after == [0]
