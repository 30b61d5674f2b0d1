"""What is on the board, and what of it anything else needs: what `clean` goes by."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from supervisor.board.attempt import Attempt
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import observe
from supervisor.board.owner import liveness
from supervisor.errors import BoardError, NotFoundError
from supervisor.model.liveness import Liveness
from supervisor.model.record import Snapshot, Sprint
from supervisor.upkeep import ack

_SHA256 = re.compile(rb"\b[0-9a-f]{64}\b")
_LAYER = re.compile(rb'"([A-Za-z0-9][A-Za-z0-9_-]{0,63}-[0-9]{4,9})"')


@dataclass(slots=True)
class Needs:
    """Layers and blobs that something on the board refers to."""

    layers: set[str] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)

    def add(self, other: Needs) -> None:
        self.layers |= other.layers
        self.blobs |= other.blobs


@dataclass(frozen=True, slots=True)
class Item:
    """A sprint as it is on the board.

    Attributes:
        record: None where the sprint cannot be read.
        attempts: of each phase.
        damage: what is wrong with it, as a sentence, or that it is of a newer format.
        acked_s: seconds since it was acknowledged; None where it was not.
        running: why it is not to be touched: somebody works on it, or may. Empty if nobody does.
    """

    id: str
    path: str
    record: Sprint | None
    attempts: dict[str, list[Attempt]]
    damage: BoardError | None
    acked_s: float | None
    running: str

    @property
    def needs(self) -> Needs:
        """What its documents refer to; of one that cannot be read, whatever looks like it."""
        return _needs(self) if self.damage is None else needs_of_files(self.path)


def take(board: Board) -> list[Item]:
    """All sprints of a board, the oldest first. Damage is part of the answer."""
    items = []
    for known in board.sprints():
        try:
            sprint = board.sprint(known)
            item = look(sprint)
        except NotFoundError:
            continue  # removed by another clean-up since we have listed it
        if item.damage is None or os.path.isdir(sprint.path):
            items.append(item)
    return items


def look_at(path: str, sprint_id: str) -> Item:
    """A sprint that was moved, by the id that it has."""
    moved = SprintDir(path)
    moved.id = sprint_id
    return look(moved)


def look(sprint: SprintDir) -> Item:
    """One sprint."""
    record, damage, acked_s, running = None, None, None, ""
    attempts: dict[str, list[Attempt]] = {}
    try:
        record = sprint.record
        for phase in record.phases:
            attempts[phase.name] = sprint.slot(phase.name).attempts()
        acked_s = ack.age_s(sprint.path)
        if observe(sprint).driven:  # which reads all else that can be damaged
            running = "`nanosup up` runs it"
    except BoardError as error:
        damage = error
    for name, tried in attempts.items():
        for attempt in tried:
            if attempt.outcome is None and liveness(attempt) is not Liveness.DEAD:
                running = f"{name}.{attempt.n} is held by {attempt.owner.agent}"
    return Item(sprint.id, sprint.path, record, attempts, damage, acked_s, running)


def needs_of_files(top: str) -> Needs:
    """Whatever in the JSON files below a directory looks like the name of a layer or a blob."""
    found = Needs()
    for path in _documents(top):
        try:
            with open(path, "rb", opener=_at_once) as file:
                data = file.read(64 << 20)
        except OSError:
            continue
        found.blobs.update(match.decode() for match in _SHA256.findall(data))
        found.layers.update(match.decode() for match in _LAYER.findall(data))
    return found


def _at_once(path: str, flags: int) -> int:
    """A FIFO in a document's place has nobody wait."""
    return os.open(path, flags | os.O_NONBLOCK)


def _documents(top: str) -> Iterator[str]:
    for directory, below, files in os.walk(top):
        below[:] = [name for name in below if name != "lane"]  # an agent's own files
        yield from (os.path.join(directory, name) for name in files if name.endswith(".json"))


def _needs(item: Item) -> Needs:
    found = Needs()
    snapshots: list[Snapshot | None] = [item.record.base if item.record else None]
    for tried in item.attempts.values():
        for attempt in tried:
            snapshots.append(attempt.owner.snapshot)
            found.blobs.update(given.sha256 for given in attempt.owner.inputs)
            if attempt.outcome is not None:
                snapshots.append(attempt.outcome.sealed)
                found.blobs.update(output.sha256 for output in attempt.outcome.outputs)
    found.layers.update(_layers(snapshots))
    return found


def _layers(snapshots: Iterable[Snapshot | None]) -> Iterator[str]:
    for snapshot in snapshots:
        if snapshot is not None:
            yield from (*snapshot.layers, *snapshot.carried)
