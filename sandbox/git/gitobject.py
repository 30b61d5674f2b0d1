"""Git objects as bytes: trees, commits, object names (gitformat-pack(5), git-fsck(1)).

Pure. Object names are 20 raw bytes here; hex is for people and for other modules' interfaces.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

import pygit2

from sandbox.git.gitname import Refusal, refusal

MODE_FILE = 0o100644
MODE_EXECUTABLE = 0o100755
MODE_SYMLINK = 0o120000
MODE_TREE = 0o040000
MODE_GITLINK = 0o160000

_MODES = {
    b"100644": MODE_FILE,
    b"100755": MODE_EXECUTABLE,
    b"120000": MODE_SYMLINK,
    b"40000": MODE_TREE,
    b"160000": MODE_GITLINK,
    # Written by git before 2005 and by some importers; git reads it as 100644.
    b"100664": MODE_FILE,
    b"040000": MODE_TREE,
}
_MODE_TEXT = {
    MODE_FILE: b"100644",
    MODE_EXECUTABLE: b"100755",
    MODE_SYMLINK: b"120000",
    MODE_TREE: b"40000",
    MODE_GITLINK: b"160000",
}

# Above this libgit2 is given no buffer to hash: the file is streamed through hashlib.
_COLLISION_CHECK_LIMIT = 64 << 20


class Kind(IntEnum):
    """Object types, with the numbers that packs use."""

    COMMIT = 1
    TREE = 2
    BLOB = 3
    TAG = 4


_KIND_TEXT = {Kind.COMMIT: b"commit", Kind.TREE: b"tree", Kind.BLOB: b"blob", Kind.TAG: b"tag"}

Tree = dict[bytes, tuple[int, bytes]]
"""A directory: name → (mode, oid)."""

EMPTY_TREE = bytes.fromhex("4b825dc642cb6eb9a060e54bf8d69288fbee4904")


class FormatError(ValueError):
    """Raised when bytes are not the object that they are said to be, or one that git refuses."""


def header(kind: Kind, size: int) -> bytes:
    """What git hashes before the content."""
    return b"%s %d\0" % (_KIND_TEXT[kind], size)


def name_object(kind: Kind, data: bytes) -> bytes:
    """The object's name.

    Blobs come from agents, so they are hashed by libgit2, whose SHA-1 detects the known collision
    attacks and refuses them; the rest has a syntax that leaves no room for the blocks they need.

    Raises:
        FormatError: the content is a collision attack.
    """
    if kind is Kind.BLOB and len(data) <= _COLLISION_CHECK_LIMIT:
        try:
            return bytes(pygit2.hash(data).raw)
        except pygit2.GitError as error:
            raise FormatError(str(error)) from error
    return hashlib.sha1(header(kind, len(data)) + data, usedforsecurity=False).digest()


def name_stream(source: BinaryIO, size: int) -> bytes:
    """The name of a blob of `size` bytes that is too large to hold in memory."""
    digest = hashlib.sha1(header(Kind.BLOB, size), usedforsecurity=False)
    while chunk := source.read(1 << 20):
        digest.update(chunk)
    return digest.digest()


def parse_tree(data: bytes) -> Tree:
    """Entries in stored order.

    Raises:
        FormatError: the tree is cut off, or has a mode that git does not know.
    """
    tree: Tree = {}
    position, end = 0, len(data)
    try:
        while position < end:
            space = data.index(b" ", position)
            null = data.index(b"\0", space)
            oid = data[null + 1 : null + 21]
            if len(oid) != 20:
                raise FormatError("a tree is cut off")
            tree[data[space + 1 : null]] = (_MODES[data[position:space]], oid)
            position = null + 21
    except KeyError as error:
        raise FormatError(f"a tree has an entry of unknown mode {error}") from error
    except ValueError as error:
        raise FormatError("a tree is cut off") from error
    return tree


def _sort_key(entry: tuple[bytes, tuple[int, bytes]]) -> bytes:
    name, (mode, _oid) = entry
    return name + b"/" if mode == MODE_TREE else name


def sorted_entries(tree: Tree) -> list[tuple[bytes, tuple[int, bytes]]]:
    """Entries as git sorts them: as if directories' names ended in a slash."""
    return sorted(tree.items(), key=_sort_key)


def build_tree(tree: Tree) -> bytes:
    """The tree as git stores it."""
    return b"".join(
        b"%s %s\0%s" % (_MODE_TEXT[mode], name, oid) for name, (mode, oid) in sorted_entries(tree)
    )


def check_tree(data: bytes) -> Tree:
    """Parses a tree that an agent made, as strictly as `git fsck --strict` does.

    Raises:
        FormatError: anything that git would refuse, including names that git forbids.
    """
    tree = parse_tree(data)
    for name, (mode, oid) in tree.items():
        reason = refusal(name, symlink=mode == MODE_SYMLINK)
        if reason is not Refusal.NONE:
            raise FormatError(f"a tree has an entry whose name is {reason.value}")
        if oid == bytes(20):
            raise FormatError("a tree has an entry with a null object name")
    if build_tree(tree) != data:
        # Out of order, duplicated (the dictionary dropped one), or a mode written oddly.
        raise FormatError("a tree is not in canonical form")
    return tree


@dataclass(frozen=True, slots=True)
class Commit:
    """What of a commit matters here."""

    tree: bytes
    parents: tuple[bytes, ...]


_PERSON = rb"[^<>\n\0]*<[^<>\n\0]*> \d{1,19} [+-]\d{4}"
_COMMIT = re.compile(
    rb"tree (?P<tree>[0-9a-f]{40})\n"
    rb"(?P<parents>(?:parent [0-9a-f]{40}\n)*)"
    rb"author " + _PERSON + rb"\ncommitter " + _PERSON + rb"\n"
    # Further headers: encoding, gpgsig (with continuation lines), mergetag, …
    rb"(?:[A-Za-z][A-Za-z0-9-]* [^\n\0]*\n(?: [^\n\0]*\n)*)*"
    rb"(?:\n[^\0]*)?",
)


def parse_commit(data: bytes) -> Commit:
    """Parses a commit that the host's repository holds, which may be an old or odd one.

    Raises:
        FormatError: it does not begin with a tree and parents.
    """
    lines = data.split(b"\n\n", 1)[0].split(b"\n")
    try:
        if not lines[0].startswith(b"tree "):
            raise FormatError("a commit names no tree")
        parents = []
        for line in lines[1:]:
            if not line.startswith(b"parent "):
                break
            parents.append(bytes.fromhex(line[7:47].decode()))
        return Commit(bytes.fromhex(lines[0][5:45].decode()), tuple(parents))
    except UnicodeDecodeError as error:
        raise FormatError("a commit is malformed") from error


def check_commit(data: bytes) -> Commit:
    """Parses a commit that an agent made, as strictly as `git fsck` does.

    Raises:
        FormatError: git would refuse it.
    """
    match = _COMMIT.fullmatch(data)
    if match is None:
        raise FormatError("a commit is malformed")
    lines = match["parents"].splitlines()
    parents = tuple(bytes.fromhex(line[7:].decode()) for line in lines)
    return Commit(bytes.fromhex(match["tree"].decode()), parents)


def clean_person(person: str) -> str:
    """`Name <mail>` without what would break a commit's header."""
    name, _, mail = person.partition("<")
    crud = {ord(c): None for c in "<>\n\0"}
    return f"{name.translate(crud).strip() or 'nanosup'} <{mail.translate(crud).strip()}>"


def build_commit(
    *, tree: bytes, parents: Iterable[bytes], author: str, when_s: int, message: str
) -> bytes:
    """A commit by `author` ("Name <mail>") at `when_s` (seconds since 1970, shown as UTC)."""
    person = clean_person(author).encode("utf-8", "replace")
    lines = [b"tree " + tree.hex().encode()]
    lines += [b"parent " + parent.hex().encode() for parent in parents]
    lines += [
        b"%s %s %d +0000" % (role, person, max(0, when_s)) for role in (b"author", b"committer")
    ]
    text = message.replace("\0", "").strip("\n").encode("utf-8", "replace")
    return b"\n".join(lines) + b"\n\n" + text + b"\n"
