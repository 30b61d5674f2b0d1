"""Verifying artifacts: does the store still hold what the outcomes say?

A blob that several attempts handed on is hashed once, and several blobs are hashed at once where
there are cores (hashlib releases the interpreter's lock).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from supervisor.artifacts.artifact import mismatch
from supervisor.board.blob import BlobStore
from supervisor.board.board import SprintDir
from supervisor.errors import ArtifactError
from supervisor.model.record import Input


class Bad(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not what it was.

    Attributes:
        name: a file, or "statement.json", or "tree" where the snapshot is what is wrong.
        expected: what it should be: a digest, for a file.
        actual: what it is; None where it is missing.
        reason: a sentence.
    """

    phase: str
    name: str
    expected: str | None
    actual: str | None
    reason: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `artifacts verify --json` prints.

    Attributes:
        checked: how many artifacts were looked at.
    """

    ok: bool
    checked: int
    bad: tuple[Bad, ...]

    @staticmethod
    def of(checked: int, bad: Iterable[Bad]) -> Report:
        rows = tuple(bad)
        return Report(ok=not rows, checked=checked, bad=rows)


def digests(blobs: BlobStore, names: Iterable[str]) -> dict[str, str | None]:
    """What each of these blobs hashes to now; None where it cannot be read."""
    wanted = sorted(set(names))
    workers = min(len(wanted), os.cpu_count() or 1, 8)
    if workers < 2:
        return {name: blobs.digest(name) for name in wanted}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(wanted, pool.map(blobs.digest, wanted), strict=True))


def verify_contents(blobs: BlobStore, sprint: SprintDir) -> Report:
    """Hashes every output of every attempt of a sprint.

    Raises:
        BoardError: the board is damaged.
    """
    outputs = [
        (phase.name, output)
        for phase in sprint.record.phases
        for attempt in sprint.slot(phase.name).attempts()
        if attempt.outcome is not None
        for output in attempt.outcome.outputs
    ]
    actual = digests(blobs, (output.sha256 for _, output in outputs))
    return Report.of(
        len(outputs),
        (
            bad(phase, output.name, output.sha256, actual[output.sha256])
            for phase, output in outputs
            if actual[output.sha256] != output.sha256
        ),
    )


def check_inputs(blobs: BlobStore, inputs: Iterable[Input]) -> list[Bad]:
    """Hashes what a lane is about to be given. An empty list means that all is well."""
    given = list(inputs)
    actual = digests(blobs, (one.sha256 for one in given))
    return [
        bad(one.phase, one.name, one.sha256, actual[one.sha256])
        for one in given
        if actual[one.sha256] != one.sha256
    ]


def bad(phase: str, name: str, expected: str, actual: str | None) -> Bad:
    """The row for an artifact that is not what it was."""
    return Bad(
        phase=phase,
        name=name,
        expected=expected,
        actual=actual,
        reason=mismatch(phase, name, expected, actual).message,
    )


def raise_for(rows: Iterable[Bad]) -> None:
    """Raises ArtifactError, with a sentence for each row, unless there is none."""
    reasons = [row.reason for row in rows]
    if reasons:
        raise ArtifactError("; ".join(reasons), hint="Run the phases that made them again.")
