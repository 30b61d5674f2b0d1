"""Signed statements on the board: writing one when an attempt ends, and checking them all.

A statement is written before the outcome that names it, so a completed attempt is never without.
One that no outcome names means nothing: its writer died, or was fenced.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

import msgspec

from supervisor import text
from supervisor.artifacts import amended, audit, envelope, statement
from supervisor.artifacts.audit import Bad, Report
from supervisor.artifacts.key import Keyring
from supervisor.board import disk
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board, SprintDir
from supervisor.board.slot import OUTCOME
from supervisor.errors import BoardError
from supervisor.model import ijson
from supervisor.model.name import attempt_name
from supervisor.model.phase import Phase
from supervisor.model.record import AttemptState, Input, Outcome, Snapshot, Verdict

_NAME = "statement.json"
_LIMIT_BYTES = 16 << 20


def attest(
    board: Board, sprint: SprintDir, phase: Phase, attempt: Attempt, outcome: Outcome
) -> Outcome:
    """Signs what an attempt made, and returns the outcome that names the statement.

    To be called by the holder right before `Slot.finish`. Where the attempt has an outcome already
    nothing is written, and `finish` will say so.

    Raises:
        BoardError: the key or the statement cannot be written.
    """
    if os.path.lexists(os.path.join(attempt.path, OUTCOME)):
        return outcome
    made = statement.build(
        sprint.record, sprint.graph_sha256, phase, attempt.n, attempt.owner, outcome
    )
    signer = Keyring(board.key_path).signer()
    data = envelope.seal(statement.encode(made), signer.keyid, signer.sign)
    path = os.path.join(attempt.path, _NAME)
    with disk.explained(path):
        tmp = disk.tmp_path(attempt.path)
        try:
            disk.write_file(tmp, data)
            name = _publish(tmp, attempt.path)
        finally:
            disk.remove(tmp)
    return msgspec.structs.replace(outcome, statement=name)


def verify_sprint(board: Board, sprint: SprintDir) -> Report:
    """Checks all of a sprint: contents, signatures, the chain of inputs, and trees.

    Raises:
        BoardError: the board is damaged.
    """
    report = audit.verify_contents(board.blobs, sprint)
    seen = _Sprint(board, sprint)
    rows = [row for phase in sprint.record.phases for row in seen.check_phase(phase)]
    rows += seen.check_revisions()
    return Report.of(report.checked, (*report.bad, *rows))


def check_phases(
    board: Board, sprint: SprintDir, phases: tuple[str, ...], *, contents: bool = True
) -> list[Bad]:
    """Checks the completed attempts at some phases: what a lane depends on.

    Args:
        contents: hash the artifacts too, for who does not do so on handing them out.

    Raises:
        BoardError: the board is damaged.
    """
    seen = _Sprint(board, sprint)
    rows = list(seen.check_revisions())
    for phase in sprint.record.phases:
        if phase.name not in phases:
            continue
        rows += seen.check_phase(phase)
        if not contents:
            continue
        outputs = [
            Input(phase=phase.name, attempt=one.n, name=out.name, sha256=out.sha256, size=out.size)
            for one in seen.attempts[phase.name]
            if one.state is AttemptState.COMPLETED and one.outcome is not None
            for out in one.outcome.outputs
        ]
        rows += audit.check_inputs(board.blobs, outputs)
    return rows


class _Sprint:
    """What is needed to check statements, read once."""

    def __init__(self, board: Board, sprint: SprintDir) -> None:
        self.record = sprint.record
        self._sprint = sprint
        self._digests = functools.cache(sprint.graph_sha256)
        self.keyring = Keyring(board.key_path)
        self.attempts = {
            phase.name: sprint.slot(phase.name).attempts() for phase in self.record.phases
        }

    def check_revisions(self) -> Iterator[Bad]:
        for number in range(1, self.record.revision + 1):
            if wrong := amended.fault(self.keyring, self._sprint, number):
                yield Bad(
                    phase="",
                    name=f"graph/{attempt_name(number)}.json",
                    expected="a revision signed by this board",
                    actual=None,
                    reason=f"revision {number} of the graph {wrong}",
                )

    def check_phase(self, phase: Phase) -> Iterator[Bad]:
        for attempt in self.attempts[phase.name]:
            if attempt.state is AttemptState.COMPLETED:
                yield from self._check(phase, attempt)

    def _check(self, phase: Phase, attempt: Attempt) -> Iterator[Bad]:
        outcome = attempt.outcome
        assert outcome is not None
        name = outcome.statement
        if name is None or os.path.basename(name) != name:
            yield _fault(phase, attempt, "has no signed statement")
            return
        try:
            signed = self._open(os.path.join(attempt.path, name))
        except envelope.EnvelopeError as error:
            yield _fault(phase, attempt, f"has a statement that {error}")
            return
        expected = statement.build(
            self.record, self._digests, phase, attempt.n, attempt.owner, outcome
        )
        for where, was, now in statement.differences(signed, expected):
            yield _difference(phase, attempt, where, was, now)
        for given in attempt.owner.inputs:
            yield from self._check_input(phase, attempt, given)
        if attempt.owner.snapshot is not None:
            yield from self._check_tree(phase, attempt.owner.snapshot)

    def _open(self, path: str) -> Any:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise envelope.EnvelopeError(f"cannot be read: {error.strerror}") from error
        try:
            data = os.read(fd, _LIMIT_BYTES)
        except OSError as error:
            raise envelope.EnvelopeError(f"cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)
        try:
            return ijson.loads(envelope.unseal(data, self.keyring.verify))
        except ijson.StrictError as error:
            raise envelope.EnvelopeError(f"holds no statement: it {error}") from error

    def _check_input(self, phase: Phase, by: Attempt, given: Input) -> Iterator[Bad]:
        """An input must be an output of the attempt that it names: of a phase further up, or of a
        gate that has failed an earlier attempt at this one."""
        actual = None
        if given.phase in self.attempts:
            is_upstream = given.phase in self._upstream(phase.name, by.owner.revision)
            for attempt in self.attempts[given.phase]:
                if attempt.n == given.attempt and (
                    is_upstream or _fails(attempt, phase.name, by.n)
                ):
                    completed = attempt.state is AttemptState.COMPLETED
                    outputs = attempt.outcome.outputs if attempt.outcome and completed else ()
                    actual = next((o.sha256 for o in outputs if o.name == given.name), None)
        if actual != given.sha256:
            yield Bad(
                phase=phase.name,
                name=f"{given.phase}/{given.name}",
                expected=actual,
                actual=given.sha256,
                reason=f"phase {phase.name} was given {given.phase}/{given.name}, which is not "
                f"what attempt {given.attempt} of {given.phase} made",
            )

    def _check_tree(self, phase: Phase, snapshot: Snapshot) -> Iterator[Bad]:
        """A snapshot must be the sprint's base, or what a writer of this sprint sealed."""
        sealed = [
            attempt.outcome.sealed
            for attempts in self.attempts.values()
            for attempt in attempts
            if attempt.outcome is not None and attempt.outcome.sealed is not None
        ]
        known = {(one.commit, one.tree) for one in (self.record.base, *sealed)}
        if (snapshot.commit, snapshot.tree) not in known:
            yield Bad(
                phase=phase.name,
                name="tree",
                expected=self.record.base.tree,
                actual=snapshot.tree,
                reason=f"phase {phase.name} saw tree {snapshot.tree}, which is neither the base "
                "of its sprint nor sealed by a phase of it",
            )

    def _upstream(self, phase: str, revision: int) -> set[str]:
        """What a phase depended on, directly or not, in the graph that an attempt was made by."""
        needs = {known.name: known.depends_on for known in self._sprint.record_at(revision).phases}
        found: set[str] = set()
        ahead = list(needs.get(phase, ()))
        while ahead:
            name = ahead.pop()
            if name in needs and name not in found:
                found.add(name)
                ahead += needs[name]
        return found


def _fails(attempt: Attempt, phase: str, n: int) -> bool:
    """Whether an attempt at a gate says "fail" of an attempt at `phase` before the n-th."""
    said = attempt.outcome.verdict if attempt.outcome is not None else None
    return said is Verdict.FAIL and 0 < (attempt.owner.after or {}).get(phase, 0) < n


def _publish(tmp: str, directory: str) -> str:
    # Two calls of `complete` may be under way, or one died: each has a statement of its own, and
    # only that which the outcome names counts.
    for n in range(1, 1000):
        name = _NAME if n == 1 else f"statement.{n}.json"
        try:
            disk.publish_file(tmp, os.path.join(directory, name))
        except FileExistsError:
            continue
        return name
    raise BoardError(f"{directory} is full of statements that no outcome names")


def _fault(phase: Phase, attempt: Attempt, what: str) -> Bad:
    name = attempt.outcome.statement if attempt.outcome is not None else None
    return Bad(
        phase=phase.name,
        name=name or _NAME,
        expected="a statement signed by this board",
        actual=None,
        reason=f"attempt {attempt.n} of {phase.name} {what}",
    )


def _difference(phase: Phase, attempt: Attempt, where: str, was: Any, now: Any) -> Bad:
    """The row for a place where the board no longer says what was signed."""
    return Bad(
        phase=phase.name,
        name=where,
        expected=_shown(was),
        actual=_shown(now),
        reason=f"attempt {attempt.n} of {phase.name} was signed with {where} = {_shown(was)}, "
        f"and now the board says {_shown(now)}",
    )


def _shown(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return text.encode(value, sort=True).decode()
