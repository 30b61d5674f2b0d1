"""Looks ahead of a walk: whoever lists directories depth first soon asks for the next.

To read a directory's git tree and the sizes of its files takes longer than to tell of them. It is
done while the one who walks is busy with the directory before.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from itertools import islice

from sandbox.union.node import Directory, Node, Place, Smudged

# Of a git tree: some thousand entries. What takes longer is not worth being wrong about.
_TREE_BYTES = 1 << 16
_LEFT_OUT = 16


class Walk:
    """The walk that is under way in one mount, if any.

    Args:
        load: reads the children of a directory.
        tree_size: of a git tree, in bytes.
        file_size: of a file of the git tree, in bytes.

    All three may raise OSError.
    """

    def __init__(
        self,
        load: Callable[[Directory], dict[bytes, Node]],
        tree_size: Callable[[Directory], int],
        file_size: Callable[[Node], int],
    ) -> None:
        self._load = load
        self._tree_size = tree_size
        self._file_size = file_size
        self._levels: list[Iterator[Directory]] = []
        self._next: Directory | None = None

    def listed(self, directory: Directory) -> None:
        """A directory was listed to its end, and nobody waits for an answer: reads the next one
        of a walk."""
        # The first says nothing: the second in order will.
        is_walk = directory is self._next or self._leaves_out(directory)
        if not is_walk:
            self._levels.clear()
        if directory.children:
            below = [c for c in directory.children.values() if isinstance(c, Directory)]
            self._levels.append(iter(below))
        self._next = self._after()
        if is_walk and self._next is not None:
            self._read(self._next)

    def _read(self, directory: Directory) -> None:
        if directory.place is not Place.TREE:
            return
        if directory.oid is None or directory.children is not None:
            return
        try:
            if self._tree_size(directory) > _TREE_BYTES:
                return
            for child in self._load(directory).values():
                is_blob = child.place is Place.TREE and stat.S_ISREG(child.mode)
                if is_blob and not isinstance(child, Smudged):
                    self._file_size(child)
        except OSError:
            pass  # whoever asks for it will be told

    def _leaves_out(self, directory: Directory) -> bool:
        """Whether the walk goes on a little further: `find -prune` passes by what it is told."""
        following = self._levels[-1] if self._levels else iter(())
        return any(other is directory for other in islice(following, _LEFT_OUT))

    def _after(self) -> Directory | None:
        while self._levels:
            for directory in self._levels[-1]:
                return directory
            self._levels.pop()
        return None
