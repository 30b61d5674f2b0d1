"""`nanosup run PHASE -- COMMAND…`: a claim, a lane and a command in the foreground."""

from __future__ import annotations

import sys

import msgspec

from sandbox.errors import JailError, MountError
from sandbox.jail.feature import Features
from sandbox.probe import host
from sandbox.repository import repository
from sandbox.tiers import tier
from supervisor.board import place
from supervisor.board.attempt import next_number
from supervisor.board.patience import claim_when_ready
from supervisor.config import config
from supervisor.fleet import sprint
from supervisor.keeper import terminal
from supervisor.keeper.enforcement import check_phase
from supervisor.keeper.keeper import keep
from supervisor.keeper.order import Order
from supervisor.model.record import AttemptState, Outcome

_OWN_FAILURE = 125  # env(1), docker-run(1)
_TIMED_OUT = 124  # timeout(1)


def run(
    *,
    phase: str,
    command: tuple[str, ...],
    sprint_id: str | None,
    agent: str,
    waits: bool,
    goal: str | None,
    graph: str | None,
) -> int:
    """The command's own status; 128 + n for a signal; 125 when the lane could not be had.

    A phase that cannot be claimed is an error of its own (10 to 15), before anything is started.
    """
    here = place.find()
    repo = repository.find(here.top)
    features = host.probe(str(here.state))
    chosen = (
        here.board.sprint(sprint_id)
        if sprint_id is not None
        else sprint.current(
            here.board, repo, lambda: config.load_graph(here.top, graph=graph), goal=goal
        )
    )
    record = chosen.record
    held = tier.choose(features, record.mount, record.require)
    for one in record.phases:
        if one.name == phase:
            check_phase(held, one, {})

    def claim_and_run(ticket: int | None = None) -> int:
        order = Order(
            state=str(here.state),
            top=str(repo.root),
            sprint=chosen.id,
            phase=phase,
            n=next_number(chosen.slot(phase).latest()),
            agent=agent,
            ticket=ticket,
            command=command,
            foreground=True,
        )
        return _at_terminal(order, features)

    if not waits:
        return claim_and_run()
    return claim_when_ready(here.board, chosen, phase, claim_and_run, who=agent)


def _at_terminal(order: Order, features: Features) -> int:
    if not terminal.is_one():
        return _carry_out(order, features)
    return terminal.attend(
        lambda passed: _carry_out(
            msgspec.structs.replace(order, tty=True, stderr=passed.stderr), features
        )
    )


def _carry_out(order: Order, features: Features) -> int:
    try:
        attempt = keep(order, features)
    except (JailError, MountError) as error:
        print(f"nanosup: {error.message}", file=sys.stderr)
        return _OWN_FAILURE
    assert attempt.outcome is not None
    return _status(attempt.outcome)


def _status(outcome: Outcome) -> int:
    end = outcome.exit
    if end is not None and end.signal is not None:
        return 128 + end.signal
    if outcome.state is AttemptState.COMPLETED:
        if outcome.reason:
            print(f"nanosup: {outcome.reason}", file=sys.stderr)
        return 0
    if end is not None and end.code:
        if end.code in (126, 127):
            print(f"nanosup: {outcome.reason}", file=sys.stderr)
        return end.code
    print(f"nanosup: {outcome.state}: {outcome.reason}", file=sys.stderr)
    if outcome.state is AttemptState.TIMED_OUT:
        return _TIMED_OUT
    return 16 if outcome.state is AttemptState.FAILED and end is not None else _OWN_FAILURE
