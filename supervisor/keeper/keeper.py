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
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import msgspec

from sandbox.channel import Channel, ClosedError
from sandbox.descriptor import readable
from sandbox.errors import SandboxError
from sandbox.jail.feature import Features
from sandbox.tiers.tier import Tier, available, choose
from supervisor import clock
from supervisor.artifacts.refusal import require
from supervisor.board import owner, turn, vital
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board, SprintDir
from supervisor.board.observe import SprintView, observe
from supervisor.board.owner import this_process
from supervisor.board.pause import LOOK
from supervisor.board.readiness import check_ready
from supervisor.errors import (
    BlockedError,
    CompletedError,
    HeldError,
    NotFoundError,
    SupervisorError,
)
from supervisor.keeper import withdrawal
from supervisor.keeper.charge import Charge
from supervisor.keeper.engagement import Engagement, holding
from supervisor.keeper.giveway import give_way
from supervisor.keeper.mount import Server
from supervisor.keeper.order import Order
from supervisor.keeper.post import Here, Post
from supervisor.keeper.preparer import Declined, Preparer, There
from supervisor.keeper.run import Run
from supervisor.keeper.session import Finding
from supervisor.keeper.wakeup import Wakeup
from supervisor.keeper.withdrawal import WithdrawnError, asks_for_the_end, heed
from supervisor.model import lineage
from supervisor.model.phase import Phase
from supervisor.model.policy import Try
from supervisor.model.record import Sprint

LOST_CLAIM = 12
"""Exit status of a keeper that did not get what it was to claim."""


@dataclass(frozen=True, slots=True)
class Training:
    """What is done before there is an order.

    Attributes:
        preparer: by who will prepare the lane; is given a question, whether an order has come.
        server: by the server of its mount.
    """

    preparer: Callable[[Callable[[], bool]], None] = lambda _has_come: None
    server: Callable[[], None] = lambda: None


def serve(
    features: Features,
    known: SprintDir | None,
    orders: Channel,
    training: Training,
    *,
    is_fuse: bool,
) -> NoReturn:
    """Carries out the order, as JSON, that comes from `orders`, and exits; for a process that was
    forked for that.

    Args:
        known: what was read before of some sprint, perhaps of this one.
        is_fuse: this host has lanes with a mount that is served.
    """
    server = preparer = None
    if is_fuse:
        # Forked before there is anything to do, each has the less of what the others touch.
        server = Server(train=training.server)
        preparer = Preparer(partial(_prepare, features, known, server, training))
    try:
        order, _ = orders.receive()
    except ClosedError:
        os._exit(0)
    orders.close()
    code = 1
    try:
        if server is None or preparer is None:
            heed()
            code = _alone(features, None, known, order)
        else:
            with server:
                code = _keep_prepared(order, features, server, known, preparer)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def keep(order: Order, features: Features) -> Attempt:
    """Carries out an order in this process. As `engage`."""
    with ExitStack() as stack:
        server = None
        if Tier.FUSE in available(features):
            server = stack.enter_context(Server())
        return engage(order, features, server, None, Here(foreground=order.foreground))


def engage(
    order: Order,
    features: Features,
    server: Server | None,
    known: SprintDir | None,
    post: Post,
) -> Attempt:
    """Claims the attempt, has its lane run, and writes how it ended. Returns the ended attempt.

    Args:
        server: stands by to serve its mount.
        known: as for `serve`.
        post: keeps the lane.

    Raises:
        HeldError, BlockedError, CompletedError, NotFoundError: it is not to be had.
        ArtifactError: something that it depends on is not what was signed.
        FencedError: it was given to another while it ran.
        BoardError: the board cannot be read or written.
    """
    # Whoever pauses the phase may tell us before there is a lane, which will look for itself.
    signal.signal(LOOK, signal.SIG_IGN)
    board, sprint = _opened(order, known)
    phase = _phase(sprint, order.phase)
    with ExitStack() as stack:
        held = None
        if phase.access.writes:
            held = _take_turn(board, sprint, order)
            stack.enter_context(holding(board, sprint, order.phase, order.n, held))
        # Who is asked to end from the claim on has to say so on the board.
        release = stack.enter_context(withdrawal.held())
        engagement, record = _claim(board, sprint, phase, order, held)
        run = Run(engagement, record, order, features, server, post)

        def act() -> Finding:
            release()
            return run.carry_out()

        return engagement.carry_through(act)


# -- a lane that another process prepares


def _prepare(
    features: Features,
    known: SprintDir | None,
    server: Server,
    training: Training,
    channel: Channel,
    keeper: int,
) -> int:
    """What the preparer does. Returns its exit status, where it has nothing to hand over."""
    training.preparer(lambda: readable(channel.fileno(), 0))
    try:
        order, _ = channel.receive()
    except ClosedError:
        return 0
    heed()
    owner.act_for(keeper)
    post = There(channel, keeper)

    def act(it: Order) -> Attempt:
        _, sprint = _opened(it, known)
        if not _is_mounted(sprint.record, features):
            post.decline()
        return engage(it, features, server, sprint, post)

    return _told(_decoded(order), act)


def _keep_prepared(
    order: bytes,
    features: Features,
    server: Server,
    known: SprintDir | None,
    preparer: Preparer,
) -> int:
    """Keeps a lane that `preparer` prepares. Returns the exit status."""
    with ExitStack() as stack:
        wakeup = stack.enter_context(Wakeup())
        here = Here(wakeup=wakeup)
        preparer.give(order)
        match preparer.attend(here, wakeup, features, stack):
            case Charge() as charge:
                lane = stack.pop_all()
                return _told(charge.order, lambda _: _take_over(charge, server, known, here, lane))
            case Declined():
                stack.pop_all()  # from here on signals are heeded, not ignored
                heed()
                if asks_for_the_end(preparer.heard + wakeup.read()):
                    return LOST_CLAIM
                wakeup.close()
                return _alone(features, server, known, order)
            case int() as code:
                return code


def _take_over(
    charge: Charge, server: Server, known: SprintDir | None, here: Here, lane: ExitStack
) -> Attempt:
    """Keeps a lane whose command runs to its end, and what was claimed for it. As `engage`.

    Args:
        lane: is closed when nothing of it is left.
    """
    order, held = charge.order, charge.turn
    with ExitStack() as stack:
        for path, fd in charge.vital.items():
            vital.keep(path, fd)
        for fd in (charge.lock, *charge.logs):
            lane.callback(os.close, fd)
        if charge.bounds.group is not None:
            lane.callback(charge.bounds.group.close)
        lane.callback(here.close)
        stack.enter_context(lane)
        server.serves(is_writable=charge.phase.access.writes)
        board, sprint = _opened(order, known)
        if held is not None:
            stack.enter_context(holding(board, sprint, order.phase, order.n, held))

        def kept() -> Finding:
            with lane:
                return here.keep(charge, sprint, server)

        engagement = Engagement(board, sprint, charge.phase, charge.attempt, order.top, held)
        return engagement.carry_through(kept)


def _told(order: Order, act: Callable[[Order], Attempt]) -> int:
    """Has `act` carry out an order, and says on stderr what was wrong. Returns the exit status."""
    try:
        act(order)
    except (HeldError, BlockedError, CompletedError, WithdrawnError):
        return LOST_CLAIM  # somebody was quicker, or it is not wanted any more: nothing is wrong
    except (SupervisorError, SandboxError) as error:
        print(f"{clock.utc_now()} {order.phase}.{order.n}: {error.message}", file=sys.stderr)
    except BaseException:
        print(f"{clock.utc_now()} {order.phase}.{order.n}:", file=sys.stderr)
        traceback.print_exc()
    else:
        return 0
    return 1


def _alone(features: Features, server: Server | None, known: SprintDir | None, order: bytes) -> int:
    """Prepares a lane in this process, and keeps it. Returns the exit status."""
    return _told(_decoded(order), lambda it: engage(it, features, server, known, Here()))


def _decoded(order: bytes) -> Order:
    return msgspec.json.decode(order, type=Order)


def _is_mounted(record: Sprint, features: Features) -> bool:
    """Whether the lanes of a sprint have a mount that is served. What hinders them is told by who
    makes one."""
    try:
        return choose(features, record.mount, record.require) is Tier.FUSE
    except SandboxError:
        return True


# -- the claim


def _opened(order: Order, known: SprintDir | None) -> tuple[Board, SprintDir]:
    board = Board(order.state)
    sprint = board.sprint(order.sprint)
    if known is not None:
        sprint.learn(known)
    return board, sprint


def _claim(
    board: Board, sprint: SprintDir, phase: Phase, order: Order, held: Attempt | None
) -> tuple[Engagement, Sprint]:
    seen = observe(sprint)
    phase = _as_ordered(seen, phase, order)
    check_ready(seen, phase, order.n)
    # The artifacts themselves are hashed as they are copied into the lane.
    require(board, sprint, seen, phase, contents=False)
    by = msgspec.structs.replace(
        this_process().owner(order.agent, clock.utc_now()),
        snapshot=lineage.snapshot_for(seen.record, seen.graph, phase, seen.phases),
        inputs=lineage.inputs_for(seen.graph, phase, seen.phases),
        after=lineage.after_for(seen.graph, phase, seen.phases),
        revision=seen.record.revision,
    )
    # Before its command begins it is settled (`Run`): the disk works while the lane is made.
    attempt = sprint.slot(phase.name).claim(order.n, by, is_settled=False)
    give_way(sprint, phase, attempt)
    engagement = Engagement(board, sprint, phase, attempt, order.top, held)
    engagement.tell(
        "attempt.claimed",
        agent=order.agent,
        pid=by.pid,
        access=phase.access,
        round=seen.phases[phase.name].round if seen.phases[phase.name].round > 1 else None,
    )
    return engagement, seen.record


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


def _phase(sprint: SprintDir, name: str) -> Phase:
    for phase in sprint.record.phases:
        if phase.name == name:
            return phase
    raise NotFoundError(
        f"sprint {sprint.id} has no phase {name!r}",
        hint=f"it has {', '.join(phase.name for phase in sprint.record.phases)}",
    )


def _take_turn(board: Board, sprint: SprintDir, order: Order) -> Attempt:
    """Takes the repository's writer's turn: one writer at a time, whatever sprint it is of.

    Raises:
        HeldError: somebody alive has it, or waits for it and comes first; says who.
    """
    who = f"{order.sprint} {order.phase}.{order.n} ({order.agent})"
    held = turn.take(board, this_process().owner(who, clock.utc_now()), order.ticket)
    sprint.journal.note("turn.taken", phase=order.phase, attempt=order.n, turn=held.n)
    return held
