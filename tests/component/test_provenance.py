"""Statements: read by an independent library, and every forgery found."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from board_stage import SNAPSHOT, Child, ended, leftovers, me, sprint_record, tree
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec.structs import replace
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from supervisor.artifacts import provenance
from supervisor.artifacts.artifact import collect
from supervisor.artifacts.key import Keyring
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board, SprintDir
from supervisor.errors import BoardError, FencedError
from supervisor.model.record import AttemptState, Input, Snapshot

SEALED = Snapshot(commit="5" * 40, tree="e" * 40, base_tree="7" * 40, layers=("l1",), height=1)


class Stage:
    """A board with a sprint of three phases, each completed and signed."""

    def __init__(self, top: Path) -> None:
        self.board = Board(top / "state")
        self.top = top
        self.sprint = self.run()

    def run(self) -> SprintDir:
        record = sprint_record("plan", "build", "review")
        plan, build, review = record.phases
        record = replace(
            record,
            phases=(
                plan,
                replace(build, depends_on=("plan",)),
                replace(review, depends_on=("build",)),
            ),
        )
        sprint = self.board.create_sprint(record)
        self.complete(sprint, "plan", SNAPSHOT, [])
        self.complete(sprint, "build", SNAPSHOT, ["plan"], SEALED)
        self.complete(sprint, "review", SEALED, ["plan", "build"])
        return sprint

    def complete(
        self,
        sprint: SprintDir,
        phase: str,
        snapshot: Snapshot,
        needs: list[str],
        sealed: Snapshot | None = None,
    ) -> Attempt:
        inputs = []
        for need in needs:
            latest = sprint.slot(need).latest()
            assert latest is not None
            assert latest.outcome is not None
            inputs += [
                Input(phase=need, attempt=latest.n, name=out.name, sha256=out.sha256, size=out.size)
                for out in latest.outcome.outputs
            ]
        slot = sprint.slot(phase)
        attempt = slot.claim_next(replace(me(), snapshot=snapshot, inputs=tuple(inputs)))
        outputs = self.top / "outputs" / sprint.id / phase
        outputs.mkdir(parents=True)
        (outputs / f"{phase}.md").write_text(f"{phase} of {sprint.id}")
        outcome = replace(
            ended(AttemptState.COMPLETED),
            outputs=collect(self.board.blobs, str(outputs), []),
            sealed=sealed,
        )
        (record,) = (one for one in sprint.record.phases if one.name == phase)
        outcome = provenance.attest(self.board, sprint, record, attempt, outcome)
        return slot.finish(attempt, outcome)

    def path(self, phase: str, name: str, sprint: SprintDir | None = None) -> Path:
        return Path((sprint or self.sprint).slot(phase).attempt(1).path, name)

    def edit(self, phase: str, name: str, change: Callable[[Any], object]) -> None:
        path = self.path(phase, name)
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    def bad(self) -> set[tuple[str, str]]:
        sprint = Board(self.board.path).sprint(self.sprint.id)
        report = provenance.verify_sprint(self.board, sprint)
        assert report.ok == (not report.bad)
        assert all(row.reason for row in report.bad)
        return {(row.phase, row.name) for row in report.bad}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def public_key(stage: Stage) -> SSlibKey:
    (file,) = Path(stage.board.key_path).glob("*.pub")
    public = load_pem_public_key(file.read_bytes())
    return SSlibKey.from_crypto(public, keyid=file.stem)  # type: ignore[arg-type]


def test_an_untouched_sprint_verifies(stage: Stage) -> None:
    report = provenance.verify_sprint(stage.board, stage.sprint)
    assert report == provenance.Report(ok=True, checked=3, bad=())
    assert provenance.check_phases(stage.board, stage.sprint, ("plan", "build")) == []
    assert leftovers(stage.board.path) == []


def test_an_independent_library_verifies_the_envelope(stage: Stage) -> None:
    data = json.loads(stage.path("build", "statement.json").read_bytes())
    envelope = Envelope.from_dict(data)
    envelope.verify([public_key(stage)], 1)
    assert envelope.payload_type == "application/vnd.in-toto+json"
    statement = json.loads(envelope.payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {one["name"] for one in statement["subject"]} == {"outputs/build.md", "tree"}
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [one["name"] for one in dependencies] == [
        "sprint.json",
        "snapshot",
        "inputs/plan/plan.md",
    ]
    assert dependencies[1]["digest"] == {"gitCommit": "c" * 40, "gitTree": "7" * 40}
    envelope.payload += b" "
    with pytest.raises(VerificationError):
        envelope.verify([public_key(stage)], 1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_reads_the_keys(stage: Stage) -> None:
    private = os.path.join(stage.board.key_path, "ed25519.pem")
    (public,) = Path(stage.board.key_path).glob("*.pub")
    derived = subprocess.run(
        ["openssl", "pkey", "-in", private, "-pubout"], capture_output=True, check=True
    )
    assert derived.stdout == public.read_bytes()


def edit_blob(stage: Stage, phase: str, text: str) -> str:
    (output,) = json.loads(stage.path(phase, "outcome.json").read_text())["outputs"]
    path = Path(stage.board.blobs.path_of(output["sha256"]))
    path.chmod(0o644)
    path.write_text(text)
    return str(output["sha256"])


def test_an_edited_or_deleted_artifact_is_found(stage: Stage) -> None:
    sha256 = edit_blob(stage, "plan", "other")
    assert stage.bad() == {("plan", "plan.md")}
    Path(stage.board.blobs.path_of(sha256)).unlink()
    assert stage.bad() == {("plan", "plan.md")}
    assert provenance.check_phases(stage.board, stage.sprint, ("plan",))
    assert provenance.check_phases(stage.board, stage.sprint, ("build",)) == []


def test_edit_and_re_hash_is_found(stage: Stage) -> None:
    source = stage.top / "forged"
    source.write_text("forged")
    sha256, size = stage.board.blobs.add(str(source), 100)

    def forge(outcome: dict[str, Any]) -> None:
        outcome["outputs"][0] |= {"sha256": sha256, "size": size}

    stage.edit("plan", "outcome.json", forge)
    # Signed otherwise, and not what build and review were given.
    assert stage.bad() == {
        ("plan", "subject[outputs/plan.md].digest.sha256"),
        ("build", "plan/plan.md"),
        ("review", "plan/plan.md"),
    }


def forge_owner(**changes: object) -> Callable[[Stage], None]:
    return lambda stage: stage.edit("review", "owner.json", lambda owner: owner.update(changes))


def forge_outcome(**changes: object) -> Callable[[Stage], None]:
    return lambda stage: stage.edit("review", "outcome.json", lambda out: out.update(changes))


def forge_goal(stage: Stage) -> None:
    path = Path(stage.sprint.path, "sprint.json")
    path.write_text(path.read_text().replace('"goal": "test"', '"goal": "evil"'))


def drop_input(stage: Stage) -> None:
    stage.edit("review", "owner.json", lambda owner: owner["inputs"].pop())


def strip_statement(stage: Stage) -> None:
    stage.edit("review", "outcome.json", lambda outcome: outcome.pop("statement"))


def delete_statement(stage: Stage) -> None:
    stage.path("review", "statement.json").unlink()


def swap_statement(stage: Stage) -> None:
    shutil.copy(stage.path("build", "statement.json"), stage.path("review", "statement.json"))


def copy_from_another_sprint(stage: Stage) -> None:
    other = stage.run()
    for name in ("owner.json", "outcome.json", "statement.json"):
        shutil.copy(stage.path("review", name, other), stage.path("review", name))


def sign_with_another_key(stage: Stage) -> None:
    stage.board = Board(stage.board.path)
    kept = Path(stage.board.key_path)
    away = kept.with_name("away")
    kept.rename(away)
    other = stage.run()
    shutil.rmtree(kept)
    away.rename(kept)
    stage.sprint = other


def point_elsewhere(stage: Stage) -> None:
    target = stage.path("build", "statement.json")
    stage.edit("review", "outcome.json", lambda out: out.update(statement=str(target)))


def link_statement(stage: Stage) -> None:
    delete_statement(stage)
    stage.path("review", "statement.json").symlink_to(stage.path("build", "statement.json"))


@pytest.mark.parametrize(
    "forge",
    [
        forge_owner(agent="other"),
        forge_owner(user="other"),
        forge_owner(claimed_at="2020-01-01T00:00:00.000Z"),
        forge_owner(snapshot=msgspec.to_builtins(SNAPSHOT)),
        forge_owner(inputs=[]),
        forge_outcome(reason="other"),
        forge_outcome(ended_at="2020-01-01T00:00:00.000Z"),
        forge_outcome(outputs=[]),
        forge_outcome(sealed=msgspec.to_builtins(SEALED)),
        forge_goal,
        drop_input,
        strip_statement,
        delete_statement,
        swap_statement,
        copy_from_another_sprint,
        sign_with_another_key,
        point_elsewhere,
        link_statement,
    ],
)
def test_whatever_is_forged_is_found(stage: Stage, forge: Callable[[Stage], None]) -> None:
    forge(stage)
    assert "review" in {phase for phase, _ in stage.bad()}


def test_a_failed_attempt_cannot_be_made_a_completed_one(stage: Stage) -> None:
    sprint = stage.board.create_sprint(sprint_record("plan"))
    slot = sprint.slot("plan")
    attempt = slot.claim(1, replace(me(), snapshot=SNAPSHOT))
    phase = sprint.record.phases[0]
    slot.finish(attempt, provenance.attest(stage.board, sprint, phase, attempt, ended()))
    stage.sprint = sprint
    assert stage.bad() == set()
    stage.edit("plan", "outcome.json", lambda outcome: outcome.update(state="completed"))
    assert stage.bad() == {("plan", "predicate.runDetails.nanosup_outcome.state")}


def test_a_signed_lie_about_inputs_and_trees_is_found(stage: Stage) -> None:
    """Signed by this board, but not true: what a fault in nanosup itself would look like."""
    sprint = stage.board.create_sprint(stage.sprint.record.__class__(
        **(msgspec.structs.asdict(stage.sprint.record) | {"id": "other"})
    ))  # fmt: skip
    stage.sprint = sprint
    stage.complete(sprint, "plan", replace(SNAPSHOT, tree="9" * 40), [])
    assert stage.bad() == {("plan", "tree")}
    latest = sprint.slot("plan").latest()
    assert latest is not None
    lie = Input(phase="review", attempt=1, name="x", sha256="0" * 64, size=1)
    slot = sprint.slot("build")
    attempt = slot.claim(1, replace(me(), snapshot=SNAPSHOT, inputs=(lie,)))
    outcome = ended(AttemptState.COMPLETED)
    phase = sprint.record.phases[1]
    slot.finish(attempt, provenance.attest(stage.board, sprint, phase, attempt, outcome))
    assert stage.bad() == {("plan", "tree"), ("build", "review/x")}


def test_the_statement_of_a_call_that_died_does_not_count(stage: Stage) -> None:
    sprint = stage.board.create_sprint(sprint_record("plan"))
    slot = sprint.slot("plan")
    phase = sprint.record.phases[0]
    attempt = slot.claim(1, me())
    died = provenance.attest(stage.board, sprint, phase, attempt, ended(reason="died"))
    again = provenance.attest(
        stage.board, sprint, phase, attempt, ended(AttemptState.COMPLETED, "again")
    )
    assert (died.statement, again.statement) == ("statement.json", "statement.2.json")
    slot.finish(attempt, again)
    assert provenance.verify_sprint(stage.board, sprint).ok
    before = tree(stage.board.path)
    late = provenance.attest(stage.board, sprint, phase, attempt, ended(reason="late"))
    with pytest.raises(FencedError):
        slot.finish(attempt, late)
    assert tree(stage.board.path) == before


def test_of_many_who_make_the_key_one_wins(tmp_path: Path) -> None:
    barrier = multiprocessing.get_context("fork").Barrier(10)

    def run() -> str:
        barrier.wait(60)
        return Keyring(str(tmp_path / "state" / "key")).signer().keyid

    children = [Child(run) for _ in range(10)]
    (keyid,) = {child.result() for child in children}
    names = sorted(path.name for path in (tmp_path / "state" / "key").iterdir())
    assert names == sorted(["ed25519.pem", f"{keyid}.pub"])
    private = tmp_path / "state" / "key" / "ed25519.pem"
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.stat().st_nlink == 1


def test_a_changed_key_leaves_old_statements_valid(stage: Stage) -> None:
    Path(stage.board.key_path, "ed25519.pem").unlink()
    stage.run()
    assert len(list(Path(stage.board.key_path).glob("*.pub"))) == 2
    assert stage.bad() == set()


def test_a_key_that_others_can_read_or_that_is_damaged_is_refused(stage: Stage) -> None:
    private = Path(stage.board.key_path, "ed25519.pem")
    private.chmod(0o640)
    with pytest.raises(BoardError, match="can be read by others"):
        Keyring(stage.board.key_path).signer()
    private.chmod(0o600)
    for content in (b"", b"x", private.read_bytes()[:-30], private.read_bytes().lower()):
        private.write_bytes(content)
        with pytest.raises(BoardError, match="is no ed25519 key"):
            Keyring(stage.board.key_path).signer()


def test_a_public_key_under_a_false_name_is_not_trusted(stage: Stage) -> None:
    (public,) = Path(stage.board.key_path).glob("*.pub")
    signer = Keyring(stage.board.key_path).signer()
    assert Keyring(stage.board.key_path).verify(signer.keyid, signer.sign(b"x"), b"x")
    public.rename(public.with_name("0" * 64 + ".pub"))
    assert not Keyring(stage.board.key_path).verify("0" * 64, signer.sign(b"x"), b"x")
    assert not Keyring(stage.board.key_path).verify(signer.keyid, signer.sign(b"x"), b"x")
    assert not Keyring(stage.board.key_path).verify("../../" + "a" * 58, b"", b"x")
