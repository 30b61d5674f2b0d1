"""Claims by hand: for agents that people start themselves, with no `nanosup up` and no daemon.

Who claims holds a token, and the claim a lease, which every call with the token renews. The board
and its rules are the same as for keepers: one holder an attempt, one writer at a time, and whoever
comes after an outcome is fenced.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from supervisor import clock
from supervisor.artifacts.refusal import require
from supervisor.board import beat, turn
from supervisor.board.attempt import Attempt, describe_holder, describe_outcome, next_number
from supervisor.board.board import Board, SprintDir
from supervisor.board.lost import bury_dead
from supervisor.board.observe import driver, holder, observe
from supervisor.board.owner import liveness, this_process
from supervisor.board.readiness import check_ready
from supervisor.board.request import request_end
from supervisor.errors import FencedError, HeldError, TokenError
from supervisor.keeper.giveway import give_way
from supervisor.model import lineage, token
from supervisor.model.liveness import Liveness, before_first_beat
from supervisor.model.record import AttemptState, Outcome, Owner, Snapshot
from supervisor.model.token import Token

if TYPE_CHECKING:
    # libgit2 takes a twentieth of a second to import, and claims need none of it.
    from sandbox.repository.repository import Repository

LEASE_S = 3600.0
_KILL_AFTER_S = 10.0
_SETTLED_S = 60


def claim(
    board: Board,
    sprint: SprintDir,
    phase_name: str,
    *,
    agent: str,
    lease_s: float = LEASE_S,
    ticket: int | None = None,
) -> Token:
    """Claims the next attempt at a phase, and for a write phase the writer's turn with it.

    The claim lives as long as this process until `renew` is called: once its holder has the token.

    Args:
        ticket: the number under which this process waits for that turn.

    Raises:
        HeldError, BlockedError, CompletedError, NotFoundError: it is not to be had; says why.
        ArtifactError: something that it depends on is not what was signed.
        BoardError: the board cannot be written.
    """
    slot = sprint.slot(phase_name)
    bury_dead(slot, "its owner died, or its lease ran out")
    seen = observe(sprint)
    phase = seen.graph[phase_name]
    n = next_number(slot.latest())
    check_ready(seen, phase, n)
    require(board, sprint, seen, phase)
    made = token.mint(sprint.id, phase_name, n, os.urandom(token.SECRET_BYTES))
    owner = msgspec.structs.replace(
        this_process().lease(agent, clock.utc_now(), lease_s, made.digest),
        snapshot=lineage.head(seen.record, seen.phases)
        if phase.access.writes
        else lineage.snapshot_for(seen.record, seen.graph, phase, seen.phases),
        inputs=lineage.inputs_for(seen.graph, phase, seen.phases),
        after=lineage.after_for(seen.graph, phase, seen.phases),
        revision=seen.record.revision,
    )
    held = turn.take(board, _for_turn(owner, made), ticket) if phase.access.writes else None
    if held is not None:
        sprint.journal.note("turn.taken", phase=phase_name, attempt=n, turn=held.n)
    try:
        give_way(sprint, phase, slot.claim(n, owner))
    except BaseException:
        if held is not None:
            sprint.journal.note("turn.released", phase=phase_name, attempt=n, turn=held.n)
            turn.give_back(board, held)
        raise
    sprint.journal.note(
        "attempt.claimed",
        phase=phase_name,
        attempt=n,
        agent=agent,
        access=phase.access,
        round=seen.phases[phase_name].round if seen.phases[phase_name].round > 1 else None,
    )
    return made


def renew(board: Board, held: Token) -> Attempt:
    """Renews the lease of a claim, and of the turn that goes with it.

    Raises:
        FencedError: the attempt has an outcome: its holder was given up, or is done.
        TokenError: the token is not the attempt's.
        NotFoundError: there is no such attempt.
    """
    attempt = board.sprint(held.sprint).slot(held.phase).attempt(held.attempt)
    if not held.opens(attempt.owner.token_sha256):
        raise TokenError(
            f"this is not the token of attempt {attempt.n} at {attempt.label}",
            hint="use what `nanosup claim` printed",
        )
    if attempt.outcome is not None:
        raise FencedError(
            f"attempt {attempt.n} at {attempt.label} is over: {describe_outcome(attempt)}",
            hint="`nanosup next` says what can be picked up now",
        )
    now = beat.now(this_process().boot_id)
    beat.renew(attempt.path, now)
    if (its_turn := _turn_of(board, held)) is not None:
        beat.renew(its_turn.path, now)
    return attempt


def complete(board: Board, held: Token, files: Iterable[str], sealed: Snapshot | None) -> Attempt:
    """Ends a claim as completed, with the files that it hands on.

    Args:
        sealed: what the repository looks like now; for write phases.

    Raises:
        FencedError, TokenError, NotFoundError: as `renew`.
        ArtifactError: a file is refused, or a required one missing. The claim stays as it was.
        BoardError: the board cannot be written.
    """
    from supervisor.artifacts import artifact
    from supervisor.artifacts.provenance import attest
    from supervisor.model.contract import Inspector

    attempt = renew(board, held)
    sprint = board.sprint(held.sprint)
    phase = observe(sprint).graph[held.phase]
    inspector = Inspector(phase)
    outputs = artifact.collect_files(board.blobs, files, phase.outputs, inspector=inspector)
    outcome = Outcome(
        state=AttemptState.COMPLETED,
        ended_at=clock.utc_now(),
        outputs=outputs,
        sealed=sealed,
        verdict=inspector.verdict,
    )
    outcome = attest(board, sprint, phase, attempt, outcome)
    return _finish(board, sprint, attempt, held, outcome)


def abort(board: Board, held: Token, reason: str) -> Attempt:
    """Hands a claim back. Raises as `renew`."""
    attempt = renew(board, held)
    outcome = _ended(AttemptState.RELEASED, reason)
    return _finish(board, board.sprint(held.sprint), attempt, held, outcome)


def hand_sealed(repo: Repository, board: Board, seen: Snapshot) -> Snapshot:
    """The working tree as it is now, as what a write phase that was done by hand has sealed.

    Its objects go into the repository's own store, so that a ref can name them.

    Raises:
        GitError: the working tree cannot be recorded.
    """
    from sandbox.git.store import Store
    from sandbox.repository.snapshot import snapshot

    objects = Path(board.objects_path)
    commit, tree = snapshot(repo, "worktree", objects)
    store = Store((*repo.object_dirs, objects), repo.objects)
    store.copy_commit(bytes.fromhex(commit))
    store.flush()
    return Snapshot(
        commit=commit,
        tree=tree,
        base_tree=tree,
        height=seen.height + 1,
        epoch_ns=(int(time.time()) - _SETTLED_S) * 1_000_000_000,
    )


def unstuck(
    board: Board, sprint: SprintDir, phase_name: str, *, force: bool
) -> tuple[Attempt | None, str]:
    """Frees a phase whose holder is dead, or with `force` whoever holds it.

    What the attempt left in its upper layer stays where it is.

    Returns the attempt that ended by it, if any, and what was done, as a sentence.

    Raises:
        HeldError: its holder is alive, or may be, and `force` was not given; names it.
        NotFoundError: no such phase.
        BoardError: the board cannot be written.
    """
    turn.bury(board)
    slot = sprint.slot(phase_name)
    if force:
        _free_driver(sprint)
    latest = slot.latest()
    if latest is None or latest.outcome is not None:
        return None, f"{phase_name} is held by nobody"
    seen = liveness(latest)
    if seen is not Liveness.DEAD and not force:
        how = "is alive" if seen is Liveness.ALIVE else "cannot be judged from here"
        raise HeldError(
            f"phase {phase_name!r} is held by {describe_holder(latest)}, which {how}",
            hint="--force takes it away all the same",
        )
    if seen is Liveness.DEAD:
        state, reason = AttemptState.LOST, "its owner died, or its lease ran out"
        said = f"{phase_name}.{latest.n} was lost: its holder is dead. It can be claimed again"
    else:
        state, reason = AttemptState.REVOKED, "taken away by unstuck --force"
        said = f"{phase_name}.{latest.n} was taken from {describe_holder(latest)}"
    try:
        # Fence first: whatever the holder still does changes nothing any more.
        ended = slot.finish(latest, _ended(state, reason))
    except FencedError:
        return None, f"{phase_name}.{latest.n} ended by itself meanwhile"
    sprint.journal.note(
        "attempt.ended", phase=phase_name, attempt=latest.n, state=state, reason=reason
    )
    if state is AttemptState.REVOKED:
        _end_keeper(latest)
    its_turn = board.turns.latest()
    if its_turn is not None and _same_holder(its_turn.owner, latest.owner):
        turn.give_back(board, its_turn, state)
    return ended, said


def _free_driver(sprint: SprintDir) -> None:
    """Ends the claim of a `nanosup up` that cannot be judged from here: its container, or host, may
    be gone, and nothing else would ever let another one go on with the sprint."""
    slot = driver(sprint)
    held = holder(slot)
    if held is not None and liveness(held) is Liveness.UNKNOWN:
        try:
            slot.finish(held, _ended(AttemptState.REVOKED, "taken away by unstuck --force"))
        except FencedError:
            pass  # it ended by itself meanwhile


def _end_keeper(attempt: Attempt) -> None:
    """Ends the lane that nanosup started for an attempt, and its keeper."""
    deadline = time.monotonic() + _KILL_AFTER_S
    how: signal.Signals = signal.SIGINT
    while request_end(attempt, how):
        if time.monotonic() > deadline:
            how = signal.SIGKILL
        time.sleep(0.02)


def _for_turn(owner: Owner, made: Token) -> Owner:
    """The owner of the turn: this process until the claim is there, then the claim."""
    return msgspec.structs.replace(
        before_first_beat(owner),
        giver=None,
        serves=f"{made.sprint}/{made.phase}/{made.attempt}",
    )


def _turn_of(board: Board, held: Token) -> Attempt | None:
    latest = board.turns.latest()
    if latest is None or latest.outcome is not None or not held.opens(latest.owner.token_sha256):
        return None
    return latest


def _finish(
    board: Board, sprint: SprintDir, attempt: Attempt, held: Token, outcome: Outcome
) -> Attempt:
    ended = sprint.slot(held.phase).finish(attempt, outcome)
    sprint.journal.note(
        "attempt.ended",
        phase=held.phase,
        attempt=attempt.n,
        state=outcome.state,
        reason=outcome.reason or None,
        verdict=outcome.verdict,
    )
    if (its_turn := _turn_of(board, held)) is not None:
        sprint.journal.note("turn.released", phase=held.phase, attempt=attempt.n, turn=its_turn.n)
        turn.give_back(board, its_turn)
    return ended


def _same_holder(one: Owner, other: Owner) -> bool:
    if one.token_sha256 is not None:
        return one.token_sha256 == other.token_sha256
    return (one.boot_id, one.pid, one.start_ticks) == (other.boot_id, other.pid, other.start_ticks)


def _ended(state: AttemptState, reason: str = "") -> Outcome:
    return Outcome(state=state, ended_at=clock.utc_now(), reason=reason)
