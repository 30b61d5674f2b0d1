"""Reads ahead: whoever reads the files of a directory in their order soon asks for the next.

Inflating a blob takes as long as the rest of an answer. It is done while the one who asked is busy
with what it got, so that the next answer is ready when it is asked for.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from sandbox.union.node import Node, Place

# One is held for each directory that is being read. Larger ones are worth waiting for.
_FILE_BYTES = 1 << 16
# As many readers may be at work at once.
_DIRECTORIES = 4
# How far into a directory its first reader is looked for, and how many files one may leave out.
_FIRST = 512
_LEFT_OUT = 16


class _Track:
    """A directory that is being read.

    Attributes:
        following: its files after `next`.
        next: the file that will be asked for; None: nobody knows.
        data: its content, if that has been read.
    """

    __slots__ = ("data", "following", "next")

    def __init__(self, files: Iterator[Node]) -> None:
        self.following = files
        self.next: Node | None = None
        self.data: bytes | None = None

    def find(self, node: Node, among: int) -> bool:
        """Goes on to the file after `node`. False where that is not one of the next `among`."""
        for file in islice(self.following, among):
            if file is node:
                self.next = next(self.following, None)
                return True
        self.following = iter(())
        self.next = None
        return False


class Ahead:
    """What was read ahead in one mount.

    Args:
        size: of a file of the git tree, in bytes.
        read: its content.

    Both may raise OSError.

    Attributes:
        due: the directory whose next file is to be read now, if any.
    """

    def __init__(self, size: Callable[[Node], int], read: Callable[[Node], bytes]) -> None:
        self._size = size
        self._read = read
        self._tracks: OrderedDict[int, _Track] = OrderedDict()
        self.due: _Track | None = None

    def take(self, node: Node) -> bytes | None:
        """The content of a file that is asked for, if it has been read ahead."""
        directory = node.parent
        if directory is None or directory.children is None or _is_gits(node):
            return None
        track = self._tracks.get(directory.ino)
        if track is None:
            self._begin(directory.ino, directory.children, node)
            return None
        data, track.data = track.data, None
        if track.next is node:
            track.next = next(track.following, None)
            self.due = track
            return data
        if track.next is not None and track.find(node, _LEFT_OUT):
            self.due = track
        return None

    def go_on(self) -> None:
        """Reads the next file, if it is known. To be called when nobody waits for an answer."""
        track, self.due = self.due, None
        if track is None or (node := track.next) is None:
            return
        try:
            # It may have been changed or removed since.
            if node.place is Place.TREE and self._size(node) <= _FILE_BYTES:
                track.data = self._read(node)
        except OSError:
            pass  # whoever asks for it will be told

    def _begin(self, directory: int, children: Mapping[bytes, Node], node: Node) -> None:
        # A copy: names come and go while it is read.
        track = self._tracks[directory] = _Track(filter(_is_blob, list(children.values())))
        if len(self._tracks) > _DIRECTORIES:
            self._tracks.popitem(last=False)
        # A single file says nothing: the second in order will.
        track.find(node, _FIRST)


def _is_blob(node: Node) -> bool:
    return node.place is Place.TREE and stat.S_ISREG(node.mode) and not _is_gits(node)


def _is_gits(node: Node) -> bool:
    """Whether git itself reads it in every directory (`.gitignore`, `.gitattributes`)."""
    return node.name.startswith(b".git")
