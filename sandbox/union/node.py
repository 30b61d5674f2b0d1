"""The nodes of a mounted tree: what the server knows of each file.

A node lives as long as its name does or the kernel refers to it. Tens of thousands of them
exist at once, so they are slotted, and what few of them need is in `Extra`.
"""

from __future__ import annotations

import enum
import stat
from zlib import crc32

from sandbox.git.smudge import Smudge

ROOT_INO = 1

_MIX = 6364136223846793005  # Knuth's multiplier for linear congruential generators modulo 2**64
_PATH_MASK = (1 << 61) - 1
# Numbers given to files born in this mount: apart from those derived from paths.
BORN = 1 << 61


class Place(enum.Enum):
    """Where a node's content and attributes are."""

    TREE = "the base git tree"
    LAYER = "a sealed layer"
    UPPER = "the upper directory"
    GRAFT = "nowhere: an empty directory for the kernel to bind over"


class Handle:
    """An open file.

    `fd` is -1 while the content is a git blob. After copy-up it is replaced, so that a reader
    that opened the file before sees what a writer does now.
    """

    __slots__ = ("backing", "data", "fd", "node")

    def __init__(self, node: Node, fd: int) -> None:
        self.node = node
        self.fd = fd
        self.data: bytes | None = None
        self.backing = 0


class Extra:
    """What only open, unlinked or hard-linked nodes need.

    Attributes:
        handles: open files of this node.
        anchor: O_PATH descriptor that keeps an unlinked file reachable, or -1.
        links: (directory, name) of every known name of a file with several.
        inode: inode number in the upper directory of a file with several names, or 0.
    """

    __slots__ = ("anchor", "handles", "inode", "links")

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.anchor = -1
        self.links: list[tuple[Directory, bytes]] = []
        self.inode = 0


class Node:
    """A file, symlink or special file; and what it has in common with directories.

    Attributes:
        ino: inode number, unique in and constant for the life of the mount.
        mode: file type and permissions.
        parent: directory that holds it; None once the last name is gone.
        name: name in `parent`.
        lookups: references that the kernel holds.
        place: where content and attributes are.
        layer: index of the sealed layer (Place.LAYER).
        oid: object id (Place.TREE).
        size: size of the git object in bytes, -1 until asked for (Place.TREE).
    """

    __slots__ = (
        "extra",
        "ino",
        "layer",
        "lookups",
        "mode",
        "name",
        "oid",
        "parent",
        "place",
        "size",
    )

    def __init__(
        self,
        ino: int,
        mode: int,
        parent: Directory | None,
        name: bytes,
        place: Place,
        oid: bytes | None = None,
        layer: int = -1,
    ) -> None:
        self.ino = ino
        self.mode = mode
        self.parent = parent
        self.name = name
        self.lookups = 0
        self.place = place
        self.oid = oid
        self.layer = layer
        self.size = -1
        self.extra: Extra | None = None

    def extras(self) -> Extra:
        """The extra state, made on first use."""
        extra = self.extra
        if extra is None:
            extra = self.extra = Extra()
        return extra


class Smudged(Node):
    """A file of the git tree that is shown as a checkout would make it, not as the blob is."""

    __slots__ = ("smudge",)

    def __init__(
        self,
        ino: int,
        mode: int,
        parent: Directory | None,
        name: bytes,
        place: Place,
        oid: bytes,
        smudge: Smudge,
    ) -> None:
        super().__init__(ino, mode, parent, name, place, oid)
        self.smudge = smudge


class Answer(Node):
    """A file that is made for who looks it up, and is nowhere else."""

    __slots__ = ("content",)

    def __init__(self, ino: int, parent: Directory, name: bytes, content: bytes) -> None:
        super().__init__(ino, stat.S_IFREG | 0o444, parent, name, Place.TREE, b"")
        self.content = content
        self.size = len(content)


class Directory(Node):
    """A directory, merged from any number of places.

    Attributes:
        children: by name, all of them; None until the directory is first looked into.
        covered: names that exist in lower layers and are covered by the upper directory, by a
            whiteout if `children` has no such name.
        layers: sealed layers that have this directory, top to bottom.
        oid: the git tree that is part of it, or None.
        fd: O_PATH descriptor of it in the upper directory, or -1.
        pinned: a graft is at or below it: it cannot be removed or renamed.
    """

    __slots__ = ("children", "covered", "fd", "layers", "pinned")

    def __init__(
        self,
        ino: int,
        mode: int,
        parent: Directory | None,
        name: bytes,
        place: Place,
        oid: bytes | None = None,
        layer: int = -1,
        layers: tuple[int, ...] = (),
    ) -> None:
        super().__init__(ino, mode, parent, name, place, oid, layer)
        self.children: dict[bytes, Node] | None = None
        self.covered: set[bytes] = _NOTHING
        self.layers = layers
        self.fd = -1
        self.pinned = False

    @property
    def is_merged(self) -> bool:
        """Whether anything below the upper directory is part of it."""
        return bool(self.layers) or self.oid is not None

    def cover(self, name: bytes) -> None:
        """Notes that the upper directory covers `name` of a lower layer."""
        if self.covered is _NOTHING:
            self.covered = set()
        self.covered.add(name)


# Shared by the many directories that cover nothing; replaced on the first `cover`.
_NOTHING: set[bytes] = set()


def path_ino(parent_ino: int, name: bytes) -> int:
    """An inode number that depends on the path alone, so that each mount of a tree has the same.

    Collisions are possible and left to the caller.
    """
    return ((parent_ino * _MIX + crc32(name) * 0x9E3779B97F4A7C15) >> 1 & _PATH_MASK) | 2


def is_dir(mode: int) -> bool:
    """Tells whether `mode` is a directory's."""
    return stat.S_ISDIR(mode)
