"""`nanosup clean`: removing what is acknowledged, old, and needed by nothing else.

First a plan, from what the board shows; then each step of it, which looks again before it acts. A
step moves something aside by one rename and removes it then, so that a crash leaves nothing
half there: a sprint goes before the layers and blobs that it referred to, and what is left over
of it is found to be needed by nothing the next time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor import clock
from supervisor.board import disk, document
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board
from supervisor.errors import BoardError
from supervisor.keeper.lane import LaneDir
from supervisor.model.lineage import layer_id
from supervisor.model.name import is_identifier, is_tmp
from supervisor.model.record import AttemptState, Sprint
from supervisor.upkeep import ack, eviction, inventory, quarantine, removal, sweep
from supervisor.upkeep.inventory import Item, Needs


class Kind(StrEnum):
    """What can be removed."""

    SPRINT = "sprint"
    LANE = "lane"
    LAYER = "layer"
    BLOB = "blob"
    REF = "ref"
    CHECKOUT = "checkout"
    LEFTOVER = "leftover"


@dataclass(frozen=True, slots=True)
class Removed:
    """Something that was removed, or would be. `freed` in bytes on disk."""

    kind: Kind
    name: str
    freed: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Something acknowledged that is not removed yet, and why."""

    name: str
    why: str


@dataclass(slots=True)
class Report:
    """What came of a clean-up."""

    removed: list[Removed] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    damaged: list[BoardError] = field(default_factory=list)

    @property
    def freed(self) -> int:
        return sum(one.freed for one in self.removed)


class Upkeep:
    """One clean-up of a board.

    Args:
        older_than_s: seconds since the acknowledgement.
        dry: say what would be removed, and remove nothing.
        prune: removes the refs of a sprint that was removed, as far as their commits have other
            names; returns (removed, kept).
    """

    def __init__(
        self,
        board: Board,
        *,
        older_than_s: float,
        dry: bool = False,
        prune: Callable[[str], tuple[list[str], list[str]]] = lambda _: ([], []),
    ) -> None:
        self._board = board
        self._older_than_s = older_than_s
        self._dry = dry
        self._prune = prune
        self._began_s = clock.wall_s()
        self.report = Report()

    def run(self) -> Report:
        """Cleans up.

        Raises:
            BoardError: something cannot be removed. What was removed so far is whole.
        """
        with nullcontext() if self._dry else _alone(self._board):
            if not self._dry:
                self._put_back()
            return self._run()

    def _run(self) -> Report:
        items = inventory.take(self._board)
        going = self._sprints(items)
        rest = [item for item in items if item.id not in going]
        self.report.damaged += [item.damage for item in rest if item.damage is not None]
        self.report.damaged += quarantine.damaged_slots(self._board).values()
        needs = Needs()
        for path in quarantine.kept(self._board):  # whole, and what it refers to as well
            needs.add(inventory.needs_of_files(path))
        for item in rest:
            needs.add(item.needs)
        for item in rest:
            if item.damage is None:
                self._lanes(item, needs)
        if any(item.damage is not None for item in rest):
            # What it refers to cannot be known.
            self.report.kept.append(Kept("layers and blobs", "a sprint cannot be read"))
        else:
            self._layers(needs, {item.id for item in rest})
            self._blobs(needs, [item.running for item in rest if item.running])
            self._checkouts()
        self._leftovers()
        return self.report

    def _put_back(self) -> None:
        """Puts sprints back that a clean-up had set aside when it died, and that somebody had
        claimed something of just before."""
        for path in _entries(os.path.join(self._board.path, "sprints")):
            record = os.path.join(path, "sprint.json")
            if not is_tmp(os.path.basename(path)) or not os.path.exists(record):
                continue
            if not os.path.lexists(os.path.join(path, ack.FILE)):
                continue  # being made, not being removed
            try:
                found = document.read(record, Sprint)
            except BoardError:
                continue
            if found is not None and inventory.look_at(path, found.id).running:
                os.rename(path, os.path.join(os.path.dirname(path), found.id))

    def _sprints(self, items: list[Item]) -> set[str]:
        """Removes sprints. Returns which."""
        wanted = {item.id for item in items if self._is_due(item)}
        going: set[str] = set()
        # The newest first: one that others are stacked on goes only after all of them.
        for item in reversed(items):
            if item.id not in wanted:
                continue
            above = [other.id for other in items if _stands_on(other, item.id)]
            if staying := [other for other in above if other not in going]:
                self.report.kept.append(Kept(item.id, f"{', '.join(staying)} is stacked on it"))
            elif self._remove_sprint(item):
                going.add(item.id)
        return going

    def _is_due(self, item: Item) -> bool:
        if item.acked_s is None or item.damage is not None:
            return False
        if item.running:
            self.report.kept.append(Kept(item.id, item.running))
            return False
        return item.acked_s >= self._older_than_s

    def _remove_sprint(self, item: Item) -> bool:
        if self._dry:
            self._note(Kind.SPRINT, item.id, removal.usage(item.path))
            return True
        try:
            aside = removal.set_aside(item.path)
        except FileNotFoundError:
            return True  # another clean-up was quicker
        # Somebody may have claimed something between our look and the rename. Now nobody can.
        again = inventory.look_at(aside, item.id)
        if again.running:
            os.rename(aside, item.path)
            self.report.kept.append(Kept(item.id, again.running))
            return False
        self._note(Kind.SPRINT, item.id, removal.remove(aside))
        removed, kept = self._prune(item.id)
        for ref in removed:
            self._note(Kind.REF, ref, 0)
        self.report.kept += [Kept(ref, "no other ref has its commits") for ref in kept]
        return True

    def _lanes(self, item: Item, needs: Needs) -> None:
        """Removes what the lanes of acknowledged attempts have left in a sprint that stays."""
        for phase, tried in item.attempts.items():
            done = any(attempt.state is AttemptState.COMPLETED for attempt in tried)
            for attempt in tried:
                if attempt.outcome is None or not self._is_old(attempt.path):
                    continue
                layer = layer_id(item.id, phase, attempt.n)
                # The next attempt goes on with what the last one has left.
                keep_upper = layer in needs.layers or (attempt is tried[-1] and not done)
                self._lane(f"{item.id}/{phase}.{attempt.n}", attempt, keep_upper)

    def _lane(self, name: str, attempt: Attempt, keep_upper: bool) -> None:
        lane = LaneDir(attempt.lane_path)
        if lane.is_confined:
            if keep_upper and not os.path.lexists(lane.upper) and os.path.lexists(lane.manifest):
                self.report.kept.append(Kept(name, "another attempt needs it"))
                return
            if os.path.isdir(lane.room):
                self._note(Kind.LANE, f"{name}: room", self._remove(lane.room))
        if keep_upper and os.path.lexists(lane.upper):
            paths = [path for path in _entries(lane.path) if path != lane.upper]
            self.report.kept.append(Kept(f"{name}: upper", "another attempt needs it"))
        else:
            paths = [lane.path] if os.path.lexists(lane.path) else []
        freed = [self._remove(path, attempt.path) for path in paths]
        if freed:
            self._note(Kind.LANE, name, sum(freed))

    def _is_old(self, directory: str) -> bool:
        try:
            acked_s = ack.age_s(directory)
        except BoardError as error:
            self.report.damaged.append(error)
            return False
        return acked_s is not None and acked_s >= self._older_than_s

    def _layers(self, needs: Needs, known: set[str]) -> None:
        for path in _entries(os.path.join(self._board.path, "layers")):
            name = os.path.basename(path)
            # One of a sprint that is there may be about to be named in an outcome.
            mine = any(name.startswith(f"{sprint}-") for sprint in known)
            if not mine and name not in needs.layers and is_identifier(name):
                self._note(Kind.LAYER, name, self._remove(path))

    def _blobs(self, needs: Needs, running: list[str]) -> None:
        """Removes blobs that nothing refers to, but those that one who works now may have made."""
        if running:
            self.report.kept.append(Kept("blobs", running[0]))
            return
        store = os.path.join(self._board.blobs.path, "sha256")
        for directory in _entries(store):
            for path in _entries(directory):
                name = os.path.basename(path)
                if name not in needs.blobs and not is_tmp(name):
                    self._blob(path, name)

    def _blob(self, path: str, name: str) -> None:
        if self._dry:
            self._note(Kind.BLOB, name, removal.usage(path))
            return
        try:
            aside = removal.set_aside(path, self._board.blobs.path)
        except FileNotFoundError:
            return
        if os.lstat(aside).st_mtime >= self._began_s:
            # Handed on by somebody since we have looked: the same bytes again (blob.Staged).
            disk.publish_file(aside, path)
            disk.remove(aside)
            return
        self._note(Kind.BLOB, name, removal.remove(aside))

    def _checkouts(self) -> None:
        """Removes what lanes of the lower tiers have left beside the board."""
        for path in eviction.rooms_left(self._board):
            self._note(Kind.LANE, os.path.basename(path), self._remove(path))
        for path in eviction.trees_left(self._board):
            self._note(Kind.CHECKOUT, os.path.basename(path), self._remove(path))
        with eviction.files_left(self._board) as paths:
            freed = sum(self._remove(path) for path in paths)
        if freed:
            self._note(Kind.CHECKOUT, "files", freed)

    def _leftovers(self) -> None:
        if not self._dry and not self.report.damaged:
            self._board.queue.tidy()
        for path in sweep.abandoned(self._board):
            freed = removal.usage(path) if self._dry else removal.remove(path)
            self._note(Kind.LEFTOVER, os.path.relpath(path, self._board.path), freed)

    def _remove(self, path: str, directory: str | None = None) -> int:
        if self._dry:
            return removal.usage(path)
        try:
            return removal.remove(removal.set_aside(path, directory))
        except FileNotFoundError:
            return 0

    def _note(self, kind: Kind, name: str, freed: int) -> None:
        self.report.removed.append(Removed(kind, name, freed))


@contextmanager
def _alone(board: Board) -> Iterator[None]:
    """Waits until no other clean-up is under way: while one has a sprint set aside, another would
    find that nothing needs its layers. Takes no space on the disk."""
    try:
        fd = os.open(board.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system that cannot lock: one clean-up at a time is up to people
        yield
    finally:
        os.close(fd)


def _stands_on(item: Item, sprint: str) -> bool:
    return getattr(item.record, "stacked_on", None) == sprint


def _entries(directory: str) -> list[str]:
    try:
        return [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
    except (FileNotFoundError, NotADirectoryError):
        return []
