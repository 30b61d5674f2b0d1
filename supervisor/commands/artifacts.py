"""`nanosup artifacts`: what phases handed on."""

from __future__ import annotations

import json
import os
import sys
import tempfile

import msgspec

from supervisor.artifacts.artifact import mismatch
from supervisor.artifacts.audit import Report
from supervisor.artifacts.export import export as export_files
from supervisor.artifacts.provenance import verify_sprint
from supervisor.board import place
from supervisor.board.blob import MismatchError
from supervisor.board.board import Board
from supervisor.board.observe import observe
from supervisor.board.tail import sanitize
from supervisor.errors import NotFoundError
from supervisor.model.record import Output


def list_(*, sprint_id: str | None, everything: bool, as_json: bool) -> int:
    rows = _rows(place.find().board, sprint_id, everything=everything)
    if as_json:
        listed = [
            {
                "phase": phase,
                "attempt": attempt,
                "name": output.name,
                "sha256": output.sha256,
                "size": output.size,
                "media_type": output.media_type,
            }
            for phase, attempt, output in rows
        ]
        print(json.dumps({"artifacts": listed}, ensure_ascii=False))
        return 0
    for phase, attempt, output in rows:
        print(f"{output.sha256}  {output.size:>9}  {phase}.{attempt}/{output.name}")
    return 0


def show(*, phase: str, name: str | None, attempt: int | None, sprint_id: str | None) -> int:
    """Prints one artifact, verified before the first byte; of several, their names."""
    board = place.find().board
    rows = _rows(board, sprint_id, everything=attempt is not None)
    found = [
        output
        for of, n, output in rows
        if of == phase and name in (None, output.name) and attempt in (None, n)
    ]
    if not found:
        where = f"phase {phase!r}" if attempt is None else f"attempt {attempt} at phase {phase!r}"
        raise NotFoundError(
            f"{where} has handed on no {name or 'artifact'}",
            hint="`nanosup artifacts list` shows what there is",
        )
    if len(found) > 1:
        for output in found:
            print(output.name)
        return 0
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "artifact")
        try:
            board.blobs.copy_to(found[0].sha256, path)
        except MismatchError as error:
            raise mismatch(phase, found[0].name, error.expected, error.actual) from error
        if sys.stdout.isatty():
            with open(path, encoding="utf-8", errors="replace", newline="") as text:
                while part := text.read(1 << 20):
                    print(sanitize(part), end="")
            return 0
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                sys.stdout.buffer.write(chunk)
    return 0


def verify(*, sprint_id: str | None, as_json: bool) -> int:
    """0 when every artifact, statement and tree is what was signed, 16 when not."""
    from sandbox.repository import repository
    from supervisor.artifacts.treecheck import check_trees

    here = place.find()
    board, sprint = here.board, place.choose(here.board, sprint_id)
    said = verify_sprint(board, sprint)
    trees = check_trees(repository.find(here.top), board, sprint)
    report = Report.of(said.checked, (*said.bad, *trees))
    if as_json:
        print(msgspec.json.encode(report).decode())
    elif report.ok:
        print(f"ok: {report.checked} artifacts are what their digests and signatures say")
    else:
        for row in report.bad:
            print(f"BAD {row.phase}/{row.name}: {row.reason}")
        print(f"{report.checked} artifacts checked, {len(report.bad)} bad")
    return 0 if report.ok else 16


def export(*, directory: str, sprint_id: str | None) -> int:
    board = place.find().board
    rows = [(phase, output) for phase, _, output in _rows(board, sprint_id)]
    for path in export_files(board.blobs, rows, directory):
        print(path)
    return 0


def _rows(
    board: Board, sprint_id: str | None, *, everything: bool = False
) -> list[tuple[str, int, Output]]:
    """(phase, attempt, output) of the last completed attempt at each phase, in the graph's order;
    or of all of them, those of earlier rounds too."""
    seen = observe(place.choose(board, sprint_id))
    return [
        (name, attempt.n, output)
        for name, view in seen.phases.items()
        for attempt in view.attempts
        if attempt.is_completed and (everything or attempt is view.completed)
        if attempt.outcome is not None
        for output in attempt.outcome.outputs
    ]
