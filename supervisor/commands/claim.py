"""`nanosup claim`, `beat`, `complete` and `abort`: work by hand, held by a token."""

from __future__ import annotations

import json
import sys

from supervisor import conductor
from supervisor.board import place
from supervisor.board.attempt import Attempt
from supervisor.board.board import Board
from supervisor.errors import TokenError
from supervisor.model.token import Token, parse


def run(
    *,
    phase: str,
    agent: str,
    lease_s: float,
    waits: bool,
    sprint_id: str | None,
    goal: str | None,
    graph: str | None,
    as_json: bool,
) -> int:
    """Prints the token, and nothing else."""
    here = place.find()
    board = here.board
    if sprint_id is not None:
        chosen = board.sprint(sprint_id)
    elif (known := place.working_on(board, goal)) is not None:
        chosen = known
    else:
        from sandbox.repository import repository
        from supervisor.config import config
        from supervisor.fleet import sprint

        repo = repository.find(here.top)
        chosen = sprint.current(
            board, repo, lambda: config.load_graph(here.top, graph=graph), goal=goal
        )

    def claim(ticket: int | None = None) -> Token:
        return conductor.claim(board, chosen, phase, agent=agent, lease_s=lease_s, ticket=ticket)

    if waits:
        from supervisor.board.patience import claim_when_ready

        held = claim_when_ready(board, chosen, phase, claim, who=agent)
    else:
        held = claim()
    document = {
        "sprint": held.sprint,
        "phase": held.phase,
        "attempt": held.attempt,
        "token": str(held),
    }
    try:
        print(json.dumps(document) if as_json else held, flush=True)
        conductor.renew(board, held)  # only now it is held beyond this process
    except BaseException:
        conductor.abort(board, held, "its token could not be printed")
        raise
    return 0


def beat(*, token: str, as_json: bool) -> int:
    held = _parsed(token)
    attempt = conductor.renew(place.find().board, held)
    if as_json:
        _print(held, attempt)
    return 0


def complete(*, phase: str, token: str, files: tuple[str, ...], as_json: bool) -> int:
    here = place.find()
    board = here.board
    held = _parsed(token, phase)
    sealed = None
    if _writes(board, held):
        attempt = conductor.renew(board, held)
        from sandbox.repository import repository

        assert attempt.owner.snapshot is not None
        sealed = conductor.hand_sealed(repository.find(here.top), board, attempt.owner.snapshot)
    ended = conductor.complete(board, held, files, sealed)
    if sealed is not None:
        from sandbox.repository import repository
        from supervisor.artifacts.publish import publish_all
        from supervisor.board.observe import observe

        publish_all(repository.find(here.top), observe(board.sprint(held.sprint)))
    if as_json:
        _print(held, ended)
    else:
        print(f"{phase}.{held.attempt} completed", file=sys.stderr)
    return 0


def abort(*, phase: str, token: str, reason: str, as_json: bool) -> int:
    held = _parsed(token, phase)
    ended = conductor.abort(place.find().board, held, reason)
    if as_json:
        _print(held, ended)
    else:
        print(f"{phase}.{held.attempt} handed back", file=sys.stderr)
    return 0


def _print(held: Token, attempt: Attempt) -> None:
    document = {
        "sprint": held.sprint,
        "phase": held.phase,
        "attempt": held.attempt,
        "state": attempt.state.value,
    }
    print(json.dumps(document))


def _writes(board: Board, held: Token) -> bool:
    phases = board.sprint(held.sprint).record.phases
    return any(phase.name == held.phase and phase.access.writes for phase in phases)


def _parsed(text: str, phase: str | None = None) -> Token:
    held = parse(text)
    if held is None or phase not in (None, held.phase):
        raise TokenError(
            "this is not a token" if held is None else f"this token is for phase {held.phase!r}",
            hint="use what `nanosup claim` printed",
        )
    return held
