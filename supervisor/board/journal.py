"""The journal of a sprint: what happened, in order, for people and for `events`. Decides nothing.

One JSON object a line, appended by one write(2) with O_APPEND, so that writers need no lock. Each
record is written as newline, object, newline: a line that a crash or a full disk tore stays alone
on its line, and never swallows the record after it. Blank lines mean nothing. It is not written
through: the board's documents are, and they are what counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from supervisor import clock, text
from supervisor.board import disk
from supervisor.errors import BoardError

RECORD_LIMIT_BYTES = 64 << 10
_CHUNK_BYTES = 64 << 10


class Event(msgspec.Struct, frozen=True):
    """Something that happened.

    Attributes:
        at: UTC, RFC 3339.
        event: what, in the words of docs/board.md.
        end: offset in the journal after this event, to go on reading from.
    """

    at: str
    event: str
    fields: dict[str, Any]
    end: int


class Journal:
    """A journal, which need not exist yet."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def append(self, event: str, /, **fields: Any) -> None:
        """Writes down that something happened now.

        Raises:
            BoardError: it cannot be written; at worst half a line is left, which readers skip.
            ValueError: the record would be longer than RECORD_LIMIT_BYTES.
        """
        data = line(event, fields)
        with disk.explained(self.path):
            fd = os.open(
                self.path,
                os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
            try:
                # Never a second write for the rest: another writer may have come in between.
                if os.write(fd, data) != len(data):
                    raise BoardError(
                        f"there is no space left for {self.path}",
                        hint="Free some space; only a line of the journal was lost.",
                    )
            finally:
                os.close(fd)

    def note(self, event: str, /, **fields: Any) -> None:
        """As `append`, for who goes on without it: nothing depends on the journal, and a full disk
        must not end what runs."""
        try:
            self.append(event, **fields)
        except BoardError:
            pass

    def read(self, offset: int = 0) -> Iterator[Event]:
        """Yields the events from an offset (an earlier event's `end`, or 0) on.

        Ends at the last whole line; lines that are torn, damaged or too long are skipped. Uses
        no more memory than a record, however long the journal is.

        Raises:
            BoardError: the journal cannot be read.
        """
        try:
            with open(self.path, "rb", buffering=_CHUNK_BYTES) as file:
                file.seek(offset)
                yield from self._events(file, offset)
        except FileNotFoundError:
            return
        except OSError as error:
            raise BoardError(f"{self.path} cannot be read: {error.strerror}") from error

    @staticmethod
    def _events(file: Any, offset: int) -> Iterator[Event]:
        whole = True  # whether `line` starts where a line starts
        while line := file.readline(RECORD_LIMIT_BYTES + 1):
            offset += len(line)
            ends = line.endswith(b"\n")
            if ends and whole and (event := _parse(line, offset)) is not None:
                yield event
            whole = ends


def line(event: str, fields: Mapping[str, Any]) -> bytes:
    """A record of what happens now, for one write(2).

    Raises:
        ValueError: it would be longer than RECORD_LIMIT_BYTES.
    """
    record = text.encode({"at": clock.utc_now(), "event": event, **fields})
    if len(record) > RECORD_LIMIT_BYTES:
        raise ValueError(f"a record of {len(record)} bytes is too long for the journal")
    return b"\n" + record + b"\n"


def _parse(line: bytes, end: int) -> Event | None:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    at, event = record.pop("at", None), record.pop("event", None)
    if not isinstance(at, str) or not isinstance(event, str):
        return None
    return Event(at, event, record, end)
