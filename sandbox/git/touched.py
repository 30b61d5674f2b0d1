"""Which paths of a lane's working tree may have changed since when: what git's fsmonitor asks.

Pure. The protocol is that of githooks(5), fsmonitor-watchman, version 2: a token, then paths, each
ended by NUL; a path that is "/" stands for all of them. An answer may name paths that have not
changed, and must name all that have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

_NAME = b"nanosup"
FIRST_TOKEN = _NAME + b".0"
"""The token of an index that was made with the snapshot, before there was any lane."""

# A lane can change any number of names, and this is memory of the server's, which no limit of the
# lane's counts. Who asks after more has been forgotten is told that everything may have changed.
_LIMIT_BYTES = 32 << 20
_NOTE_BYTES = 100  # what a path takes besides its length

EVERYTHING = b"/"
UNKNOWN = _NAME + b"\0" + EVERYTHING + b"\0"
"""An answer that is right whatever has changed, and that gives no token to go on from."""


class Touched:
    """The changes of one mount.

    Args:
        mount_id: unlike that of every other mount, so that no token of theirs is taken for ours.
        first: paths that may differ from the snapshot's index from the beginning; called once, when
            somebody asks.
    """

    def __init__(self, mount_id: bytes, first: Callable[[], Iterable[bytes]]) -> None:
        self._prefix = b"%s.%s." % (_NAME, mount_id)
        self._first = first
        self._found: tuple[bytes, ...] | None = None
        # In the order of their last change; once for each number.
        self._changed: dict[bytes, int] = {}
        self._serial = 1
        self._noted_bytes = 0
        self._forgotten = -1  # the serial of the last change that is not known any more

    @property
    def serial(self) -> int:
        """Grows with each answer: what was noted under the same number need not be noted again."""
        return self._serial

    def note(self, path: bytes) -> None:
        """`path` is about to change; a directory that moves ends in a slash."""
        if self._changed.get(path) != self._serial:
            if self._changed.pop(path, None) is None:
                self._noted_bytes += len(path) + _NOTE_BYTES
            if self._noted_bytes > _LIMIT_BYTES:
                self._changed.clear()
                self._noted_bytes = 0
                self._forgotten = self._serial
            self._changed[path] = self._serial

    def answer(self, token: bytes, held: Iterable[bytes] = ()) -> bytes:
        """The whole answer to who last heard `token`.

        `held`: paths that may be changing at this moment, such as files that are open.
        """
        since = self._since(token)
        self._serial += 1
        parts = [b"%s%d" % (self._prefix, self._serial)]
        paths = dict.fromkeys((EVERYTHING,) if since is None else self._paths(since, held))
        parts += (EVERYTHING,) if EVERYTHING in paths else paths
        return b"\0".join(parts) + b"\0"

    def _paths(self, since: int, held: Iterable[bytes]) -> Iterator[bytes]:
        yield from held
        if since == 0:
            yield from self._beginning()
        for path in reversed(self._changed):
            if self._changed[path] < since:
                break
            yield path

    def _since(self, token: bytes) -> int | None:
        """The serial that a token stands for; None for one that is not known."""
        serial = 0
        if token != FIRST_TOKEN:
            number = token.removeprefix(self._prefix)
            if number == token or not number.isdigit():
                return None
            serial = int(number)
        return serial if self._forgotten < serial <= self._serial else None

    def _beginning(self) -> tuple[bytes, ...]:
        if self._found is None:
            self._found = tuple(self._first())
        return self._found


def is_token(name: bytes) -> bool:
    """Whether a name can be what git has for a token: ours, or a time in nanoseconds."""
    return name.startswith(_NAME) or name.isdigit()
