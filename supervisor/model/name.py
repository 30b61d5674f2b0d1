"""Names on the board: what may be one, and what it means. No I/O.

Three kinds of name are met in the directories of the board: attempt numbers (`0001`), names that
people chose (sprints, phases, files), and `tmp.…`, which is something half-made that no reader
looks at.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

NAME_MAX = 255  # limits.h, in bytes

# What git accepts in a ref, a shell leaves alone, and a URL needs no escapes for. No dot: a token
# is SPRINT.PHASE.N.SECRET. At most 64 characters, so that names derived from it fit NAME_MAX.
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NUMBER = re.compile(r"[0-9]{4,9}")
_TMP = re.compile(r"tmp\.([0-9a-f]{8})-([0-9]+)-([0-9]+)-([0-9]+)-([0-9a-f]+)")


class Maker(NamedTuple):
    """The process that made a temporary file, as its name tells.

    Attributes:
        boot: the first eight digits of the boot id.
        pid_ns: inode number of the PID namespace that `pid` is of.
        start_ticks: field 22 of /proc/<pid>/stat.
    """

    boot: str
    pid_ns: int
    pid: int
    start_ticks: int


def is_identifier(name: str) -> bool:
    """Whether `name` can be the id of a sprint or a layer, or the name of a phase."""
    return _IDENTIFIER.fullmatch(name) is not None


def sprint_id(now: str, noise: bytes) -> str:
    """A sprint's id, from a UTC time as `clock.utc_now` gives it and two random bytes.

    Ids sort in the order of their times, to the millisecond.
    """
    date, time = now[:10].replace("-", ""), now[11:19].replace(":", "")
    return f"{date}-{time}-{now[20:23]}{noise[:2].hex()}"


def attempt_name(n: int) -> str:
    return f"{n:04d}"


@functools.lru_cache(1 << 14)
def attempt_number(name: str) -> int | None:
    """The number that a directory's name stands for, or None where it is no attempt.

    Raises:
        ValueError: digits, but not as `attempt_name` writes them, so that two names could stand
            for one number.
    """
    if not name.isdigit():
        return None
    if _NUMBER.fullmatch(name) is None or name != attempt_name(int(name)) or int(name) == 0:
        raise ValueError(f"{name!r} is not how an attempt's number is written")
    return int(name)


def tmp_name(maker: Maker, noise: bytes) -> str:
    """A name for something half-made, which tells whose it is."""
    return f"tmp.{maker.boot}-{maker.pid_ns}-{maker.pid}-{maker.start_ticks}-{noise.hex()}"


def is_tmp(name: str) -> bool:
    return name.startswith("tmp.")


def tmp_maker(name: str) -> Maker | None:
    """Who made what has this name; None where the name does not tell."""
    match = _TMP.fullmatch(name)
    if match is None:
        return None
    boot, pid_ns, pid, start_ticks, _ = match.groups()
    return Maker(boot, int(pid_ns), int(pid), int(start_ticks))


def file_fault(name: bytes) -> str | None:
    """What is wrong with the name of an artifact, as the end of a sentence; None if nothing is.

    A leading dot is refused since an exported `.envrc` or `.bashrc` would be run by somebody, a
    leading dash since it is an option to the next command. What Unicode does not call printable
    (controls, direction marks, line separators) would let a name lie about itself in a terminal.
    """
    if not name or b"/" in name or b"\0" in name:
        return "has an impossible name"
    if len(name) > NAME_MAX:
        return f"has a name of {len(name)} bytes, and {NAME_MAX} is the most"
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return "has a name that is not UTF-8"
    if not text.isprintable():
        return "has a name with control or invisible characters"
    if text.startswith("."):
        return "has a name that starts with a dot"
    if text.startswith("-"):
        return "has a name that starts with a dash"
    if text != text.strip():
        return "has a name that starts or ends with a space"
    return None
