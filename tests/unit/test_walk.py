"""Looking ahead of a walk loads what is listed next, and only for who lists in order."""

from __future__ import annotations

import errno
import stat

from sandbox.union.node import Directory, Node, Place
from sandbox.union.walk import Walk

_TREE = stat.S_IFDIR | 0o755
_FILE = stat.S_IFREG | 0o644


class Tree:
    """Directories three deep, of which only the top is loaded; what was loaded and sized."""

    def __init__(self) -> None:
        self.loaded: list[bytes] = []
        self.sized: list[bytes] = []
        self.tree_bytes = 100
        self.is_broken = False
        self.walk = Walk(self._load, lambda _directory: self.tree_bytes, self._size)
        self.top = self._directory(b"", None)
        self.children(self.top)

    def _directory(self, name: bytes, parent: Directory | None) -> Directory:
        path = b"" if parent is None else parent.name + b"/" + name
        return Directory(hash(path), _TREE, parent, path, Place.TREE, b"oid")

    def children(self, directory: Directory) -> dict[bytes, Node]:
        if directory.children is None:
            directory.children = {}
            if directory.name.count(b"/") < 3:
                for name in (b"a", b"b", b"c"):
                    directory.children[name] = self._directory(name, directory)
            path = directory.name + b"/f"
            directory.children[b"f"] = Node(hash(path), _FILE, directory, path, Place.TREE, b"oid")
        return directory.children

    def at(self, path: str) -> Directory:
        found = self.top
        for name in path.encode().split(b"/")[1:]:
            child = self.children(found)[name]
            assert isinstance(child, Directory)
            found = child
        return found

    def _load(self, directory: Directory) -> dict[bytes, Node]:
        if self.is_broken:
            raise OSError(errno.EIO, "damaged")
        self.loaded.append(directory.name)
        return self.children(directory)

    def _size(self, node: Node) -> int:
        self.sized.append(node.name)
        return 1

    def list(self, *paths: str) -> None:
        """As a mount does."""
        for path in paths:
            directory = self.at(path)
            self.children(directory)
            self.walk.listed(directory)


def test_who_lists_two_directories_in_order_finds_the_next_loaded() -> None:
    tree = Tree()
    tree.list("")
    assert tree.loaded == []
    tree.list("/a")
    assert tree.loaded == [b"/a/a"]
    assert tree.sized == [b"/a/a/f"]


def test_a_whole_walk_is_one_step_behind() -> None:
    tree = Tree()
    order: list[str] = []

    def find(directory: Directory) -> None:
        path = directory.name.decode()
        order.append(path)
        tree.list(path)
        for child in tree.children(directory).values():
            if isinstance(child, Directory):
                find(child)

    find(tree.top)
    assert len(order) == 1 + 3 + 9 + 27
    assert [path.decode() for path in tree.loaded] == order[2:]


def test_who_passes_a_directory_by_still_walks() -> None:
    tree = Tree()
    tree.list("", "/b", "/b/a")
    assert tree.loaded == [b"/b/a", b"/b/a/a"]


def test_who_jumps_about_has_nothing_loaded() -> None:
    tree = Tree()
    tree.list("/b", "/a", "/c/b", "/a", "/b", "/a/c")
    assert tree.loaded == []


def test_a_walk_begins_anew_anywhere() -> None:
    tree = Tree()
    tree.list("", "/a", "/c/b", "/c/b/a")
    assert tree.loaded == [b"/a/a", b"/c/b/b"]


def test_large_directories_wait_until_they_are_asked_for() -> None:
    tree = Tree()
    tree.tree_bytes = 1 << 20
    tree.list("", "/a", "/a/a")
    assert tree.loaded == []


def test_what_somebody_has_changed_is_left_alone() -> None:
    tree = Tree()
    tree.list("")
    tree.at("/a/a").place = Place.UPPER
    tree.list("/a")
    assert tree.loaded == []


def test_damage_is_told_to_who_asks_not_to_who_does_not() -> None:
    tree = Tree()
    tree.is_broken = True
    tree.list("", "/a", "/a/a")
    assert tree.loaded == []
