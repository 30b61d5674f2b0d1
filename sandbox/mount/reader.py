"""Reads files of a read-only mount that nobody has opened: the kernel opens them by itself."""

from __future__ import annotations

import os
from collections import OrderedDict

from sandbox.union.counter import Kind
from sandbox.union.node import Node, Place
from sandbox.union.overlay import Overlay

_BLOBS_BYTES = 32 << 20
_DESCRIPTORS = 64


class Reader:
    """Content by node. Keeps what is likely to be asked for next, within bounds.

    A blob that a single read takes whole is not kept: the kernel keeps it. Of larger ones the
    inflated content is, since each further read would inflate all of it again.
    """

    def __init__(self, overlay: Overlay, counts: memoryview[int]) -> None:
        self._overlay = overlay
        self._counts = counts
        self._blobs: OrderedDict[int, bytes] = OrderedDict()
        self._held_bytes = 0
        self._descriptors: OrderedDict[int, int] = OrderedDict()

    def descriptor(self, node: Node) -> int:
        """A descriptor of a file that is in a layer, -1 for what is in the git tree.

        Valid until the next call.
        """
        if node.place is not Place.LAYER:
            return -1
        held = self._descriptors
        fd = held.get(node.ino, -1)
        if fd >= 0:
            held.move_to_end(node.ino)
            return fd
        while len(held) >= _DESCRIPTORS:
            os.close(held.popitem(last=False)[1])
        fd = held[node.ino] = self._overlay.stack.open(node)
        return fd

    def read(self, node: Node, offset: int, count: int) -> bytes | memoryview:
        """pread(2) of what is in the git tree."""
        data = self._blobs.get(node.ino)
        if data is not None:
            self._counts[Kind.BLOB_HIT] += 1
            self._blobs.move_to_end(node.ino)
        else:
            data = self._overlay.blobs.content(node)
            if offset == 0 and count >= len(data):
                return data
            self._keep(node.ino, data)
        return memoryview(data)[offset : offset + count]

    def _keep(self, number: int, data: bytes) -> None:
        self._blobs[number] = data
        self._held_bytes += len(data)
        while self._held_bytes > _BLOBS_BYTES and len(self._blobs) > 1:
            self._held_bytes -= len(self._blobs.popitem(last=False)[1])

    def close(self) -> None:
        """Closes what is open."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
