"""Reading ahead gives what would have been read, and only for who reads files in their order."""

from __future__ import annotations

import errno
import stat

from hypothesis import given
from hypothesis import strategies as st

from sandbox.union.ahead import Ahead
from sandbox.union.node import Directory, Node, Place

_FILE = stat.S_IFREG | 0o644


class Tree:
    """Directories of files; what was read of them, in order."""

    def __init__(self, *counts: int, size: int = 100) -> None:
        self.size = size
        self.broken: set[Node] = set()
        self.read: list[Node] = []
        self.directories = [
            self._directory(number + 2, count) for number, count in enumerate(counts)
        ]
        self.ahead = Ahead(lambda _node: self.size, self._read)

    def _directory(self, ino: int, count: int) -> Directory:
        made = Directory(ino, stat.S_IFDIR | 0o755, None, b"d", Place.TREE)
        made.children = {}
        for number in range(count):
            name = b"%d" % number
            made.children[name] = Node(ino << 20 | number, _FILE, made, name, Place.TREE, b"oid")
        return made

    def _read(self, node: Node) -> bytes:
        if node in self.broken:
            raise OSError(errno.EIO, "damaged")
        self.read.append(node)
        return b"%d" % node.ino

    def files(self, number: int = 0) -> list[Node]:
        return list((self.directories[number].children or {}).values())

    def ask(self, node: Node) -> bool:
        """As a mount does. Whether the content was there already."""
        data = self.ahead.take(node)
        assert data in (None, b"%d" % node.ino)
        self.ahead.go_on()
        return data is not None


def test_who_reads_two_files_in_their_order_finds_all_others_read() -> None:
    tree = Tree(5)
    assert [tree.ask(file) for file in tree.files()] == [False, False, True, True, True]
    assert tree.read == tree.files()[2:]


def test_who_begins_in_the_middle_does_so_too() -> None:
    tree = Tree(9)
    assert [tree.ask(file) for file in tree.files()[4:]] == [False, False, True, True, True]


def test_what_git_reads_in_every_directory_says_nothing() -> None:
    tree = Tree(6)
    files = tree.files()
    files[0].name, files[1].name = b".gitattributes", b".gitignore"
    assert [tree.ask(file) for file in files[:3]] == [False] * 3
    assert tree.read == []
    assert [tree.ask(file) for file in files[3:]] == [False, True, True]


def test_a_single_file_has_nothing_else_read() -> None:
    tree = Tree(9)
    tree.ask(tree.files()[4])
    assert tree.read == []


def test_some_may_be_left_out() -> None:
    tree = Tree(20)
    files = tree.files()
    assert tree.ask(files[0]) is False
    assert tree.ask(files[5]) is False
    assert tree.ask(files[6]) is True


def test_who_reads_in_no_order_has_little_read_in_vain() -> None:
    tree = Tree(400)
    for file in tree.files()[::-1]:
        tree.ask(file)
    assert len(tree.read) <= 1


def test_readers_of_several_directories_are_told_apart() -> None:
    tree = Tree(4, 4, 4)
    turns = zip(tree.files(0), tree.files(1), tree.files(2), strict=True)
    assert [tree.ask(file) for turn in turns for file in turn] == [False] * 6 + [True] * 6


def test_what_many_directories_hold_is_let_go_of() -> None:
    tree = Tree(*[3] * 50)
    for number in range(50):
        tree.ask(tree.files(number)[0])
        tree.ask(tree.files(number)[1])
    assert tree.ask(tree.files(0)[2]) is False
    assert tree.ask(tree.files(49)[2]) is True


def test_large_files_are_not_read_ahead() -> None:
    tree = Tree(4, size=1 << 20)
    assert [tree.ask(file) for file in tree.files()] == [False] * 4
    assert tree.read == []


def test_what_was_changed_meanwhile_is_not_read() -> None:
    tree = Tree(3)
    tree.ask(tree.files()[0])
    tree.ahead.take(tree.files()[1])
    assert tree.ahead.due is not None
    tree.files()[2].place = Place.UPPER
    tree.ahead.go_on()
    assert tree.read == []


def test_only_files_of_the_tree_are_read() -> None:
    tree = Tree(6)
    children = tree.directories[0].children or {}
    files = tree.files()
    children[b"1"] = Directory(7, stat.S_IFDIR | 0o755, tree.directories[0], b"1", Place.TREE)
    children[b"2"].place = Place.LAYER
    children[b"3"].mode = stat.S_IFLNK | 0o777
    assert tree.ask(files[0]) is False
    assert tree.ask(files[4]) is False
    assert tree.ask(files[5]) is True
    assert tree.read == [files[5]]


def test_a_damaged_file_is_for_who_asks_for_it() -> None:
    tree = Tree(4)
    files = tree.files()
    tree.broken.add(files[2])
    assert [tree.ask(file) for file in files] == [False, False, False, True]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), max_size=60))
def test_whatever_is_asked_for_is_never_answered_by_another_file(
    asked: list[tuple[int, int]],
) -> None:
    tree = Tree(8, 8, 8)
    for directory, file in asked:
        tree.ask(tree.files(directory)[file])
    assert len(tree.read) <= len(asked)
