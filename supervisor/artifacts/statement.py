"""What an attempt made from what, as an in-toto statement. No I/O.

in-toto Statement v1 (https://in-toto.io/Statement/v1) with SLSA Provenance v1
(https://slsa.dev/provenance/v1). Subjects are the outputs, and the sealed tree of a write phase;
resolved dependencies are the sprint's record, the snapshot, and each input.

A statement is a pure function of the board's documents, so that verifying builds it again and
compares: whatever was edited, in either, is a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from supervisor import text
from supervisor.model.phase import Phase
from supervisor.model.record import Input, Outcome, Output, Owner, Snapshot, Sprint

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:nanosup:phase:v1"
BUILDER_ID = "urn:nanosup:keeper"

Statement = dict[str, Any]


def build(
    sprint: Sprint,
    digest: Callable[[int], str],
    phase: Phase,
    n: int,
    owner: Owner,
    outcome: Outcome,
) -> Statement:
    """The statement about attempt n at a phase.

    Args:
        digest: gives the SHA-256 of the document that holds a revision of the graph; of
            sprint.json for 0.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": list(_subjects(outcome)),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "sprint": sprint.id,
                    "goal": sprint.goal,
                    "phase": phase.name,
                    "access": phase.access.value,
                    "agent": owner.agent,
                },
                "internalParameters": {"attempt": n, **_after(owner)},
                "resolvedDependencies": [
                    {"name": "sprint.json", "digest": {"sha256": digest(0)}},
                    *_revision(owner.revision, digest),
                    *_snapshot(owner.snapshot),
                    *map(_input, owner.inputs),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER_ID},
                "metadata": {
                    "invocationId": invocation(sprint.id, phase.name, n),
                    "startedOn": owner.claimed_at,
                    "finishedOn": outcome.ended_at,
                },
                # SLSA asks for extension fields to carry the vendor's name.
                "nanosup_outcome": {
                    "state": outcome.state.value,
                    "reason": outcome.reason,
                    "exit": msgspec.to_builtins(outcome.exit),
                    **_verdict(outcome),
                },
                "nanosup_owner": {"host": owner.host, "user": owner.user},
            },
        },
    }


def encode(statement: Statement) -> bytes:
    """The bytes that are signed. Keys are sorted; what counts is what the envelope holds."""
    return text.encode(statement, sort=True)


def invocation(sprint_id: str, phase: str, n: int) -> str:
    return f"{sprint_id}/{phase}/{n}"


def output_name(output: Output) -> str:
    """How an output is named among the subjects."""
    return f"outputs/{output.name}"


def differences(signed: Any, expected: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (where, what was signed, what the board says) for each place where the two differ."""
    if isinstance(signed, dict) and isinstance(expected, dict):
        for key in sorted(signed.keys() | expected.keys()):
            path = f"{where}.{key}" if where else key
            yield from differences(signed.get(key), expected.get(key), path)
    elif isinstance(signed, list) and isinstance(expected, list):
        ours, theirs = _by_name(signed), _by_name(expected)
        if len(ours) != len(signed) or len(theirs) != len(expected):
            if signed != expected:
                yield where, signed, expected
            return
        for name in sorted(ours.keys() | theirs.keys()):
            yield from differences(ours.get(name), theirs.get(name), f"{where}[{name}]")
    elif signed != expected:
        yield where, signed, expected


def _by_name(items: list[Any]) -> dict[str, Any]:
    named = (item for item in items if isinstance(item, dict) and isinstance(item.get("name"), str))
    return {item["name"]: item for item in named}


def _subjects(outcome: Outcome) -> Iterator[dict[str, Any]]:
    for output in outcome.outputs:
        yield {
            "name": output_name(output),
            "digest": {"sha256": output.sha256},
            "mediaType": output.media_type,
        }
    if outcome.sealed is not None:
        yield {"name": "tree", "digest": _git(outcome.sealed)}


def _after(owner: Owner) -> dict[str, Any]:
    return {} if owner.after is None else {"after": owner.after}


def _verdict(outcome: Outcome) -> dict[str, Any]:
    return {} if outcome.verdict is None else {"verdict": outcome.verdict.value}


def _revision(revision: int, digest: Callable[[int], str]) -> Iterator[dict[str, Any]]:
    if revision:
        yield {"name": f"graph/{revision:04d}.json", "digest": {"sha256": digest(revision)}}


def _snapshot(snapshot: Snapshot | None) -> Iterator[dict[str, Any]]:
    if snapshot is not None:
        yield {
            "name": "snapshot",
            "digest": _git(snapshot),
            "annotations": {
                "base_tree": snapshot.base_tree,
                "layers": ",".join(snapshot.layers),
                "carried": ",".join(snapshot.carried),
            },
        }


def _input(given: Input) -> dict[str, Any]:
    return {
        "name": f"inputs/{given.phase}/{given.name}",
        "digest": {"sha256": given.sha256},
        "annotations": {"attempt": given.attempt, "size": given.size},
    }


def _git(snapshot: Snapshot) -> dict[str, str]:
    return {"gitCommit": snapshot.commit, "gitTree": snapshot.tree}
