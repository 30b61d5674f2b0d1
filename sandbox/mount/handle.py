"""The open files of a mount, by the numbers that the kernel has for them."""

from __future__ import annotations

from sandbox.union.node import Handle


class Handles(dict[int, Handle]):
    """Open files. Numbers are used once."""

    def __init__(self) -> None:
        super().__init__()
        self._serial = 0

    def number(self) -> int:
        """A number that was never given out."""
        self._serial += 1
        return self._serial

    def keep(self, handle: Handle) -> int:
        """Adds an open file; returns its number."""
        number = self.number()
        self[number] = handle
        return number
