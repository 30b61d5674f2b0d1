"""The keeper: the process that owns one attempt, from its claim to its outcome.

It is in a session of its own and outlives the `nanosup up` that asked for it. Killed, it takes its
lane with it: the jail and the FUSE server are told of their parent's death by the kernel, and the
mount is in its private namespace. What it wrote on the board stays for the next one.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import msgspec

from sandbox.errors import SandboxError
from sandbox.jail.feature import Features
from sandbox.repository import repository
from sandbox.tiers.tier import Tier, available
from supervisor import clock
from supervisor.artifacts.provenance import attest
from supervisor.artifacts.publish import publish_all
from supervisor.artifacts.refusal import require
from supervisor.board import room, turn
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import SprintView, observe
from supervisor.board.owner import stamp, this_process
from supervisor.board.pause import LOOK
from supervisor.board.readiness import check_ready
from supervisor.errors import (
    BlockedError,
    CompletedError,
    FencedError,
    HeldError,
    NotFoundError,
    SupervisorError,
)
from supervisor.keeper.giveway import give_way
from supervisor.keeper.mount import Server
from supervisor.keeper.order import Order
from supervisor.keeper.run import Run
from supervisor.keeper.withdrawal import WithdrawnError, heed
from supervisor.model import lineage
from supervisor.model.phase import Phase
from supervisor.model.policy import Try
from supervisor.model.record import AttemptState, Outcome, Trouble

LOST_CLAIM = 12
"""Exit status of a keeper that did not get what it was to claim."""


def main(
    order: Order, features: Features, ahead: Server | None, known: SprintDir | None
) -> NoReturn:
    """Carries out `order` and exits; for a process that was forked for it, or for any."""
    code = 1
    try:
        heed()
        keep(order, features, ahead, known)
        code = 0
    except (HeldError, BlockedError, CompletedError, WithdrawnError):
        code = LOST_CLAIM  # somebody was quicker, or it is not wanted any more: nothing is wrong
    except (SupervisorError, SandboxError) as error:
        print(f"{clock.utc_now()} {order.phase}.{order.n}: {error.message}", file=sys.stderr)
    except BaseException:
        print(f"{clock.utc_now()} {order.phase}.{order.n}:", file=sys.stderr)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def keep(
    order: Order,
    features: Features,
    ahead: Server | None = None,
    known: SprintDir | None = None,
) -> Attempt:
    """Claims the attempt, runs its lane, and writes how it ended. Returns the ended attempt.

    Args:
        ahead: a server of this process's that stands by already.
        known: what was read before of some sprint, perhaps of this one.

    Raises:
        HeldError, BlockedError, CompletedError, NotFoundError: it is not to be had.
        ArtifactError: something that it depends on is not what was signed.
        FencedError: it was given to another while it ran.
        BoardError: the board cannot be read or written.
    """
    # Whoever pauses the phase may tell us before there is a lane, which will look for itself.
    signal.signal(LOOK, signal.SIG_IGN)
    with ExitStack() as stack:
        server = None
        if Tier.FUSE in available(features):
            server = stack.enter_context(ahead or Server())
        board = Board(order.state)
        sprint = board.sprint(order.sprint)
        if known is not None:
            sprint.learn(known)
        phase = _phase(sprint, order.phase)
        if phase.access.writes:
            stack.enter_context(_turn(board, sprint, order))
        return _attempt(board, sprint, phase, order, features, server)


def _attempt(
    board: Board,
    sprint: SprintDir,
    phase: Phase,
    order: Order,
    features: Features,
    server: Server | None,
) -> Attempt:
    seen = observe(sprint)
    phase = _as_ordered(seen, phase, order)
    check_ready(seen, phase, order.n)
    # The artifacts themselves are hashed as they are copied into the lane.
    require(board, sprint, seen, phase, contents=False)
    snapshot = lineage.snapshot_for(seen.record, seen.graph, phase, seen.phases)
    inputs = lineage.inputs_for(seen.graph, phase, seen.phases)
    slot = sprint.slot(phase.name)
    owner = msgspec.structs.replace(
        this_process().owner(order.agent, clock.utc_now()),
        snapshot=snapshot,
        inputs=inputs,
        after=lineage.after_for(seen.graph, phase, seen.phases),
        revision=seen.record.revision,
    )
    # Before its command begins it is settled (`Run`): the disk works while the lane is made.
    attempt = slot.claim(order.n, owner, is_settled=False)
    give_way(sprint, phase, attempt)
    sprint.journal.note(
        "attempt.claimed",
        phase=phase.name,
        attempt=order.n,
        agent=order.agent,
        pid=owner.pid,
        access=phase.access,
        round=seen.phases[phase.name].round if seen.phases[phase.name].round > 1 else None,
    )
    run = Run(board, seen.record, sprint, phase, attempt, order, features, server)
    try:
        outcome = run.carry_out()
    except WithdrawnError:
        outcome = _revoked("ended on request, before its command ran")
    except (SandboxError, SupervisorError) as error:
        outcome = _failed(error.message, error)
    except OSError as error:
        outcome = _failed(f"{error.filename or 'a system call'}: {error.strerror}", error)
    except Exception as error:
        traceback.print_exc()
        outcome = _failed(f"a fault in nanosup: {type(error).__name__}: {error}")

    def finish() -> Attempt:
        done = outcome
        if outcome.state is AttemptState.COMPLETED:
            done = attest(board, sprint, phase, attempt, outcome)
        return slot.finish(attempt, done, is_settled=False)

    try:
        ended = room.patiently(
            finish, lambda: sprint.journal.note("disk.full", phase=phase.name, attempt=order.n)
        )
    except FencedError:
        sprint.journal.note("attempt.fenced", phase=phase.name, attempt=order.n)
        run.withdraw()
        raise
    sprint.journal.note(
        "attempt.ended",
        phase=phase.name,
        attempt=order.n,
        state=outcome.state,
        reason=outcome.reason or None,
        commit=outcome.sealed.commit if outcome.sealed else None,
        verdict=outcome.verdict,
    )
    slot.settle(ended)  # whoever waits for it has been told, and need not wait for the disk
    if outcome.sealed is not None:
        publish_all(repository.find(Path(order.top)), observe(sprint))
    return ended


def _as_ordered(seen: SprintView, phase: Phase, order: Order) -> Phase:
    """The phase by the graph as it is now.

    Raises:
        HeldError: it was changed since the order was given, so that it is to be decided anew.
    """
    now = next((known for known in seen.graph.order if known.name == phase.name), None)
    known = order.command is not None or order.agent in seen.record.agents
    if now is None or now.access is not phase.access or not known:
        raise HeldError(
            f"phase {phase.name!r} was changed meanwhile by `nanosup reload`", hint="try again"
        )
    step = seen.phases[phase.name].step
    if order.command is None and isinstance(step, Try) and step.agent != order.agent:
        raise HeldError(
            f"phase {phase.name!r} is {step.agent}'s turn since `nanosup restart`",
            hint="try again",
        )
    return now


def _revoked(reason: str) -> Outcome:
    return Outcome(
        state=AttemptState.REVOKED, ended_at=clock.utc_now(), ended=stamp(), reason=reason
    )


def _failed(reason: str, error: Exception | None = None) -> Outcome:
    return Outcome(
        state=AttemptState.FAILED,
        ended_at=clock.utc_now(),
        ended=stamp(),
        reason=reason,
        trouble=Trouble.NO_SPACE if room.is_wanting(error) else None,
    )


def _phase(sprint: SprintDir, name: str) -> Phase:
    for phase in sprint.record.phases:
        if phase.name == name:
            return phase
    raise NotFoundError(
        f"sprint {sprint.id} has no phase {name!r}",
        hint=f"it has {', '.join(phase.name for phase in sprint.record.phases)}",
    )


@contextmanager
def _turn(board: Board, sprint: SprintDir, order: Order) -> Iterator[None]:
    """Holds the repository's writer's turn: one writer at a time, whatever sprint it is of.

    Raises:
        HeldError: somebody alive has it, or waits for it and comes first; says who.
    """
    who = f"{order.sprint} {order.phase}.{order.n} ({order.agent})"
    held = turn.take(board, this_process().owner(who, clock.utc_now()), order.ticket)
    sprint.journal.note("turn.taken", phase=order.phase, attempt=order.n, turn=held.n)
    try:
        yield
    finally:
        # Before: whoever reads the journals finds no moment with two turns.
        sprint.journal.note("turn.released", phase=order.phase, attempt=order.n, turn=held.n)
        with room.forgiving():  # who is dead has ended
            turn.give_back(board, held)
