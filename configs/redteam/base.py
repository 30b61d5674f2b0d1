"""What the attempts share: how one is declared, and the system calls that Python does not have.

These files run inside of lanes (and, for control, outside of any), with nothing but Python.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READ, WRITE = "read", "write"
NET = "net"  # a reader with a list of hosts that it may reach
ANY, ROOT, NEVER = "any", "root", "never"

libc = ctypes.CDLL(None, use_errno=True)
MACHINE = os.uname().machine


class Stopped(Exception):  # noqa: N818 (no error: what is hoped for)
    """What was tried had no effect."""


def connected(address: tuple[str, int], *, timeout_s: float) -> str:
    """Connects to a server on the host, or raises.

    In a network namespace of its own a port that nobody listens at may be the very one that the
    kernel picks for the caller: TCP then connects it to itself.
    """
    with socket.create_connection(address, timeout=timeout_s) as channel:
        if channel.getsockname() == channel.getpeername():
            raise Stopped("connected to itself")
        return f"{address}: connected"


@dataclass
class Context:
    """What an attempt may know: all that somebody who knows nanosup could guess.

    Attributes:
        control: nothing protects; only what is harmless is done.
    """

    access: str
    control: bool
    facts: dict[str, Any]
    top: Path = field(default_factory=Path.cwd)

    def __getattr__(self, name: str) -> Any:
        return self.facts[name]


@dataclass(frozen=True)
class Attempt:
    name: str
    act: Callable[[Context], str]
    lanes: tuple[str, ...]
    guard: str
    control: str


ATTEMPTS: list[Attempt] = []


def attempt(
    name: str, guard: str, *, lanes: tuple[str, ...] = (READ, WRITE), control: str = ANY
) -> Callable[[Callable[[Context], str]], Callable[[Context], str]]:
    """Declares an attempt. It returns words if it has got through, and raises if it has not.

    Args:
        guard: what should stop it.
        lanes: the accesses of lanes where it would be a way out.
        control: who must succeed with it where nothing protects: anybody, root, or it is not tried.
    """

    def declare(act: Callable[[Context], str]) -> Callable[[Context], str]:
        ATTEMPTS.append(Attempt(name, act, lanes, guard, control))
        return act

    return declare


def since(major: int, minor: int) -> str:
    """Who succeeds with a system call that is as old as this Linux: before it, nobody."""
    release = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    return ANY if release >= (major, minor) else NEVER


def check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(x86_64: int, aarch64: int, *arguments: Any) -> int:
    number = x86_64 if MACHINE == "x86_64" else aarch64
    # Python gives an int as 32 bits, and the kernel looks at all 64 of some.
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return check(libc.syscall(ctypes.c_long(number), *wide))


def context(facts: str, access: str, control: bool) -> Context:
    return Context(access, control, json.loads(facts))
