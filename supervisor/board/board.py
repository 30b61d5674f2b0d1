"""The board: the directory that is the only truth. docs/board.md describes every file in it.

Opening it reads one small file, and creates nothing; what is missing is made when it is needed.
Every transition is one atomic call of the file system (`slot`, `disk`), so no process need run for
two agents to agree, and a crash leaves nothing to repair.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from supervisor.board import disk, document
from supervisor.board.journal import Journal
from supervisor.board.queue import Queue
from supervisor.board.register import Register
from supervisor.board.slot import Slot
from supervisor.errors import BoardError, HeldError, NewerError, NotFoundError
from supervisor.model import name
from supervisor.model.record import FORMAT, Revision, Sprint

if TYPE_CHECKING:
    from pathlib import Path

    from supervisor.board.attempt import Attempt
    from supervisor.board.blob import BlobStore
    from supervisor.model.phase import Phase


class SprintDir:
    """A sprint on the board."""

    __slots__ = ("_ended", "_record", "_revised", "id", "path")

    def __init__(self, path: str, record: Sprint | None = None) -> None:
        self.path = path
        self.id = os.path.basename(path)
        self._record = record
        self._revised: dict[int, Sprint] = {}
        self._ended: dict[str, dict[int, Attempt]] = {}

    @property
    def revisions(self) -> Register[Revision]:
        """What the graph was changed to since the sprint began."""
        return Register(os.path.join(self.path, "graph"), Revision)

    @property
    def record(self) -> Sprint:
        """What the sprint is, by its last revision.

        Raises:
            BoardError: sprint.json, or the revision, is missing or damaged.
        """
        return self.record_at(self.revisions.highest())

    def record_at(self, revision: int) -> Sprint:
        """What the sprint was by a revision of its graph; 0: as it began. Raises as `record`."""
        if revision == 0:
            return self._first()
        if revision not in self._revised:
            found = self.revisions.entry(revision)
            self._check_names(found.phases, self.revisions.file(revision))
            self._revised[revision] = msgspec.structs.replace(
                self._first(),
                phases=found.phases,
                agents=found.agents,
                max_lanes=found.max_lanes,
                revision=revision,
            )
        return self._revised[revision]

    def _first(self) -> Sprint:
        """sprint.json, which never changes, and is read once."""
        if self._record is None:
            path = os.path.join(self.path, "sprint.json")
            record = document.read(path, Sprint)
            if record is None:
                raise document.damaged(path, "is missing; expected a sprint document")
            if record.id != self.id:
                raise document.damaged(path, f"is about sprint {record.id!r}, not {self.id!r}")
            if record.format > FORMAT:
                raise _newer(path, record.format)
            self._check_names(record.phases, path)
            self._record = record
        return self._record

    @staticmethod
    def _check_names(phases: tuple[Phase, ...], path: str) -> None:
        for phase in phases:
            if not name.is_identifier(phase.name):
                raise document.damaged(path, f"names a phase {phase.name!r}")

    def learn(self, other: SprintDir) -> None:
        """Takes over what was read of the same sprint and never changes."""
        if other.path == self.path:
            self._record = other._record
            self._revised = other._revised
            self._ended = other._ended

    def graph_sha256(self, revision: int) -> str:
        """SHA-256 of the document that holds a revision of the graph, which statements name; of
        sprint.json for 0.

        Raises:
            BoardError: it cannot be read.
        """
        import hashlib

        path = os.path.join(self.path, "sprint.json")
        if revision:
            path = self.revisions.file(revision)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                return hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            raise document.damaged(path, f"cannot be read: {error.strerror}") from error

    def slot(self, phase: str) -> Slot:
        """Where the attempts at a phase are claimed.

        Raises:
            NotFoundError: the sprint has no such phase; names those it has.
        """
        phases = [known.name for known in self.record.phases]
        if phase not in phases:
            raise NotFoundError(
                f"sprint {self.id} has no phase {phase!r}", hint=f"It has {', '.join(phases)}."
            )
        ended = self._ended.setdefault(phase, {})
        return Slot(os.path.join(self.path, "phases", phase), f"phase {phase}", ended)

    @property
    def journal(self) -> Journal:
        return Journal(os.path.join(self.path, "journal.jsonl"))


class Board:
    """The board in a state directory.

    Raises:
        BoardError: on opening: its format is newer than this program knows, or damaged.
    """

    __slots__ = ("_has_format", "_sprints", "path")

    def __init__(self, state: Path | str) -> None:
        self.path = os.path.abspath(state)
        self._sprints = os.path.join(self.path, "sprints")
        self._has_format = self._check_format()

    def create_sprint(self, sprint: Sprint) -> SprintDir:
        """Puts a new sprint on the board, whole.

        Raises:
            HeldError: there is a sprint of this id.
            BoardError: it cannot be written. The board is unchanged.
        """
        for wanted in (sprint.id, *(phase.name for phase in sprint.phases)):
            if not name.is_identifier(wanted):
                raise ValueError(f"{wanted!r} cannot be a name on the board")
        self.prepare()
        path = os.path.join(self._sprints, sprint.id)
        with disk.explained(path):
            disk.make_directories(self._sprints)
            tmp = disk.tmp_path(self._sprints)
            try:
                os.mkdir(tmp, 0o700)
                os.mkdir(os.path.join(tmp, "phases"), 0o700)
                for phase in sprint.phases:
                    directory = os.path.join(tmp, "phases", phase.name)
                    os.mkdir(directory, 0o700)
                    os.mkdir(os.path.join(directory, "attempts"), 0o700)
                    disk.sync_directory(directory)
                disk.sync_directory(os.path.join(tmp, "phases"))
                disk.write_file(os.path.join(tmp, "sprint.json"), document.encode(sprint))
                # There from the start, so that whoever sees the sprint can watch its journal.
                disk.write_file(os.path.join(tmp, "journal.jsonl"), b"", sync=False)
                disk.sync_directory(tmp)
                disk.publish_directory(tmp, path)
            except FileExistsError:
                disk.remove(tmp)
                raise HeldError(f"there is a sprint {sprint.id} already") from None
            except BaseException:
                disk.remove(tmp)
                raise
            disk.sync_published(self._sprints)
        return SprintDir(path, sprint)

    def sprints(self) -> list[str]:
        """The ids of all sprints, the oldest first."""
        try:
            names = os.listdir(self._sprints)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise document.damaged(self._sprints, f"cannot be read: {error.strerror}") from error
        return sorted(filter(name.is_identifier, names))

    def sprint(self, sprint_id: str) -> SprintDir:
        """One sprint.

        Raises:
            NotFoundError: there is none of this id.
        """
        path = os.path.join(self._sprints, sprint_id)
        if not name.is_identifier(sprint_id) or not os.path.isdir(path):
            raise NotFoundError(f"there is no sprint {sprint_id}", hint="See `nanosup status`.")
        return SprintDir(path)

    @property
    def turns(self) -> Slot:
        """The writer's turn: one for all sprints."""
        return Slot(os.path.join(self.path, "turns"), "the writer's turn")

    @property
    def queue(self) -> Queue:
        """Who waits for the writer's turn, in the order of asking."""
        return Queue(os.path.join(self.path, "queue"), "the wait for the writer's turn")

    @property
    def blobs(self) -> BlobStore:
        from supervisor.board.blob import BlobStore

        return BlobStore(os.path.join(self.path, "blobs"))

    @property
    def objects_path(self) -> str:
        """nanosup's own git objects."""
        return os.path.join(self.path, "objects")

    @property
    def key_path(self) -> str:
        """The directory of the signing key. Like all of the board it is masked in every lane."""
        return os.path.join(self.path, "key")

    def layer_path(self, layer_id: str) -> str:
        """Where a sealed layer is, or will be published.

        Raises:
            BoardError: not a possible id.
        """
        if not name.is_identifier(layer_id):
            raise BoardError(f"{layer_id!r} cannot be the id of a layer")
        return os.path.join(self.path, "layers", layer_id)

    def prepare(self) -> None:
        """Makes the state directory and its `format` file, where they are missing.

        Raises:
            BoardError: they cannot be made.
        """
        if self._has_format:
            return
        path = os.path.join(self.path, "format")
        with disk.explained(path):
            disk.make_directories(self.path)
            os.chmod(self.path, 0o700)  # a directory given by NANOSUP_STATE may have been there
            tmp = disk.tmp_path(self.path)
            try:
                disk.write_file(tmp, b"%d\n" % FORMAT)
                disk.publish_file(tmp, path)
            except FileExistsError:
                pass  # another process was quicker
            finally:
                disk.remove(tmp)
            disk.sync_directory(self.path)
        self._has_format = self._check_format()

    def _check_format(self) -> bool:
        path = os.path.join(self.path, "format")
        text = _read_format(path)
        if text is None:
            if not os.path.lexists(self._sprints):
                return False
            # The format is there before the first sprint is, and never goes: look again, since
            # another process may just have made both.
            text = _read_format(path)
        if text is None:
            raise document.damaged(path, f"is missing; expected {FORMAT}")
        if not text.strip().isdigit():
            raise document.damaged(path, f"is not a number; expected {FORMAT}")
        if int(text) > FORMAT:
            raise _newer(path, int(text))
        return True


def _read_format(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise document.damaged(path, f"cannot be read: {error.strerror}") from error


def _newer(path: str, found: int) -> NewerError:
    return NewerError(
        f"the board is of format {found} ({path}), and this nanosup knows {FORMAT}",
        hint="Use the newer nanosup that made it; nothing was changed.",
    )
