"""Folds layers into a git tree: what `git add -A` would make of the merged view.

Visits what the layers have, and where the two trees differ; its cost is that of the change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sandbox.git import gitattribute, ignore, submodule
from sandbox.git.conversion import EncodingFailure, Plan, plan, to_git
from sandbox.git.gitattribute import Attributes
from sandbox.git.gitname import Refusal, refusal
from sandbox.git.gitobject import (
    EMPTY_TREE,
    MODE_EXECUTABLE,
    MODE_FILE,
    MODE_GITLINK,
    MODE_SYMLINK,
    MODE_TREE,
    Kind,
    Tree,
    build_tree,
)
from sandbox.git.ignore import Scope
from sandbox.git.store import Store
from sandbox.git.tracked import Tracked
from sandbox.repository.note import Notes, shown
from sandbox.repository.setting import Setting
from sandbox.union.strata import DEPTH_LIMIT, Level, Member, What, open_file

Entry = tuple[int, bytes]

_WHOLE_LIMIT_BYTES = 16 << 20  # larger files are streamed
_CONVERT_LIMIT_BYTES = 512 << 20  # core.bigFileThreshold: git converts no larger ones
_RULES_LIMIT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the tree the fold is.

    Attributes:
        excluded: this directory is ignored: only what is tracked counts.
        every: what lower layers have, untracked so far, counts too, since ignore rules changed.
    """

    prefix: bytes
    depth: int
    scope: Scope
    attributes: Attributes
    excluded: bool
    every: bool


class Fold:
    """One folding. `notes` tells what was left out.

    Args:
        reuse: gives the entry of a file whose stat data says that it is unchanged.
    """

    def __init__(
        self,
        store: Store,
        setting: Setting,
        *,
        notes: Notes,
        reuse: Callable[[bytes, os.stat_result], Entry | None] | None = None,
        top_git: bool = False,
    ) -> None:
        self._store = store
        self._setting = setting
        self._notes = notes
        self._reuse = reuse
        self._top_git = top_git

    def run(self, level: Level, base: bytes | None, tracked: Tracked) -> bytes:
        """The tree of `level` over the tree `base` (None: nothing shows from below)."""
        held = tracked.entries()
        before = self._store.read_tree(base) if base is not None else {}
        place = _Place(
            b"",
            0,
            Scope(b"", self._loader(level, before, ignore.FILE_NAME), self._setting.ignored),
            Attributes(
                b"",
                self._loader(level, before, gitattribute.FILE_NAME),
                None,
                top=self._setting.top,
                bottom=self._setting.bottom,
            ),
            excluded=False,
            every=False,
        )
        oid = self._directory(place, level, base, before, tracked, held)
        return self._store.put(Kind.TREE, b"") if oid is None else oid

    def _loader(self, level: Level, before: Tree, name: bytes) -> Callable[[], bytes | None]:
        # Read from the merged view, and never through a symbolic link (as git since 2.32).
        def load() -> bytes | None:
            found = level.find(name)
            if found is not None:
                member, what = found
                if what is not What.FILE:
                    return None
                try:
                    with os.fdopen(open_file(name, member), "rb") as file:
                        return file.read(_RULES_LIMIT_BYTES)
                except OSError:
                    return None
            entry = before.get(name)
            if entry is None or entry[0] not in {MODE_FILE, MODE_EXECUTABLE}:
                return None
            return self._store.read(entry[1])[1]

        return load

    def _directory(
        self,
        place: _Place,
        level: Level,
        base: bytes | None,
        before: Tree,
        tracked: Tracked | None,
        held: Tree,
    ) -> bytes | None:
        """The tree of a directory, or None where git would have none."""
        if ignore.FILE_NAME in level.names():
            place = replace(place, every=True)
        names = level.names(every=place.every)
        if place.excluded:
            names = {name for name in names if name in held or name in before}
        if before != held:
            everything = before.keys() | held.keys()
            names |= {name for name in everything if before.get(name) != held.get(name)}
        after = dict(before)
        for name in names:
            entry = self._entry(place, level, name, before, tracked, held)
            if entry is None:
                after.pop(name, None)
            else:
                after[name] = entry
        if base is not None and after == before:
            return base if after else None
        return self._store.put(Kind.TREE, build_tree(after)) if after else None

    def _entry(
        self,
        place: _Place,
        level: Level,
        name: bytes,
        before: Tree,
        tracked: Tracked | None,
        held: Tree,
    ) -> Entry | None:
        path = place.prefix + name
        found = level.find(name)
        old, mine = before.get(name), held.get(name)
        if found is None or (
            not found[0].own and old is not None and found[1] is not What.DIRECTORY
        ):
            return self._unchanged(place, level, name, old, tracked, mine)
        member, what = found
        if what is What.WHITEOUT:
            return None
        refused = refusal(name, symlink=what is What.SYMLINK)
        if refused is not Refusal.NONE:
            if not (self._top_git and path == b".git"):
                self._notes.add(path, f"left out: its name is {refused.value}")
            return old
        if what is What.SPECIAL:
            self._notes.add(path, "left out: git knows no such special files")
            return None
        if what is What.DIRECTORY:
            try:
                below = level.descend(name)
            except PermissionError:
                return self._unreadable(path, old, mine)
            with below:
                return self._subdirectory(place, below, name, old, tracked, mine)
        is_tracked = mine is not None and mine[0] != MODE_TREE
        if not is_tracked and (place.excluded or place.scope.ignores(path, directory=False)):
            return None
        try:
            return self._file(place, member, what, name, mine if is_tracked else None)
        except PermissionError:
            return self._unreadable(path, old, mine)

    def _unreadable(self, path: bytes, old: Entry | None, mine: Entry | None) -> Entry | None:
        if old is None and mine is not None:
            raise PermissionError(13, "Permission denied", shown(path))
        self._notes.add(path, "left as it was: it cannot be read")
        return old

    def _unchanged(
        self,
        place: _Place,
        level: Level,
        name: bytes,
        old: Entry | None,
        tracked: Tracked | None,
        mine: Entry | None,
    ) -> Entry | None:
        """An entry that no layer touches, but of which the two trees say different things."""
        if old is None:
            if tracked is None or mine is None or not tracked.keeps(name):
                return None
            if mine[0] != MODE_TREE or any(mine[1]):
                return mine
            # An index knows no directories: this one is made of what is kept below it.
            with level.descend(name) as below:
                return self._subdirectory(place, below, name, None, tracked, mine)
        if old[0] == MODE_TREE:
            with level.descend(name) as below:
                return self._subdirectory(place, below, name, old, tracked, mine)
        if old[0] == MODE_GITLINK:
            # An empty directory in the view: what the agent's commit says of it holds.
            return mine if mine is not None and mine[0] == MODE_GITLINK else None
        if mine is not None and mine[0] != MODE_TREE:
            return old
        ignored = place.excluded or place.scope.ignores(place.prefix + name, directory=False)
        return None if ignored else old

    def _subdirectory(
        self,
        place: _Place,
        level: Level,
        name: bytes,
        old: Entry | None,
        tracked: Tracked | None,
        mine: Entry | None,
    ) -> Entry | None:
        path = place.prefix + name
        if mine is not None and mine[0] == MODE_GITLINK:
            return mine
        inner = tracked.child(name) if tracked and mine and mine[0] == MODE_TREE else None
        excluded = place.excluded or place.scope.ignores(path, directory=True)
        if inner is None and excluded:
            return None
        if inner is None and self._is_repository(level):
            self._notes.add(path, "left out: it is a git repository of its own")
            return None
        if place.depth >= DEPTH_LIMIT:
            self._notes.add(path, f"left as it was: more than {DEPTH_LIMIT} directories deep")
            return old
        base = old[1] if old and old[0] == MODE_TREE and not level.cut else None
        before = self._store.read_tree(base) if base is not None else {}
        held = inner.entries() if inner is not None else {}
        prefix = path + b"/"
        load_attributes = self._loader(level, before, gitattribute.FILE_NAME)
        there = _Place(
            prefix,
            place.depth + 1,
            Scope(prefix, self._loader(level, before, ignore.FILE_NAME), place.scope),
            Attributes(prefix, load_attributes, place.attributes),
            excluded,
            place.every,
        )
        oid = self._directory(there, level, base, before, inner, held)
        return None if oid is None else (MODE_TREE, oid)

    @staticmethod
    def _is_repository(level: Level) -> bool:
        found = level.find(b".git")
        if found is None:
            return False
        if found[1] is What.FILE:
            return True
        if found[1] is not What.DIRECTORY:
            return False
        with level.descend(b".git") as inside:
            return {b"HEAD", b"objects", b"refs"} <= inside.names(every=True)

    def _file(
        self, place: _Place, member: Member, what: What, name: bytes, mine: Entry | None
    ) -> Entry | None:
        path = place.prefix + name
        if self._reuse is not None:
            status = os.stat(name, dir_fd=member.fd, follow_symlinks=False)
            reused = self._reuse(path, status)
            if reused is not None:
                return reused
        if what is What.SYMLINK:
            target = os.readlink(name, dir_fd=member.fd)
            return MODE_SYMLINK, self._store.put(Kind.BLOB, target)
        with os.fdopen(open_file(name, member), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            mode = MODE_EXECUTABLE if status.st_mode & stat.S_IXUSR else MODE_FILE
            if not self._setting.file_mode:
                mode = mine[0] if mine and mine[0] in {MODE_FILE, MODE_EXECUTABLE} else MODE_FILE
            if not self._setting.symlinks and mine is not None and mine[0] == MODE_SYMLINK:
                mode = MODE_SYMLINK
            todo = self._plan(place, path)
            size = status.st_size
            if size > _WHOLE_LIMIT_BYTES and not (todo.converts and size <= _CONVERT_LIMIT_BYTES):
                return mode, self._store.put_stream(file, size)
            data = file.read()
        if path == submodule.FILE_NAME and (why := submodule.fault(data)):
            self._notes.add(path, f"left as it was: it {why}")
            return mine
        if todo.converts:
            data = self._converted(path, data, todo, mine)
        return mode, self._store.put(Kind.BLOB, data)

    def _plan(self, place: _Place, path: bytes) -> Plan:
        found: Mapping[bytes, gitattribute.Value] = place.attributes.resolve(path)
        todo = plan(found, autocrlf=self._setting.autocrlf)
        if todo.driver:
            self._notes.say(
                f"filter={shown(todo.driver.encode())} is not run: "
                "files that have it are stored as they are"
            )
        return todo

    def _converted(self, path: bytes, data: bytes, todo: Plan, mine: Entry | None) -> bytes:
        def tracked() -> bytes | None:
            if mine is None or mine[0] == MODE_GITLINK or mine[1] == bytes(20):
                return None
            return self._store.read(mine[1])[1]

        try:
            return to_git(data, todo, tracked)
        except EncodingFailure as failure:
            self._notes.add(path, f"stored as it is: {failure}")
            return data


def count_differences(store: Store, one: bytes, other: bytes) -> int:
    """How many paths differ between two trees. Looks only where they differ."""
    count, pending = 0, [(one, other)]
    while pending:
        left, right = pending.pop()
        if left == right:
            continue
        old = store.read_tree(left) if left != EMPTY_TREE else {}
        new = store.read_tree(right) if right != EMPTY_TREE else {}
        for name in old.keys() | new.keys():
            was, now = old.get(name), new.get(name)
            if was == now:
                continue
            trees = [entry[1] if entry and entry[0] == MODE_TREE else None for entry in (was, now)]
            if any(trees):
                pending.append((trees[0] or EMPTY_TREE, trees[1] or EMPTY_TREE))
            if (was and was[0] != MODE_TREE) or (now and now[0] != MODE_TREE):
                count += 1
    return count
