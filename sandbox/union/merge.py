"""Merging what the upper directory, the layers and the git tree have of one directory."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from sandbox.git import gitattribute
from sandbox.git.gitname import Refusal, refusal
from sandbox.git.smudge import NOTHING, Rules
from sandbox.union import layer
from sandbox.union.node import BORN, ROOT_INO, Directory, Node, Place, Smudged, path_ino
from sandbox.union.stack import LayerStack
from sandbox.union.tree import S_IFGITLINK, S_IFTREE, GitTree
from sandbox.union.upper import Upper, is_opaque, reopen_directory

_GIT_DIRECTORY = stat.S_IFDIR | 0o755
_GIT_FILE = stat.S_IFREG | 0o644
_GIT_EXECUTABLE = stat.S_IFREG | 0o755
_GIT_SYMLINK = stat.S_IFLNK | 0o777

_HAS_ATTRIBUTES = b" " + gitattribute.FILE_NAME + b"\0"

# What a name that git refuses has in it; few trees do, and their names are looked at one by one.
_SUSPECT = re.compile(
    rb"(?i:\.git(?!ignore\0|attributes\0)|git~|gitmod|gi7| \.\.?\0| \0)|\xe2[\x80\x81]|\xef\xbb"
)

# Nested names of grafts: {b"a": {b"b": {}}} for the path a/b.
Grafts = dict[bytes, "Grafts"]


class Merge:
    """Finds the children of directories, and gives every node its inode number."""

    def __init__(
        self,
        tree: GitTree | None,
        stack: LayerStack,
        upper: Upper | None,
        grafts: tuple[str, ...],
        root: Directory,
    ) -> None:
        self._tree = tree
        self._stack = stack
        self._upper = upper
        self._born = BORN
        self._hard_links: dict[int, Node] = {}
        self._linked: dict[tuple[int, int], Node] = {}
        self._grafts: dict[Directory, Grafts] = {}
        # Of the directories of the git tree that have attributes of their own.
        self._rules: dict[Directory, Rules] = {}
        self.nodes: dict[int, Node] = {root.ino: root}
        nested: Grafts = {}
        for path in grafts:
            level = nested
            for name in os.fsencode(path).split(b"/"):
                if name not in (b"", b"."):
                    level = level.setdefault(name, {})
        if nested:
            self._pin(root, nested)

    # -- numbers

    def path_ino(self, parent: Directory, name: bytes) -> int:
        """A free inode number for a file that was there before the mount."""
        ino = path_ino(parent.ino, name)
        while ino in self.nodes:
            ino = ino + 1
        return ino

    def born_ino(self) -> int:
        """An inode number for a file made in this mount."""
        self._born += 1
        return self._born

    def know_hard_link(self, node: Node, inode: int) -> None:
        """Remembers a file of several names, so that all of them lead to this node."""
        self._hard_links[inode] = node
        node.extras().inode = inode

    def complete_links(self, node: Node) -> list[tuple[Directory, bytes]]:
        """All names in the view of a file of a layer that has several there."""
        inode = self._stack.status(node).st_ino
        for path in self._stack.names_of(node.layer, inode):
            directory = self.nodes[ROOT_INO]
            for part in path[:-1]:
                assert isinstance(directory, Directory)
                children = directory.children
                if children is None:
                    children = self.load(directory)
                below = children.get(part)
                if not isinstance(below, Directory) or node.layer not in below.layers:
                    break
                directory = below
            else:
                assert isinstance(directory, Directory)
                if directory.children is None:
                    self.load(directory)
        return node.extras().links

    def drop(self, node: Node) -> None:
        """Forgets a node that nobody can reach any more."""
        self.nodes.pop(node.ino, None)
        if node.extra is not None and node.extra.inode:
            self._hard_links.pop(node.extra.inode, None)

    # -- children

    def load(self, directory: Directory) -> dict[bytes, Node]:
        """The children of a directory; read once, and kept up to date from then on."""
        children: dict[bytes, Node] = {}
        directory.children = children
        try:
            self._merge(directory, children)
        except BaseException:
            directory.children = None
            raise
        return children

    def _merge(self, directory: Directory, children: dict[bytes, Node]) -> None:
        # Names that no lower source adds anything to.
        closed: set[bytes] = set()
        if directory.place is Place.UPPER and self._upper is not None:
            fd = self._upper.fd(directory)
            if directory.is_merged and is_opaque(fd):
                directory.layers, directory.oid = (), None
            self._scan_upper(directory, children, closed, fd)
        for position, index in enumerate(directory.layers):
            fd = self._stack.fd(directory, index)
            if is_opaque(fd):
                directory.layers, directory.oid = directory.layers[: position + 1], None
            self._scan_layer(directory, children, closed, index, fd)
            if len(directory.layers) == position + 1:
                break
        if directory.oid is not None:
            self._scan_tree(directory, children, closed, directory.oid)
        grafts = self._grafts.pop(directory, None)
        if grafts is not None:
            self._add_grafts(directory, children, grafts)

    def _scan_upper(
        self, directory: Directory, children: dict[bytes, Node], closed: set[bytes], fd: int
    ) -> None:
        for name, status in _scan(fd):
            if layer.is_whiteout(status.st_mode, status.st_rdev):
                directory.cover(name)
                closed.add(name)
                continue
            node: Node | None = None
            if stat.S_ISDIR(status.st_mode):
                ino = self.path_ino(directory, name)
                node = Directory(ino, status.st_mode, directory, name, Place.UPPER)
            else:
                closed.add(name)
                if status.st_nlink > 1:
                    node = self._hard_links.get(status.st_ino)
                if node is None:
                    ino = self.path_ino(directory, name)
                    node = Node(ino, status.st_mode, directory, name, Place.UPPER)
                    if status.st_nlink > 1:
                        self.know_hard_link(node, status.st_ino)
                if status.st_nlink > 1:
                    node.extras().links.append((directory, name))
                    if node.parent is None:
                        node.parent, node.name = directory, name
            children[name] = node
            self.nodes[node.ino] = node

    def _scan_layer(
        self,
        directory: Directory,
        children: dict[bytes, Node],
        closed: set[bytes],
        index: int,
        fd: int,
    ) -> None:
        for name, status in _scan(fd):
            mode = status.st_mode
            whiteout = layer.is_whiteout(mode, status.st_rdev)
            child = children.get(name)
            if child is not None and child.place is Place.UPPER and not whiteout:
                directory.cover(name)
            if name in closed:
                continue
            if whiteout:
                closed.add(name)
            elif child is None:
                ino = self.path_ino(directory, name)
                if stat.S_ISDIR(mode):
                    child = Directory(
                        ino, mode, directory, name, Place.LAYER, layer=index, layers=(index,)
                    )
                else:
                    closed.add(name)
                    child = Node(ino, mode, directory, name, Place.LAYER, layer=index)
                    if status.st_nlink > 1:
                        child = self._linked.setdefault((index, status.st_ino), child)
                        ino = child.ino
                        if self._upper is not None:
                            child.extras().links.append((directory, name))
                children[name] = child
                self.nodes[ino] = child
            elif stat.S_ISDIR(mode) and isinstance(child, Directory):
                child.layers += (index,)
            else:
                closed.add(name)

    def _scan_tree(
        self, directory: Directory, children: dict[bytes, Node], closed: set[bytes], oid: bytes
    ) -> None:
        assert self._tree is not None
        nodes = self.nodes
        parent_ino = directory.ino
        data = self._tree.read(oid)
        rules = self._rules_of(directory, data)
        prefix = _path(directory) if rules is not None else b""
        is_suspect = _SUSPECT.search(data) is not None
        for mode, name, entry in self._tree.parse(data):
            if (is_suspect or b"/" in name) and (
                refusal(name, symlink=stat.S_ISLNK(mode)) is not Refusal.NONE
            ):
                continue  # no git would check it out: somebody has crafted this tree
            child = children.get(name)
            if child is not None or name in closed:
                if child is not None and child.place is Place.UPPER:
                    directory.cover(name)
                if name not in closed and isinstance(child, Directory) and mode == S_IFTREE:
                    child.oid = entry
                continue
            ino = path_ino(parent_ino, name)
            if ino in nodes:
                ino = self.path_ino(directory, name)
            if mode == S_IFTREE:
                child = Directory(ino, _GIT_DIRECTORY, directory, name, Place.TREE, entry)
            elif mode == S_IFGITLINK:
                child = Directory(ino, _GIT_DIRECTORY, directory, name, Place.TREE)
                child.children = {}
            elif mode & 0o170000 == stat.S_IFLNK:
                child = Node(ino, _GIT_SYMLINK, directory, name, Place.TREE, entry)
            else:
                git_mode = _GIT_EXECUTABLE if mode & 0o100 else _GIT_FILE
                todo = rules.smudge(prefix + name) if rules is not None else NOTHING
                if todo is NOTHING or todo == NOTHING:
                    child = Node(ino, git_mode, directory, name, Place.TREE, entry)
                else:
                    child = Smudged(ino, git_mode, directory, name, Place.TREE, entry, todo)
            children[name] = child
            nodes[ino] = child

    def _rules_of(self, directory: Directory, data: bytes) -> Rules | None:
        """The conversions in a directory whose git tree has the content `data`; None for none."""
        has_own = _HAS_ATTRIBUTES in data
        if not has_own and not self._rules:
            return None
        rules: Rules | None = None
        above = directory.parent
        while above is not None and rules is None:
            rules = self._rules.get(above)
            above = above.parent
        if has_own:
            assert self._tree is not None
            for mode, name, entry in self._tree.parse(data):
                # git follows no symbolic link here.
                if name == gitattribute.FILE_NAME and stat.S_ISREG(mode):
                    content = self._tree.read(entry)
                    rules = self._rules[directory] = Rules(_path(directory), content, rules)
        return rules if rules is not None and rules.converts else None

    def _add_grafts(
        self, directory: Directory, children: dict[bytes, Node], grafts: Grafts
    ) -> None:
        for name, nested in grafts.items():
            child = children.get(name)
            if child is None:
                ino = self.path_ino(directory, name)
                child = Directory(ino, _GIT_DIRECTORY, directory, name, Place.GRAFT)
                children[name] = child
                self.nodes[ino] = child
            if isinstance(child, Directory):
                self._pin(child, nested)

    def _pin(self, directory: Directory, nested: Grafts) -> None:
        directory.pinned = True
        if nested:
            self._grafts[directory] = nested
            if directory.children is not None:
                self._add_grafts(directory, directory.children, self._grafts.pop(directory))


def _path(directory: Directory) -> bytes:
    """From the top, with a slash at its end; empty for the top."""
    names: list[bytes] = [b""]
    above = directory
    while above.parent is not None:
        names.append(above.name)
        above = above.parent
    return b"/".join(reversed(names))


def _scan(fd: int) -> Iterator[tuple[bytes, os.stat_result]]:
    readable = reopen_directory(fd)
    try:
        with os.scandir(readable) as entries:
            for entry in entries:
                yield os.fsencode(entry.name), entry.stat(follow_symlinks=False)
    finally:
        os.close(readable)
