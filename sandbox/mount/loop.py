"""Drives a coroutine that never has to wait, without an event loop.

pyfuse3 looks its event loop up as the attribute `trio` of its module. What stands there may be
anything with the names below. Handlers that never suspend need no loop: the descriptor is
waited for with plain poll(2), and each request costs a fraction of what a loop takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any


class ClosedResourceError(Exception):
    """Raised by a `wait` hook to end the loop."""


class Lock:
    """Never contended: there is one task."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


class _Nursery:
    def __init__(self) -> None:
        self._task: Awaitable[Any] | None = None

    async def __aenter__(self) -> _Nursery:
        return self

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any, name: str) -> None:
        self._task = function(*args)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None and self._task is not None:
            await self._task


class _Task:
    name = "serve"


class Loop:
    """Stands in for the `trio` module.

    `wait` is called before each request is received, and returns once one is there, or raises
    ClosedResourceError.
    """

    ClosedResourceError = ClosedResourceError
    Lock = Lock

    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait
        self.lowlevel = self
        self.from_thread = self

    def open_nursery(self) -> _Nursery:
        return _Nursery()

    def current_trio_token(self) -> str:
        return "none"

    def current_task(self) -> _Task:
        return _Task()

    async def wait_readable(self, _fd: int) -> None:
        self._wait()

    def notify_closing(self, _fd: int) -> None:
        return None


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end. Raises RuntimeError if it suspends."""
    try:
        main.send(None)
    except StopIteration:
        return
    main.close()
    raise RuntimeError("a handler suspended; nothing would ever resume it")
