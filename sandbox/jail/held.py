"""What a keeper asks of a running command, however it is held."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Set
from types import TracebackType
from typing import Protocol, Self

from sandbox.jail.census import Process
from sandbox.jail.end import End


class Held(Protocol):
    """`child.Child` in a jail, `ward.Ward` in a lane without namespaces; see there."""

    pid: int
    agent: int | None
    left: tuple[Process, ...]

    @property
    def seen(self) -> Set[int]: ...

    @property
    def denied(self) -> Mapping[str, int]: ...

    @property
    def has_exited(self) -> bool: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def fileno(self) -> int: ...

    def poll(self) -> End | None: ...

    def wait(self, timeout_s: float | None = None) -> End | None: ...

    def terminate(self, number: int = signal.SIGTERM) -> bool: ...

    def kill(self) -> None: ...

    def processes(self) -> tuple[Process, ...]: ...

    def agent_state(self) -> str: ...

    def cpu_s(self) -> float: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...
