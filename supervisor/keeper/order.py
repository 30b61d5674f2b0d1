"""What a keeper is told when it is started. Everything else it reads from the board."""

from __future__ import annotations

import time

import msgspec


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to be claimed and carried out.

    Attributes:
        state: the state directory.
        top: the repository's own path: where the lane's mount appears inside the jail.
        ticket: the number under which whoever gives the order waits for the writer's turn.
        command: replaces the agent's command (`nanosup run`).
        foreground: the child gets the keeper's own stdin, stdout and stderr instead of files.
        tty: in the foreground, the keeper's stdin and stdout are a terminal for the child alone.
        stderr: in the foreground, the descriptor that the child gets as stderr.
        given_s: when it was given, by the monotonic clock, which all processes have in common.
    """

    state: str
    top: str
    sprint: str
    phase: str
    n: int
    agent: str
    ticket: int | None = None
    command: tuple[str, ...] | None = None
    foreground: bool = False
    tty: bool = False
    stderr: int = 2
    given_s: float = msgspec.field(default_factory=time.monotonic)
