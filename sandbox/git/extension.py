"""Extensions of the git index that spare `git status` the walk of the working tree. Pure.

FSMN says that no entry has to be looked at but those that the fsmonitor hook names; UNTR, that no
directory holds an untracked file. Both hold for a tree that a mount has just begun to show, and
git keeps them up by itself from then on. Format: gitformat-index(5).
"""

from __future__ import annotations

import struct

from sandbox.git.indexfile import CachedTree, varint

_STAT_BYTES = 36
_NULL_OID = bytes(20)
_GITIGNORE = b".gitignore\0"
_VERSION = 2
# DIR_SHOW_OTHER_DIRECTORIES | DIR_HIDE_EMPTY_DIRECTORIES: what `git status` asks for.
_STATUS_FLAGS = 6


def extension(name: bytes, body: bytes) -> bytes:
    """An extension with its header."""
    return name + len(body).to_bytes(4, "big") + body


def fsmonitor(token: bytes) -> bytes:
    """FSMN: every entry is valid as of `token`."""
    dirty = ewah([], 0)
    head = _VERSION.to_bytes(4, "big") + token + b"\0" + len(dirty).to_bytes(4, "big")
    return extension(b"FSMN", head + dirty)


def untracked(root: CachedTree, location: bytes, exclude: bytes | None) -> bytes:
    """UNTR: no directory of `root` has an untracked file.

    `location` is the path of the working tree as git in the lane sees it; `exclude` the hash that
    git has for info/exclude (`exclude_oid`), None where there is no such file.
    """
    blocks: list[bytes] = []
    ignores: list[bytes] = []
    with_ignore: list[int] = []
    pending = [root]
    while pending:
        tree = pending.pop()
        if tree.ignore is not None:
            with_ignore.append(len(blocks))
            ignores.append(tree.ignore)
        # Binary search: by name alone, unlike the order of trees.
        children = sorted(tree.children, key=lambda child: child.name, reverse=True)
        blocks.append(b"\0" + varint(len(children)) + tree.name + b"\0")
        pending.extend(children)
    count = len(blocks)
    environment = b"Location %s, system Linux\0" % location
    body = b"".join(
        (
            varint(len(environment)),
            environment,
            bytes(2 * _STAT_BYTES),
            _STATUS_FLAGS.to_bytes(4, "big"),
            exclude or _NULL_OID,
            _NULL_OID,
            _GITIGNORE,
            varint(count),
            *blocks,
            ewah(range(count), count),
            ewah([], count),
            ewah(with_ignore, count),
            # Of a directory git has the fsmonitor's word for, it does not compare them.
            bytes(_STAT_BYTES * count),
            *ignores,
            b"\0",
        )
    )
    return extension(b"UNTR", body)


def ewah(ones: list[int] | range, size: int) -> bytes:
    """A compressed bitmap as git writes them (ewah/ewah_io.c), of literal words alone."""
    words = [0] * (size + 63 >> 6)
    for position in ones:
        words[position >> 6] |= 1 << (position & 63)
    # A running length word: no run, then so many literals.
    marker = len(words) << 33
    packed = struct.pack(f">{1 + len(words)}Q", marker, *words)
    return struct.pack(">II", size, 1 + len(words)) + packed + bytes(4)
