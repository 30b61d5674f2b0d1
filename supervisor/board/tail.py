"""The end of a log: its last line, made harmless for a terminal."""

from __future__ import annotations

import os
import re

_WINDOW_BYTES = 4096
# ECMA-48 control sequences, operating system commands (which set titles, or the clipboard), then
# every other control character; the C1 range too, which some terminals obey.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    # No further than to the next escape: a search for the end would be quadratic in hostile text.
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def sanitize(text: str) -> str:
    """`text` without anything that a terminal would act on, but newlines and tabs."""
    return _ESCAPES.sub("", text)


def last_words(fd: int, limit_bytes: int) -> str:
    """The end of a log, harmless for a terminal."""
    size = os.fstat(fd).st_size
    data = os.pread(fd, limit_bytes, max(0, size - limit_bytes))
    return sanitize(data.decode(errors="replace"))


def last_lines(path: str, *, lines: int, limit_bytes: int) -> list[str]:
    """The last lines of a log, harmless for a terminal, from no more than its last bytes."""
    try:
        with open(path, "rb") as file:
            return last_words(file.fileno(), limit_bytes).splitlines()[-lines:]
    except OSError:
        return []


def last_line(path: str) -> str:
    """The last line of a log that has something in it; empty where there is none."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _WINDOW_BYTES))
            data = file.read(_WINDOW_BYTES)
    except OSError:
        return ""
    for line in reversed(data.decode(errors="replace").splitlines()):
        if text := sanitize(line).strip():
            return text
    return ""
