"""Writes the git index of a snapshot, with the stat data that the mount will report.

Made once a snapshot and shared by its lanes, so that `git status` in a fresh lane reads no file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.git import extension, gitattribute
from sandbox.git.gitname import Refusal, refusal
from sandbox.git.gitobject import (
    MODE_GITLINK,
    MODE_SYMLINK,
    MODE_TREE,
    Kind,
    Tree,
    name_object,
    sorted_entries,
)
from sandbox.git.indexfile import Builder, CachedTree
from sandbox.git.smudge import NOTHING, Rules, to_worktree
from sandbox.git.store import Store
from sandbox.git.touched import FIRST_TOKEN
from sandbox.repository.gitdir import replace
from sandbox.repository.repository import Repository
from sandbox.union.strata import open_strata, walk_stats

_GITIGNORE = b".gitignore"


def _collect(
    store: Store, builder: Builder, tree: bytes, found: Mapping[bytes, os.stat_result]
) -> CachedTree:
    """Adds all paths of `tree` in index order. Trees are held as iterators, not by recursion."""
    root = CachedTree(b"", tree)
    top = store.read_tree(tree)
    pending = [(b"", root, iter(sorted_entries(top)), _rules(store, b"", top, None))]
    size, add = store.size, builder.add
    while pending:
        prefix, node, entries, rules = pending[-1]
        for name, (mode, oid) in entries:
            if refusal(name, symlink=mode == MODE_SYMLINK) is not Refusal.NONE:
                continue  # the mount does not show it either
            path = prefix + name
            if mode == MODE_TREE:
                child = CachedTree(name, oid)
                node.children.append(child)
                below: Tree = store.read_tree(oid)
                inner = _rules(store, path + b"/", below, rules)
                pending.append((path + b"/", child, iter(sorted_entries(below)), inner))
                break
            node.count += 1
            if name == _GITIGNORE and stat.S_ISREG(mode):
                node.ignore = oid
            status = found.get(path) if found else None
            if mode == MODE_GITLINK:
                add(path, mode, oid, 0)
            elif status is not None and stat.S_ISLNK(status.st_mode) == (mode == MODE_SYMLINK):
                add(path, mode, oid, status.st_size, (status.st_mtime_ns, status.st_ctime_ns))
            elif rules is not None and rules.converts and mode != MODE_SYMLINK:
                add(path, mode, oid, _smudged_size(store, rules, path, oid))
            else:
                add(path, mode, oid, size(oid))
        else:
            pending.pop()
            if pending:
                pending[-1][1].count += node.count
    return root


def _rules(store: Store, prefix: bytes, tree: Tree, above: Rules | None) -> Rules | None:
    """The conversions that a checkout does in a directory."""
    entry = tree.get(gitattribute.FILE_NAME)
    if entry is None or not stat.S_ISREG(entry[0]):
        return above
    return Rules(prefix, store.read(entry[1])[1], above)


def _smudged_size(store: Store, rules: Rules, path: bytes, oid: bytes) -> int:
    todo = rules.smudge(path)
    if todo == NOTHING:
        return store.size(oid)
    return len(to_worktree(store.read(oid)[1], todo, oid.hex()))


def _exclude(repo: Repository) -> bytes | None:
    """The hash that git compares of info/exclude, which lanes get a copy of."""
    try:
        content = (repo.common_dir / "info/exclude").read_bytes()
    except OSError:
        return None
    # git hashes the line end that it puts behind the last line (dir.c, add_patterns).
    return name_object(Kind.BLOB, content + b"\n" if content else b"")


def record(
    path: Path,
    repo: Repository,
    *,
    commit: str,
    epoch_ns: int,
    uid: int,
    gid: int,
    layers: Sequence[Path] = (),
    object_dirs: Sequence[Path] = (),
    location: str | None = None,
) -> None:
    """Writes the index of `commit` to `path`, unless it is there already.

    `layers` are the sealed layers of the mount, bottom to top; what comes from them has the
    layer's own stat data, all else `epoch_ns`. `object_dirs` are read besides the repository's.
    `epoch_ns` must lie before now, or git takes every file for racily clean and reads it.
    `location` is where git in the lane sees the working tree, if it can ask the mount there what
    has changed (`sandbox.mount.witness`).

    Raises:
        GitError: objects of the commit are missing.
    """
    if path.exists():
        return
    store = Store((*repo.object_dirs, *object_dirs))
    tree = store.tree_of(bytes.fromhex(commit))
    with open_strata((), layers) as level:
        found = dict(walk_stats(level))
    builder = Builder(uid=uid, gid=gid, epoch_ns=epoch_ns)
    root = _collect(store, builder, tree, found)
    extensions = b""
    if location is not None:
        extensions = extension.fsmonitor(FIRST_TOKEN)
        extensions += extension.untracked(root, os.fsencode(location), _exclude(repo))
    data = builder.build(root, extensions)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, data)
