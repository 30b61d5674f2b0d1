"""What people are told about a seal. Pure."""

from __future__ import annotations

_NOTES_LIMIT = 50


class Notes:
    """What could not be taken into the tree as it was, in words, for people. Bounded."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more = 0

    def add(self, path: bytes, text: str) -> None:
        """Notes something about a path."""
        self.say(f"{shown(path)}: {text}")

    def say(self, text: str) -> None:
        """Notes something."""
        if text in self._lines:
            return
        if len(self._lines) < _NOTES_LIMIT:
            self._lines.append(text)
        else:
            self._more += 1

    def lines(self) -> tuple[str, ...]:
        """All of them."""
        more = (f"and {self._more} more",) if self._more else ()
        return (*self._lines, *more)


def shown(path: bytes) -> str:
    """A path for people: whatever an agent called it, it moves no cursor and breaks no line."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
