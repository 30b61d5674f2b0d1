"""A register: documents that only ever come to be more, numbered from 1.

    <directory>/0001.json     made once by link(2), never changed; they count up without a gap

For what people ask for while a sprint runs: the order of the documents is the order in which they
were asked for, whoever asked, and a crash leaves all of a document or nothing.
"""

from __future__ import annotations

import os
from typing import Generic, TypeVar

import msgspec

from supervisor.board import disk, document
from supervisor.model.name import attempt_name, attempt_number

_SUFFIX = ".json"
Entry = TypeVar("Entry", bound=msgspec.Struct)


class Register(Generic[Entry]):
    """The register in a directory, which need not exist yet."""

    __slots__ = ("_kind", "path")

    def __init__(self, path: str, kind: type[Entry]) -> None:
        self.path = path
        self._kind = kind

    def append(self, entry: Entry) -> int:
        """Puts an entry after all others, and returns its number.

        Raises:
            NotFoundError: what the register belongs to was removed.
            BoardError: it cannot be written. The board is unchanged.
        """
        with disk.explained(self.path):
            os.stat(os.path.dirname(self.path))  # what is gone must not come back half
            disk.make_directories(self.path)
            tmp = disk.tmp_path(self.path)
            try:
                disk.write_file(tmp, document.encode(entry))
                n = self.highest() + 1
                while True:
                    try:
                        disk.publish_file(tmp, self.file(n))
                        break
                    except FileExistsError:
                        n += 1
            finally:
                disk.remove(tmp)
            disk.sync_published(self.path)
        return n

    def entries(self) -> list[Entry]:
        """All of them, the first first.

        Raises:
            BoardError: one is damaged, or missing.
        """
        return [self.entry(n) for n in range(1, self.highest() + 1)]

    def entry(self, n: int) -> Entry:
        """The n-th. Raises BoardError where it is damaged or missing."""
        entry = document.read(self.file(n), self._kind)
        if entry is None:
            raise document.damaged(self.file(n), "is missing; they count up from 1 without a gap")
        return entry

    def highest(self) -> int:
        """The number of the last entry; 0 where there is none.

        Raises:
            BoardError: the directory cannot be read, or holds a name that is nearly a number.
        """
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise document.damaged(self.path, f"cannot be read: {error.strerror}") from error
        try:
            numbers = (attempt_number(n.removesuffix(_SUFFIX)) for n in names)
            return max((number or 0 for number in numbers), default=0)
        except ValueError as error:
            raise document.damaged(self.path, f"holds a name that is wrong: {error}") from error

    def file(self, n: int) -> str:
        """Where the n-th is, or will be."""
        return os.path.join(self.path, f"{attempt_name(n)}{_SUFFIX}")
