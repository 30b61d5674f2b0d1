"""Open directories: what cookies of readdir(3) mean while names come and go."""

from __future__ import annotations

from sandbox.mount import wire
from sandbox.mount.reply import Replies
from sandbox.union.node import Directory, Node


class Listings:
    """Lists directories, by handle or, where nothing changes, by directory alone.

    Cookies number the names that were there when reading began: names that vanish are left out,
    and no other name moves.
    """

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._names: dict[int, list[bytes]] = {}
        self._last: tuple[int, list[bytes]] = (0, [])

    def open(self, number: int) -> None:
        """Begins to read by the handle `number`."""
        self._names[number] = []

    def close(self, number: int) -> None:
        """Forgets a handle."""
        self._names.pop(number, None)

    def _numbered(
        self, number: int, directory: Directory, start: int, children: dict[bytes, Node]
    ) -> list[bytes]:
        if number == 0:
            if self._last[0] != directory.ino:
                self._last = (directory.ino, list(children))
            return self._last[1]
        if start == 0:
            self._names[number] = list(children)
        return self._names[number]

    def batch(
        self,
        number: int,
        directory: Directory,
        children: dict[bytes, Node],
        start: int,
        room: int,
        *,
        is_plus: bool,
    ) -> list[bytes]:
        """The entries from cookie `start` on, as many as `room` bytes hold.

        `number` is the handle, 0 for none. Raises KeyError for one that is not open.
        """
        names = self._numbered(number, directory, start, children)
        dirent, dirent_plus = self._replies.dirent, self._replies.dirent_plus
        base = wire.DIRENT_PLUS.size if is_plus else wire.DIRENT.size
        parts: list[bytes] = []
        for position in range(start, 2):
            node: Node = directory if position == 0 else directory.parent or directory
            name = b"." if position == 0 else b".."
            room -= base + 8
            if room < 0:
                return parts
            parts.append(
                dirent_plus(node, name, position + 1, is_counted=False)
                if is_plus
                else dirent(node, name, position + 1)
            )
        get = children.get
        for at in range(max(start - 2, 0), len(names)):
            name = names[at]
            child = get(name)
            if child is None:
                continue
            room -= base + (len(name) + 7 & ~7)
            if room < 0:
                break
            parts.append(
                dirent_plus(child, name, at + 3, is_counted=True)
                if is_plus
                else dirent(child, name, at + 3)
            )
        return parts
